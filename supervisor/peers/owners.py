"""Who may talk to this agent, and the keys under which we know them (PROTOCOL §5 "Identity", §5.7).

A row per owner: the grant with its pinned pair, and what we know of the devices. What a relation changes, `crypto.grants` decides;
a change is stored together with its entry in the ledger, by compare-and-set, since several supervisors hear the same relations.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import msgspec
import structlog
import trio

from bus.steps.store import ConversationSnapshot, now_ms
from bus.steps.vault import Vault, Versioned
from bus.steps.write_count import WriteCount
from bus.transport.client import Commands
from crypto import strict_base64
from crypto.errors import Unreadable
from crypto.grants import (
    Change,
    Grant,
    KeyChangePolicy,
    LedgerEntry,
    Status,
    check_grant,
    devices_seen,
    keys_seen,
    relation_changed,
)
from crypto.identity import PublicIdentity
from crypto.prekeys import Bundle, bundle_from_json, check_bundle
from supervisor.peers.grant_ledger import GrantLedger
from supervisor.peers.members import Member, find_member
from supervisor.peers.retry_triggers import RetryTriggers
from supervisor.relay.asking import Answer, Shared, asked
from supervisor.relay.frames import Relation
from supervisor.relay.rest import Rest, RestFailed

DEVICES_FRESH_MS = 24 * 3600 * 1000
DEVICES_NOTED_AGAIN_MS = 3600 * 1000
UNLISTED_FETCH_SECONDS = 60.0
REFRESH_AGAIN_SECONDS = 1.0
MOST_DEVICES = 5
MOST_DECODED = 2000

CHANGES = {
    "active": Change.ESTABLISHED,
    "suspended": Change.SUSPENDED,
    "revoked": Change.REVOKED,
    "terminated": Change.REVOKED,  # the older name
}

log = structlog.get_logger()


class Owner(msgspec.Struct, frozen=True):
    """One row. `row_version`: as which it was read; it is no part of it."""

    grant: Grant
    devices_fetched_ms: int = 0
    row_version: int = 0

    @property
    def owner_id(self) -> str:
        """Whose row it is."""
        return self.grant.owner_id

    @property
    def pinned(self) -> PublicIdentity:
        """The pair of an owner who may talk to us; raises Unreadable (no_grant, unknown_sender, key_changed)."""
        return check_grant(self.grant)

    @property
    def is_active(self) -> bool:
        """Whether the owner may be talked to now."""
        return self.grant.status is Status.ACTIVE and self.grant.pinned is not None and self.grant.held is None

    def encode(self) -> bytes:
        """For sealed storage."""
        return msgspec.msgpack.encode((self.grant.encode(), self.devices_fetched_ms))

    @classmethod
    def decode(cls, data: bytes) -> "Owner":
        """The inverse of `encode`."""
        grant, devices_fetched_ms = msgspec.msgpack.decode(data, type=tuple[bytes, int])
        return cls(Grant.decode(grant), devices_fetched_ms)


class _Decoded(msgspec.Struct, frozen=True):
    """A row as it was read last, and the look that it was read after."""

    sealed: bytes
    owner: Owner
    verified_connection: Commands | None

    def __repr__(self) -> str:
        return f"_Decoded(owner_id={self.owner.owner_id!r}, …)"


class Owners:
    """The rows of one agent."""

    def __init__(
        self,
        vault: Vault,
        ledger: GrantLedger,
        rest: Rest,
        policy: KeyChangePolicy,
        *,
        write_count: WriteCount,
        triggers: RetryTriggers,
    ) -> None:
        """`policy`: what happens when an owner shows another pair than the pinned one. `triggers` is told whose grant changed."""
        self._vault = vault
        self._ledger = ledger
        self._rest = rest
        self._policy = policy
        self._write_count = write_count
        self._triggers = triggers
        self._reading = Shared[None](REFRESH_AGAIN_SECONDS)
        self._unlisted_until: dict[str, float] = {}
        self._unanswered: dict[str, float] = {}
        self._noted_meanwhile: set[str] = set()
        self._decoded: OrderedDict[str, _Decoded] = OrderedDict()

    async def find(self, owner_id: str) -> Owner | None:
        """The row of an owner as it stands in Redis now; opened and decoded once as long as its bytes are the same."""
        return self._opened(owner_id, *await self._vault.read_owner(owner_id))

    async def find_to_write(self, owner_id: str) -> Owner | None:
        """The row as this process has read it since it looked at Redis last (a second ago at most), else as it stands there now.

        Not read, it is right unless somebody has changed it since: the commit finds it stale, and then it is read. Who commits after
        another look reads it again: Redis may have gone back.
        """
        kept, verified_connection = self._decoded.get(owner_id), self._write_count.verified_connection
        if kept is not None and verified_connection is not None and kept.verified_connection is verified_connection:
            return kept.owner
        return await self.find(owner_id)

    def _opened(self, owner_id: str, version: int, sealed: bytes | None) -> Owner | None:
        kept, verified_connection = self._decoded.pop(owner_id, None), self._write_count.verified_connection
        if kept is not None and (kept.owner.row_version, kept.sealed) == (version, sealed):
            owner: Owner | None = kept.owner
        else:
            owner = _decode(self._vault.open_owner(owner_id, version, sealed))
        if owner is not None and sealed is not None:
            self._decoded[owner_id] = _Decoded(sealed, owner, verified_connection)
            if len(self._decoded) > MOST_DECODED:
                self._decoded.popitem(last=False)
        return owner

    async def looked_up(self, owner_id: str, look: ConversationSnapshot) -> Owner | None:
        """The row of an owner as a look has found it; for an unknown one the relations are read once more (frames may be missed)."""
        known = self._opened(owner_id, look.owner_version, look.owner_sealed)
        if known is not None:
            return known
        await self.asked_of(owner_id, self._is_refreshed)
        return await self.find(owner_id)

    async def _is_refreshed(self) -> bool:
        await self.refresh()
        return True

    async def refresh(self) -> None:
        """Read all relations from the relay, by a reading that begins now or later; one a second. Raises RestFailed, RedisFailed."""
        await self._reading.ask(self._read_all)

    async def _read_all(self) -> None:
        self._noted_meanwhile = set()
        await self._rest.relations(self._note_listed)

    async def _note_listed(self, relation: Relation) -> None:
        await self._note(relation, relation.status or "active", lambda: relation.user_id in self._noted_meanwhile)

    async def note(self, relation: Relation, status: str) -> None:
        """A frame says that an owner's relation has this status; what is not known to be active lets nobody in."""
        self._noted_meanwhile.add(relation.user_id)
        await self._note(relation, status)

    async def _note(self, relation: Relation, status: str, is_outdated: Callable[[], bool] = lambda: False) -> None:
        """`is_outdated`: whether a frame has been heard meanwhile, which is newer than the answer that we read."""
        change = CHANGES.get(status)
        if change is None:
            log.warning("relation: unknown status, suspended", owner=relation.user_id)
            change = Change.SUSPENDED
        while not is_outdated():  # looked at again after each commit that came too late
            read = await self._vault.owner(relation.user_id)
            known = _decode(read)
            member = await find_member(self._vault, relation.user_id)
            entry = next(self._entries(known, relation, change, member), None)
            if entry is None:
                return
            if await self._put(read, known, entry):
                log.info("grant: changed", owner=relation.user_id, change=entry.change.value)
                self._triggers.owner_changed(relation.user_id)

    async def bundles(self, owner: Owner) -> dict[str, Bundle]:
        """The owner's devices by id, fetched now, each with a valid signed prekey under the pinned pair."""
        bundles: dict[str, Bundle] = {}
        for listed in (await self._rest.devices(owner.owner_id))[:MOST_DEVICES]:
            try:
                bundle = bundle_from_json(listed, owner.owner_id)
                check_bundle(bundle, owner.pinned)
            except Unreadable as error:
                log.warning("device: not usable", owner=owner.owner_id, reason=error.reason.value)
                continue
            bundles[bundle.device_id] = bundle
        await self._note_devices(owner.owner_id, sorted(bundles))
        return bundles

    async def devices(self, owner: Owner) -> list[str]:
        """The ids of the owner's devices, fetched again after 24 h."""
        listed = list(owner.grant.devices)
        if listed and now_ms() - owner.devices_fetched_ms < DEVICES_FRESH_MS:
            return listed
        try:
            return sorted(await self.bundles(owner))
        except RestFailed:
            if listed:
                return listed  # better the devices of yesterday than no answer
            raise

    async def admits(self, owner: Owner, device_id: str, wait_seconds: float | None = None) -> bool:
        """Whether a device that signed a message counts: listed, with a valid signed prekey under the pinned pair. For an
        unlisted one the list is fetched again, at most once a minute per owner. While the relay does not give it, the message waits
        (supervisor/relay/asking.py), and then it does not count.
        """
        now = trio.current_time()
        if device_id in owner.grant.devices:
            return True
        if now < self._unlisted_until.get(owner.owner_id, 0.0):
            return False
        self._unlisted_until = {known: until for known, until in self._unlisted_until.items() if until > now}
        bundles = await self.asked_of(owner.owner_id, partial(self.bundles, owner), wait_seconds)
        if bundles is None:
            return False
        if owner.devices_fetched_ms:  # the first fetch is not an extra one
            self._unlisted_until[owner.owner_id] = now + UNLISTED_FETCH_SECONDS
        return device_id in bundles

    async def asked_of(
        self, owner_id: str, asking: Callable[[], Awaitable[Answer]], seconds: float | None = None
    ) -> Answer | None:
        """What the relay says of an owner; None where it was asked in vain, now or less than a minute ago: a message that needs it is in
        quarantine then, and others of this owner's need not wait as long again. `unanswered` tells when to try.
        """
        if owner_id in self._unanswered:
            return None
        answer = await asked(asking, seconds)
        if answer is None:
            self._unanswered[owner_id] = trio.current_time() + UNLISTED_FETCH_SECONDS
        return answer

    def unanswered(self) -> list[str]:
        """Owners of whom it is time to ask again; each is named once."""
        now = trio.current_time()
        due = [owner_id for owner_id, at in self._unanswered.items() if at <= now]
        for owner_id in due:
            del self._unanswered[owner_id]
        return due

    def _entries(
        self, known: Owner | None, relation: Relation, change: Change, member: Member | None
    ) -> Iterator[LedgerEntry]:
        """What a relation changes: the status or the scopes first, then the keys. Who is known from a group has a pin already.

        A new row comes with its pin at once, so that no message falls between the two.
        """
        grant = None if known is None else known.grant
        scopes = relation.scopes or None
        entry = relation_changed(grant, relation.user_id, change, now_ms=now_ms(), scopes=scopes)
        unpinned = grant is None or grant.pinned is None
        shown = member.pinned if unpinned and member is not None else _pair_of(relation)
        if grant is None:
            pin = None if shown is None else keys_seen(entry.grant, shown, self._policy, entry.at_ms)
            yield entry if pin is None else LedgerEntry(entry.at_ms, entry.change, pin.grant)
            return
        if (entry.grant.status, entry.grant.scopes) != (grant.status, grant.scopes):
            yield entry
            return
        keys = None if shown is None else keys_seen(grant, shown, self._policy, now_ms())
        if keys is not None:
            yield keys

    async def _note_devices(self, owner_id: str, devices: list[str]) -> None:
        while True:
            read = await self._vault.owner(owner_id)
            row = _decode(read)
            if row is None:
                return
            fetched = msgspec.structs.replace(row, devices_fetched_ms=now_ms())
            entry = devices_seen(row.grant, devices, now_ms())
            if entry is None and now_ms() - row.devices_fetched_ms < DEVICES_NOTED_AGAIN_MS:
                return  # written, the row would be another, and what was addressed by it made anew
            if await self._put(read, fetched, entry):
                if entry is not None:
                    self._triggers.owner_changed(owner_id)
                return

    async def _put(self, read: Versioned, row: Owner | None, entry: LedgerEntry | None) -> bool:
        if entry is None:
            return row is None or await self._vault.put_owner(row.owner_id, read, row.encode())
        changed = Owner(entry.grant, 0 if row is None else row.devices_fetched_ms)
        return await self._ledger.put(changed.owner_id, read, changed.encode(), entry.encode())


def _decode(read: Versioned) -> Owner | None:
    return None if read.value is None else msgspec.structs.replace(Owner.decode(read.value), row_version=read.version)


def _pair_of(relation: Relation) -> PublicIdentity | None:
    if relation.public_key is None or relation.signing_public_key is None:
        return None
    try:
        return PublicIdentity.checked(
            strict_base64.decode(relation.public_key), strict_base64.decode(relation.signing_public_key)
        )
    except Unreadable as error:
        log.warning("relation: keys not usable", owner=relation.user_id, reason=error.reason.value)
        return None
