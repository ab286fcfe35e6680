"""The record of one peer device: every session with it, one value, one version number (DESIGN §3 rule 3).

What a record is, how it is stored, and how its size stays bounded stand here; what happens to it stands in
`crypto.sessions`. Stored form: versioned msgpack, a session's keys in one byte string, so that five sessions
fit into 1 KiB, as many as there may be into 6, and loading one costs a few microseconds.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from crypto.errors import malformed, stored_unreadable
from crypto.handshake import SESSION_ID_BYTES
from crypto.identity import PublicIdentity
from crypto.offers import KnownPrekey, Offers, Quota
from crypto.primitives import KEY_BYTES
from crypto.ratchet import Ratchet
from crypto.skipped import ENTRY_BYTES, SkippedChain, SkippedChains, drop_expired, replace_chain

MAX_SESSIONS: Final = 5
"""Of those that the device has started. Both sides starting at once needs two, a reinstalled peer a third; more is somebody else's fault."""

MAX_OWN_SESSIONS: Final = 16
"""Of those that we have started: one for each 900 answers that go out before what is said to them is read."""
MAX_SKIPPED: Final = 2_000
MAX_CHAINS: Final = 100
"""A device that was off for a day or two; 76 KB of keys, which is what the next bound is made of."""

MAX_RECORD_BYTES: Final = 80 * 1024
"""Read and written for every message while keys are parked: the most that may cost."""

DROPPED_ID_BYTES: Final = 8
"""Of a dropped session's 16: even 3,700 of them (100 a day, prekeys of 37 days) leave room for 1,300 keys."""

MAX_UNANSWERED: Final = 900
"""Under the 1,000 that a receiver may step over, so that a peer who lost all of them can still follow."""

MAX_UNANSWERED_SECONDS: Final = 30 * 86_400
"""As long as a peer keeps skipped keys and replaced prekeys: what is older it could not read anyway."""

MAX_AHEAD_MS: Final = 86_400_000
"""How far in our future a session may claim to have started; further ahead it would be sent on for ever."""

_VERSION: Final = 3
_VERSION_OF_FEW: Final = 2  # written while there are no more sessions than it knew: an earlier release reads it
_OLDEST_VERSION: Final = 1
_SESSION_OVERHEAD_BYTES: Final = 250
_CHAIN_OVERHEAD_BYTES: Final = 42
_BASE_BYTES: Final = 290


class Session(msgspec.Struct, frozen=True, gc=False):
    """One session with one device. The repr shows no key.

    `handshake_key` is our ephemeral public key while we are the initiator and nothing has been decrypted;
    the prekey ids are those that the initiator named. `sending_since_seconds` is when the running sending
    chain's first message was sealed (0: none). `is_lost`: the device cannot read it, or what was sent in it is unknown.
    """

    id: bytes
    started: int
    epoch: int
    is_initiator: bool
    ratchet: Ratchet
    signed_prekey_id: int
    one_time_prekey_id: int | None = None
    handshake_key: bytes | None = None
    sending_since_seconds: int = 0
    skipped: SkippedChains = ()
    is_lost: bool = False

    def __repr__(self) -> str:
        return f"Session(id={self.id.hex()}, started={self.started}, epoch={self.epoch})"

    @property
    def order(self) -> tuple[int, bytes]:
        """By what sessions are compared (§5.4): the greatest is sent on, the smallest dropped."""
        return self.started, self.id

    @property
    def is_unanswered(self) -> bool:
        """Whether we started it and nothing has been decrypted in it."""
        return self.is_initiator and self.ratchet.receive_chain is None

    @property
    def is_open(self) -> bool:
        """Whether the device can follow what is sent on it: it has been heard in it, or finds the handshake beside it."""
        return not self.is_lost and (
            self.handshake_key is not None or not self.is_initiator or self.ratchet.receive_chain is not None
        )

    def may_send(self, epoch: int, now_ms: int) -> bool:
        """Not of an older epoch (DESIGN §3 rule 17), not unanswered for 900 messages or 30 days."""
        if self.epoch < epoch:
            return False
        if self.ratchet.send_chain is None:
            return True
        return (
            self.ratchet.send_count < MAX_UNANSWERED
            and now_ms // 1000 - self.sending_since_seconds <= MAX_UNANSWERED_SECONDS
        )


class DeviceRecord(msgspec.Struct, frozen=True, gc=False):
    """Every session with one peer device, rising by `Session.order`, and what limits need remembered.

    `dropped` holds, by signed prekey id, the ids of dropped sessions that a handshake naming it could repeat. `refused_started`: the
    latest start of a session of the device whose handshake could not be answered.
    """

    peer: PublicIdentity | None = None
    sessions: tuple[Session, ...] = ()
    accepted: Quota = Quota()
    dropped: tuple[tuple[int, bytes], ...] = ()
    offers: Offers = Offers()
    refused_started: int = 0
    prekey: KnownPrekey | None = None

    def __repr__(self) -> str:
        return f"DeviceRecord(sessions={len(self.sessions)})"

    @property
    def current(self) -> Session | None:
        """The session to send on, if any may be: the greatest that the device can follow."""
        for session in reversed(self.sessions):
            if session.is_open:
                return session
        return None

    def find(self, session_id: bytes) -> Session | None:
        """The session with this id."""
        for session in reversed(self.sessions):
            if session.id == session_id:
                return session
        return None

    def has_dropped(self, session_id: bytes) -> bool:
        """Whether a session of this id has been dropped while its prekey lives."""
        short = session_id[:DROPPED_ID_BYTES]
        for _, ids in self.dropped:
            if any(ids[at : at + DROPPED_ID_BYTES] == short for at in range(0, len(ids), DROPPED_ID_BYTES)):
                return True
        return False

    def skipped_count(self) -> int:
        """How many skipped keys all sessions keep together."""
        return sum(chain.count for session in self.sessions for chain in session.skipped)

    def may_send(self, epoch: int, now_ms: int) -> bool:
        """Whether there is a session to send on (§5.4); else `sessions.start_session` first."""
        current = self.current
        return current is not None and current.may_send(epoch, now_ms) and not self.is_ahead(current, now_ms)

    def is_ahead(self, session: Session, now_ms: int) -> bool:
        """Whether our clock was ahead when we started this session, so that nobody takes its handshake until that day comes (`malformed`).

        Not where our clock is behind now: then the device has shown sessions that started about as late.
        """
        if not session.is_unanswered or session.started <= now_ms + MAX_AHEAD_MS:
            return False
        shown = max([self.refused_started, *(one.started for one in self.sessions if not one.is_unanswered)])
        return session.started > shown + MAX_AHEAD_MS

    def encode(self) -> bytes:
        """For sealed storage: at most 80 KiB; without skipped keys 1 KiB for five sessions."""
        return _encode(
            _StoredRecord(
                _VERSION if len(self.sessions) > MAX_SESSIONS else _VERSION_OF_FEW,
                b"" if self.peer is None else self.peer.pair,
                self.accepted,
                (),
                [_store(session) for session in self.sessions],
                self.dropped,
                self.offers,
                self.refused_started,
                self.prekey,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> DeviceRecord:
        """The inverse of `encode`, from any version ever written. Raises Unreadable `malformed`, NewerFormat."""
        try:
            stored = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise stored_unreadable(data, _VERSION, "device record") from None
        if not _OLDEST_VERSION <= stored.version <= _VERSION:
            raise stored_unreadable(data, _VERSION, "device record")
        record = cls(
            _load_peer(stored.peer),
            tuple([_load(session) for session in stored.sessions]),
            stored.accepted,
            stored.dropped,
            stored.offers,
            stored.refused_started,
            stored.prekey,
        )
        _check_bounds(record)
        return record


EMPTY_RECORD: Final = DeviceRecord()
"""What is known of a device that nothing was exchanged with: version 0 in the store."""


def replace_session(record: DeviceRecord, session: Session) -> DeviceRecord:
    """The record with the session of the same id replaced."""
    sessions = record.sessions
    if sessions[-1].id == session.id:
        after = (*sessions[:-1], session)
    else:
        after = tuple([session if old.id == session.id else old for old in sessions])
    return DeviceRecord(
        record.peer,
        after,
        record.accepted,
        record.dropped,
        record.offers,
        record.refused_started,
        record.prekey,
    )


def bounded(record: DeviceRecord, today: int) -> DeviceRecord:
    """The record within 30 days, 2,000 skipped keys, 100 chains and 80 KiB: the oldest keys go first."""
    for session in record.sessions:
        fresh = drop_expired(session.skipped, today)
        if fresh is not session.skipped:
            record = replace_session(record, msgspec.structs.replace(session, skipped=fresh))
    while _chain_count(record) > MAX_CHAINS:
        session, index = _oldest_chain(record)
        record = _trim(record, session, index, session.skipped[index].count)
    excess = max(record.skipped_count() - MAX_SKIPPED, -((MAX_RECORD_BYTES - _size(record)) // ENTRY_BYTES))
    while excess > 0 and _chain_count(record):
        session, index = _oldest_chain(record)
        chain = session.skipped[index]
        count = min(excess, max(1, chain.count_before(chain.first_day + 1)))
        record = _trim(record, session, index, count)
        excess -= count
    return record


def _trim(record: DeviceRecord, session: Session, index: int, count: int) -> DeviceRecord:
    shorter = session.skipped[index].without_first(count)
    skipped = replace_chain(session.skipped, index, shorter)
    return replace_session(record, msgspec.structs.replace(session, skipped=skipped))


def _chain_count(record: DeviceRecord) -> int:
    return sum(len(session.skipped) for session in record.sessions)


def _oldest_chain(record: DeviceRecord) -> tuple[Session, int]:
    return min(
        ((session, index) for session in record.sessions for index in range(len(session.skipped))),
        key=lambda place: (place[0].skipped[place[1]].first_day, place[0].order, place[1]),
    )


def _size(record: DeviceRecord) -> int:
    """An upper bound of the stored size, without storing it."""
    return (
        _BASE_BYTES
        + _SESSION_OVERHEAD_BYTES * len(record.sessions)
        + _CHAIN_OVERHEAD_BYTES * _chain_count(record)
        + ENTRY_BYTES * record.skipped_count()
        + sum(len(ids) + 9 for _, ids in record.dropped)
    )


# The stored form. A change here means a new `_VERSION`, a decoder for the old one, and a kept fixture of it
# in tests/vectors.

_Natural = Annotated[int, Meta(ge=0)]

_IS_INITIATOR: Final = 1
_HAS_OWN_PRIVATE: Final = 2
_HAS_OWN_PUBLIC: Final = 4
_HAS_THEIR_PUBLIC: Final = 8
_HAS_SEND_CHAIN: Final = 16
_HAS_RECEIVE_CHAIN: Final = 32
_HAS_HANDSHAKE_KEY: Final = 64
_IS_LOST: Final = 128
_KEY_FLAGS: Final = (2, 4, 8, 16, 32, 64)


class _StoredSession(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    started: _Natural
    epoch: _Natural
    shape: Annotated[int, Meta(ge=0, le=255)]
    id_and_keys: bytes
    send_count: _Natural
    previous_chain_length: _Natural
    receive_count: _Natural
    sending_since_seconds: _Natural
    signed_prekey_id: _Natural
    one_time_prekey_id: _Natural | None
    skipped: tuple[SkippedChain, ...]


class _StoredRecord(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Version 1 ended with `dropped`; what it noted of renegotiations counts no more, and its place stays empty."""

    version: int
    peer: bytes
    accepted: Quota
    renegotiated_seconds: tuple[_Natural, ...]
    sessions: list[_StoredSession]
    dropped: tuple[tuple[_Natural, bytes], ...]
    offers: Offers = Offers()
    refused_started: _Natural = 0
    prekey: KnownPrekey | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_StoredRecord).decode


def _store(session: Session) -> _StoredSession:
    ratchet = session.ratchet
    shape = (_IS_INITIATOR if session.is_initiator else 0) | (_IS_LOST if session.is_lost else 0)
    id_and_keys = session.id + ratchet.root_key
    for flag, key in (
        (_HAS_OWN_PRIVATE, ratchet.own_private),
        (_HAS_OWN_PUBLIC, ratchet.own_public),
        (_HAS_THEIR_PUBLIC, ratchet.their_public),
        (_HAS_SEND_CHAIN, ratchet.send_chain),
        (_HAS_RECEIVE_CHAIN, ratchet.receive_chain),
        (_HAS_HANDSHAKE_KEY, session.handshake_key),
    ):
        if key is not None:
            shape |= flag
            id_and_keys += key
    return _StoredSession(
        session.started,
        session.epoch,
        shape,
        id_and_keys,
        ratchet.send_count,
        ratchet.previous_chain_length,
        ratchet.receive_count,
        session.sending_since_seconds,
        session.signed_prekey_id,
        session.one_time_prekey_id,
        session.skipped,
    )


def _load(stored: _StoredSession) -> Session:
    shape, keys = stored.shape, stored.id_and_keys[SESSION_ID_BYTES:]
    if len(keys) != KEY_BYTES * (1 + sum(bool(shape & flag) for flag in _KEY_FLAGS)):
        raise malformed("device record: wrong length of keys")
    at = 0
    found: list[bytes | None] = []
    for flag in _KEY_FLAGS:
        if shape & flag:
            at += KEY_BYTES
            found.append(keys[at : at + KEY_BYTES])
        else:
            found.append(None)
    own_private, own_public, their_public, send_chain, receive_chain, handshake_key = found
    return Session(
        stored.id_and_keys[:SESSION_ID_BYTES],
        stored.started,
        stored.epoch,
        bool(shape & _IS_INITIATOR),
        Ratchet(
            keys[:KEY_BYTES],
            own_private,
            own_public,
            their_public,
            send_chain,
            stored.send_count,
            stored.previous_chain_length,
            receive_chain,
            stored.receive_count,
        ),
        stored.signed_prekey_id,
        stored.one_time_prekey_id,
        handshake_key,
        stored.sending_since_seconds,
        stored.skipped,
        bool(shape & _IS_LOST),
    )


def _load_peer(pair: bytes) -> PublicIdentity | None:
    if not pair:
        return None
    if len(pair) != 2 * KEY_BYTES:
        raise malformed("device record: wrong length of the peer's pair")
    return PublicIdentity(pair[:KEY_BYTES], pair[KEY_BYTES:])


def _check_bounds(record: DeviceRecord) -> None:
    if len(record.sessions) > MAX_SESSIONS + MAX_OWN_SESSIONS:
        raise malformed("device record: too many sessions")
    if record.sessions and record.peer is None:
        raise malformed("device record: sessions without a peer")
    prekey = record.prekey
    if prekey is not None and (len(prekey.public), len(prekey.signature)) != (KEY_BYTES, 2 * KEY_BYTES):
        raise malformed("device record: wrong length of a prekey")
    if any(not ids or len(ids) % DROPPED_ID_BYTES for _, ids in record.dropped):
        raise malformed("device record: dropped ids")
    chains = [chain for session in record.sessions for chain in session.skipped]
    if not chains:
        return
    if len(chains) > MAX_CHAINS or record.skipped_count() > MAX_SKIPPED:
        raise malformed("device record: too many skipped keys")
    for chain in chains:
        if not chain.entries or len(chain.entries) % ENTRY_BYTES or len(chain.ratchet_key) != KEY_BYTES:
            raise malformed("device record: skipped keys")
