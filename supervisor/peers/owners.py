"""Keeps who may talk to this agent, and under which keys we know them (PROTOCOL §5 "Identity", §5.7).

A row per owner has the grant with its pinned pair, and what we know of the devices. `crypto.grants` decides what a relation changes; a
change is stored together with its entry in the ledger, by compare-and-set, since several supervisors hear the same relations.
"""

import enum
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Generic

import msgspec
import structlog
import trio

from bus.steps.store import ConversationSnapshot, now_ms
from bus.steps.vault import Vault, Versioned
from bus.steps.write_count import WriteCount
from bus.transport.client import Commands
from bus.transport.wire import RedisRefused
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
from supervisor.peers.untold import NotTold, Untold
from supervisor.relay.asking import Answer, Shared, asked
from supervisor.relay.frames import Relation
from supervisor.relay.rest import Rest, RestFailed
from supervisor.settings.pauses import PAUSES, Pauses

DEVICES_FRESH_MS = 24 * 3600 * 1000
"""So old a list of devices may be to encrypt for it. A new device that writes is fetched at once."""

DEVICES_NOTED_AGAIN_MS = 3600 * 1000
"""A fetch that found the same devices is written so often at most: each write makes a new row, and what was addressed by the old one is redone."""

CLOCKS_APART_MS = 60_000
"""So far another supervisor's clock may be ahead of ours: a list that it has just fetched is not fetched again."""

UNLISTED_FETCH_SECONDS = 60.0
"""Anybody can name a device that is not listed: the list is fetched for it once in this time. The same after asking the relay in vain."""

REFRESH_AGAIN_SECONDS = 1.0
"""Between two readings of all relations: a stranger's message asks for one."""

MOST_DEVICES = 5
"""Devices of a person that are looked at: the platform allows no more (PROTOCOL §5, "Identity")."""

MOST_DECODED = 2000
"""Rows that are kept decoded; the one that was used longest ago leaves first."""

CHANGES = {
    "active": Change.ESTABLISHED,
    "suspended": Change.SUSPENDED,
    "revoked": Change.REVOKED,
    "terminated": Change.REVOKED,  # the older name
}

log = structlog.get_logger()


class Owner(msgspec.Struct, frozen=True):
    """One row. `row_version`: the version in Redis that was read; it is not stored with the row."""

    grant: Grant
    devices_fetched_ms: int = 0
    row_version: int = 0

    @property
    def owner_id(self) -> str:
        """Whose row it is."""
        return self.grant.owner_id

    @property
    def pinned(self) -> PublicIdentity:
        """The pair of an owner who may talk to us. Raises Unreadable (no_grant, unknown_sender, key_changed)."""
        return check_grant(self.grant)

    @property
    def is_active(self) -> bool:
        """Whether the owner may be talked to now."""
        return self.grant.status is Status.ACTIVE and self.grant.pinned is not None and self.grant.held is None

    def encode(self) -> bytes:
        """Returns the bytes for sealed storage."""
        return msgspec.msgpack.encode((self.grant.encode(), self.devices_fetched_ms))

    @classmethod
    def decode(cls, data: bytes) -> "Owner":
        """Returns what `encode` was called on."""
        grant, devices_fetched_ms = msgspec.msgpack.decode(data, type=tuple[bytes, int])
        return cls(Grant.decode(grant), devices_fetched_ms)


class _Decoded(msgspec.Struct, frozen=True):
    """A row as it was read last, and the connection to Redis that was verified then."""

    sealed: bytes
    owner: Owner
    verified_connection: Commands | None

    def __repr__(self) -> str:
        return f"_Decoded(owner_id={self.owner.owner_id!r}, …)"


class Admission(enum.Enum):
    """Whether a device that signed a message counts. UNTOLD: the relay does not say it now, and is asked again soon."""

    LISTED = "listed"
    UNLISTED = "unlisted"
    UNTOLD = "untold"


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
        pauses: Pauses = PAUSES,
    ) -> None:
        """`policy`: what happens when an owner shows another pair than the pinned one. `triggers` is told whose grant changed."""
        self._vault = vault
        self._ledger = ledger
        self._rest = rest
        self._policy = policy
        self._write_count = write_count
        self._triggers = triggers
        self._pauses = pauses
        self._reading = Shared[None](REFRESH_AGAIN_SECONDS)
        self._unlisted_until: dict[str, float] = {}
        self._unanswered: dict[str, float] = {}
        self._refused = set[str]()
        self._damaged = set[str]()
        self.untold = Untold()
        self._noted_meanwhile: set[str] = set()
        self._decoded: OrderedDict[str, _Decoded] = OrderedDict()

    async def find(self, owner_id: str) -> Owner | None:
        """Returns the row of an owner as it stands in Redis now. It is opened and decoded once as long as its bytes are the same."""
        return self._opened(owner_id, *await self._vault.read_owner(owner_id))

    async def find_to_write(self, owner_id: str) -> Owner | None:
        """Returns the row as it was read since Redis was verified last (a second ago at most), else as it stands there now.

        A row that was not read is right unless somebody has changed it since: then the commit is stale, and it is read. After Redis was
        verified anew it is read again too: Redis may have gone back.
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

    async def of_snapshot(self, owner_id: str, snapshot: ConversationSnapshot) -> Owner | None:
        """Returns the row as it stands in a conversation's snapshot. For an unknown owner the relations are read once more (frames may be missed).

        Raises NotTold if the relay does not tell them now.
        """
        known = self._opened(owner_id, snapshot.owner_version, snapshot.owner_sealed)
        if known is not None:
            return known
        await self.asked_of(owner_id, self._is_refreshed)
        return await self.find(owner_id)

    async def _is_refreshed(self) -> bool:
        await self.refresh()
        return True

    async def refresh(self) -> None:
        """Reads all relations from the relay, by a reading that begins now or later; one a second. Raises RestFailed, RedisFailed."""
        await self._reading.ask(self._read_all)

    async def _read_all(self) -> None:
        self._noted_meanwhile = set()
        await self._rest.relations(self._note_listed)

    async def _note_listed(self, relation: Relation) -> None:
        try:
            await self._note(relation, relation.status or "active", lambda: relation.user_id in self._noted_meanwhile)
            self._damaged.discard(relation.user_id)
        except RedisRefused as refused:
            if not refused.is_of_data:
                raise
            self._say_damaged(relation.user_id, refused)  # of this one alone: it hides no other of the list

    def _say_damaged(self, owner_id: str, refused: RedisRefused) -> None:
        """Says it once, not with each reading of the list."""
        if owner_id in self._damaged:
            return
        self._damaged.add(owner_id)
        log.error(
            "relation: a damaged record in Redis does not take it",
            owner=owner_id,
            reason=str(refused),
            remedy="docs/runbooks/redis.md",
        )

    async def note(self, relation: Relation, status: str) -> None:
        """Stores that an owner's relation has this status. A status that is not known suspends it."""
        self._noted_meanwhile.add(relation.user_id)
        await self._note(relation, status)

    async def _note(self, relation: Relation, status: str, is_outdated: Callable[[], bool] = lambda: False) -> None:
        """Stores a relation's change. `is_outdated`: whether a frame was heard meanwhile, which is newer than the list that we read."""
        change = CHANGES.get(status)
        if change is None:
            log.warning("relation: unknown status, suspended", owner=relation.user_id)
            change = Change.SUSPENDED
        self.untold.told(relation.user_id)
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
        """Fetches the owner's devices by id, each with a valid signed prekey under the pinned pair. Raises RestFailed."""
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
        """Returns the ids of the owner's devices; fetches them again after 24 h. Raises RestFailed if none are known."""
        listed = list(owner.grant.devices)
        if listed and _is_younger(owner.devices_fetched_ms, DEVICES_FRESH_MS):
            return listed
        try:
            return sorted(await self.bundles(owner))
        except RestFailed:
            if listed:
                return listed  # better the devices of yesterday than no answer
            raise

    async def admits(self, owner: Owner, device_id: str, wait_seconds: float | None = None) -> Admission:
        """Returns whether a device that signed a message counts: it is listed, with a valid signed prekey under the pinned pair.

        For an unlisted one the list is fetched again, at most once a minute per owner. While the relay does not give it, the message waits
        here (supervisor/relay/asking.py), and then there, for WAIT_AT_RELAY_SECONDS; after that the device does not count.
        """
        now, owner_id = trio.current_time(), owner.owner_id
        if device_id in owner.grant.devices:
            return Admission.LISTED
        if now < self._unlisted_until.get(owner_id, 0.0):
            return Admission.UNLISTED
        if self.untold.is_paused(owner_id):
            return self._untold_now(owner_id)
        self._unlisted_until = {known: until for known, until in self._unlisted_until.items() if until > now}
        bundles = await asked(partial(self.bundles, owner), wait_seconds, pauses=self._pauses)
        if bundles is None:
            self._note_untold(owner_id)
            return self._untold_now(owner_id)
        self.untold.told(owner_id)
        if owner.devices_fetched_ms:  # the first fetch is not an extra one
            self._unlisted_until[owner_id] = now + UNLISTED_FETCH_SECONDS
        return Admission.LISTED if device_id in bundles else Admission.UNLISTED

    def _untold_now(self, owner_id: str) -> Admission:
        return Admission.UNLISTED if self.untold.is_long(owner_id) else Admission.UNTOLD

    def _note_untold(self, owner_id: str) -> None:
        """Has the relay asked about an owner again after a pause, and what of theirs stands in quarantine tried again after a minute."""
        pause_seconds = self.untold.note(owner_id)
        self._unanswered[owner_id] = trio.current_time() + UNLISTED_FETCH_SECONDS
        log.warning("relay: does not tell of a person", owner=owner_id, again_seconds=pause_seconds)

    async def asked_of(
        self, owner_id: str, asking: Callable[[], Awaitable[Answer]], seconds: float | None = None
    ) -> Answer | None:
        """Asks the relay about an owner. Raises NotTold while it does not tell: the message waits there, in its order.

        Returns None if it says no, or has not told for WAIT_AT_RELAY_SECONDS; after a no also without asking, until `unanswered` has named
        the owner. A message that needed the answer is in quarantine then, and others of the owner need not wait as long again.
        """
        if owner_id in self._refused and owner_id in self._unanswered:
            return None
        if not self.untold.is_paused(owner_id):
            told = await asked(partial(_told, asking), seconds, pauses=self._pauses)
            if told is not None:
                self.untold.told(owner_id)
                if told.answer is None:
                    self._refused.add(owner_id)
                    self._unanswered[owner_id] = trio.current_time() + UNLISTED_FETCH_SECONDS
                return told.answer
            self._note_untold(owner_id)
        if self.untold.is_long(owner_id):
            return None
        raise NotTold(f"about {owner_id}")

    def unanswered(self) -> list[str]:
        """Returns the owners about whom the relay is to be asked again, a minute after it was asked in vain. Each is named once."""
        now = trio.current_time()
        due = [owner_id for owner_id, at in self._unanswered.items() if at <= now]
        for owner_id in due:
            del self._unanswered[owner_id]
            self._refused.discard(owner_id)
        return due

    def _entries(
        self, known: Owner | None, relation: Relation, change: Change, member: Member | None
    ) -> Iterator[LedgerEntry]:
        """Yields what a relation changes: the status or the scopes first, then the keys. Who is known from a group has a pin already.

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
            if entry is None and _is_younger(row.devices_fetched_ms, DEVICES_NOTED_AGAIN_MS):
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


def _is_younger(fetched_ms: int, than_ms: int) -> bool:
    """Whether a list was fetched less long ago. One from when the clock was ahead is as old as can be: it would stay young until that day comes."""
    return -CLOCKS_APART_MS <= now_ms() - fetched_ms < than_ms


class _Told(msgspec.Struct, Generic[Answer], frozen=True):
    """What the relay has said; None: it will not say."""

    answer: Answer | None


async def _told(asking: Callable[[], Awaitable[Answer]]) -> _Told[Answer]:
    try:
        return _Told(await asking())
    except RestFailed as error:
        if not error.is_final:
            raise
        return _Told(None)


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
