"""L6, the grant ledger (PROTOCOL §5.7): who may talk to this agent, and a log of every change that cannot be edited.

A grant is one row per owner; a change is an event that gives the next row and a log entry, chained by MACs
under the ledger key. The chain proves what this host recorded, not that the relay was honest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from crypto import msgpack
from crypto.errors import Reason, Unreadable, malformed
from crypto.identity import PublicIdentity
from crypto.primitives import equal, hmac_sha256

MAC_BYTES: Final = 32
FIRST_PREVIOUS: Final = bytes(MAC_BYTES)


class Status(StrEnum):
    """Where a grant stands."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class KeyChangePolicy(StrEnum):
    """What happens when an owner shows another pair than the pinned one."""

    HOLD = "hold"
    ACCEPT = "accept"
    REFUSE = "refuse"


class Change(StrEnum):
    """What changes a grant: the relay's relation frames, and decisions about keys."""

    ESTABLISHED = "established"
    REVOKED = "revoked"
    SUSPENDED = "suspended"
    RESTORED = "restored"
    KEYS_PINNED = "keys_pinned"
    KEYS_HELD = "keys_held"
    KEYS_ACCEPTED = "keys_accepted"
    KEYS_REFUSED = "keys_refused"
    DEVICES_SEEN = "devices_seen"


_STATUS_AFTER: Final = {
    Change.ESTABLISHED: Status.ACTIVE,
    Change.RESTORED: Status.ACTIVE,
    Change.SUSPENDED: Status.SUSPENDED,
    Change.REVOKED: Status.REVOKED,
}


class Grant(msgspec.Struct, frozen=True):
    """One owner's row. `pinned` survives revocation; `held` is a changed pair that awaits a decision."""

    owner_id: str
    status: Status
    since_ms: int
    changed_ms: int
    scopes: tuple[str, ...] = ()
    pinned: PublicIdentity | None = None
    held: PublicIdentity | None = None
    devices: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """For sealed storage."""
        return msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Grant:
        """The inverse of `encode`. Raises Unreadable `malformed`."""
        try:
            return _decode_grant(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise malformed("stored grant") from None


class LedgerEntry(msgspec.Struct, frozen=True):
    """One change in the log, with the whole row that it led to."""

    at_ms: int
    change: Change
    grant: Grant

    def encode(self) -> bytes:
        """The bytes that the MAC covers."""
        return msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> LedgerEntry:
        """The inverse of `encode`. Raises Unreadable `malformed`."""
        try:
            return _decode_entry(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise malformed("ledger entry") from None


_decode_grant = msgspec.msgpack.Decoder(Grant).decode
_decode_entry = msgspec.msgpack.Decoder(LedgerEntry).decode


def relation_changed(
    grant: Grant | None, owner_id: str, change: Change, *, now_ms: int, scopes: Sequence[str] | None = None
) -> LedgerEntry:
    """The entry for a relation frame. Scopes are those told, else what they were.

    A new `relation.established` never changes the pinned pair. A suspension or revocation of an owner never
    seen is recorded all the same.
    """
    status = _STATUS_AFTER[change]
    if grant is None:
        return LedgerEntry(now_ms, change, Grant(owner_id, status, now_ms, now_ms, tuple(scopes or ())))
    renewed = change is Change.ESTABLISHED and grant.status is Status.REVOKED
    after = msgspec.structs.replace(
        grant,
        status=status,
        changed_ms=now_ms,
        since_ms=now_ms if renewed else grant.since_ms,
        scopes=grant.scopes if scopes is None else tuple(scopes),
    )
    return LedgerEntry(now_ms, change, after)


def keys_seen(grant: Grant, seen: PublicIdentity, policy: KeyChangePolicy, now_ms: int) -> LedgerEntry | None:
    """What to record when an owner shows a pair: nothing, a first pin, or a key change by policy."""
    if grant.pinned == seen:
        return None
    if grant.pinned is None:
        after = msgspec.structs.replace(grant, pinned=seen, changed_ms=now_ms)
        return LedgerEntry(now_ms, Change.KEYS_PINNED, after)
    if policy is KeyChangePolicy.ACCEPT:
        return decide_key_change(grant, seen, accept=True, now_ms=now_ms)
    if policy is KeyChangePolicy.REFUSE or grant.held == seen:
        return None
    after = msgspec.structs.replace(grant, held=seen, changed_ms=now_ms)
    return LedgerEntry(now_ms, Change.KEYS_HELD, after)


def decide_key_change(grant: Grant, seen: PublicIdentity, *, accept: bool, now_ms: int) -> LedgerEntry:
    """The entry for a decision about a changed pair. Accepting pins it; every device must show itself again."""
    if accept:
        after = msgspec.structs.replace(grant, pinned=seen, held=None, devices=(), changed_ms=now_ms)
        return LedgerEntry(now_ms, Change.KEYS_ACCEPTED, after)
    after = msgspec.structs.replace(grant, held=None, changed_ms=now_ms)
    return LedgerEntry(now_ms, Change.KEYS_REFUSED, after)


def devices_seen(grant: Grant, devices: Iterable[str], now_ms: int) -> LedgerEntry | None:
    """The entry for a changed device list, or None."""
    listed = tuple(sorted(devices))
    if listed == grant.devices:
        return None
    after = msgspec.structs.replace(grant, devices=listed, changed_ms=now_ms)
    return LedgerEntry(now_ms, Change.DEVICES_SEEN, after)


def check_grant(grant: Grant | None) -> PublicIdentity:
    """The pinned pair of a sender who may talk to us.

    Raises Unreadable `no_grant` (no active grant), `unknown_sender` (no pair known yet) or `key_changed` (a
    changed pair awaits a decision).
    """
    if grant is None or grant.status is not Status.ACTIVE:
        raise Unreadable(Reason.NO_GRANT, "no active grant")
    if grant.pinned is None:
        raise Unreadable(Reason.UNKNOWN_SENDER, "no identity pair is pinned yet")
    if grant.held is not None:
        raise Unreadable(Reason.KEY_CHANGED, "a changed identity pair awaits a decision")
    return grant.pinned


def check_scope(grant: Grant, scope: str) -> None:
    """Whether a tool call is within the grant. Raises Unreadable `no_scope`."""
    if scope not in grant.scopes:
        raise Unreadable(Reason.NO_SCOPE, "the grant does not have this scope")


def entry_mac(ledger_key: bytes, previous: bytes, entry: bytes) -> bytes:
    """The MAC that chains an encoded entry to the one before (`FIRST_PREVIOUS` for the first), 32 bytes."""
    return hmac_sha256(ledger_key, previous + entry)


def verify_ledger(ledger_key: bytes, log: Iterable[tuple[bytes, bytes]], head: bytes) -> int | None:
    """Checks a log of (encoded entry, MAC) from the first on against the head kept elsewhere.

    None if all of it holds; else the index of the first entry that does not, or the log's length where its
    tail is cut off.
    """
    previous = FIRST_PREVIOUS
    count = 0
    for entry, mac in log:
        if not equal(entry_mac(ledger_key, previous, entry), mac):
            return count
        previous = mac
        count += 1
    return None if equal(previous, head) else count
