"""Fetches and keeps the keys of this agent's groups, verifies who speaks there, and opens their messages (PROTOCOL §5.6).

The relay hands keys out and cannot choose one: a key counts by its maker's signature and by the maker's membership in the version
before. Versions only rise; they are stored sealed by compare-and-set, since several supervisors fetch the same ones.
"""

import math
from functools import partial
from typing import Final

import msgspec
import structlog
import trio

from bus.records.records import GROUP, InboundMessage
from bus.steps.store import ConversationSnapshot, now_ms
from bus.steps.vault import StoreIsNewer, Vault, Versioned
from bus.transport.wire import MENDABLE, RedisFailed
from crypto.envelope import Envelope, verify_signature
from crypto.errors import DatedAhead, NewerFormat, Reason, Unreadable
from crypto.grants import Status
from crypto.groups import (
    MOST_VERSIONS_AHEAD,
    GroupKey,
    GroupKeys,
    accept_group_key,
    group_key_version,
    open_group_key,
    open_group_message,
    read_group_key_envelope,
)
from crypto.identity import LocalDevice, PublicIdentity
from supervisor.observe.metrics import Metrics
from supervisor.peers.members import Members
from supervisor.peers.owners import Owner, Owners
from supervisor.peers.retry_triggers import RetryTriggers
from supervisor.peers.untold import NotTold
from supervisor.relay.asking import Shared, asked
from supervisor.relay.frames import ArtifactResponse, GroupKeyRotated, MessageNew
from supervisor.relay.payloads import inbound_message, message_ms
from supervisor.relay.rest import Rest, RestFailed
from supervisor.settings.pauses import PAUSES, Pauses

MOST_ROTATIONS_WAITING: Final = 1000
"""Rotations that wait, of a few ids each."""

MOST_AHEAD_MS: Final = 24 * 3600 * 1000
"""A message dated later than this would, once forgotten, make everything before that day `stale`."""

VAIN_SECONDS: Final = 60.0
"""Until a version that the relay did not have is asked for again, however many messages name it. A rotation ends the wait."""

FETCH_AGAIN_SECONDS: Final = 5.0
"""Until a higher version than the one asked for in vain is asked for."""

MOST_GROUPS_NOTED: Final = 1000
"""Groups of which something is remembered between messages, of some hundred bytes each; beyond them the notes begin anew."""

log = structlog.get_logger()


class _InVain(msgspec.Struct, frozen=True):
    """The highest version of a group that was asked for in vain, and when."""

    version: int
    at: float


class _Looked(msgspec.Struct, frozen=True):
    """The result of asking for a changed pair: one, or none."""

    pair: PublicIdentity | None


class OpenedInGroup(msgspec.Struct, frozen=True):
    """A message that was read, and the version under which it was written."""

    payload: dict[str, object]
    key: GroupKey

    def __repr__(self) -> str:
        return "OpenedInGroup(…)"

    def message(self, frame: MessageNew | ArtifactResponse, envelope: Envelope) -> InboundMessage:
        """Returns what the handler sees."""
        metadata: dict[str, object] = {
            "group_id": self.key.group_id,
            "group_key_version": self.key.key_version,
            "members": list(self.key.members),
        }
        seen = inbound_message(frame, envelope, self.payload)
        return msgspec.structs.replace(seen, conversation_type=GROUP, group_metadata=metadata)


def sent_ms(envelope: Envelope) -> int:
    """Returns the time (ms) in the client_message_id; 1 if it has none, so that it counts as old once ids have been forgotten."""
    return max(1, message_ms(envelope.client_message_id))


def check_not_stale(envelope: Envelope, snapshot: ConversationSnapshot) -> None:
    """Checks that a v1.1 envelope is none whose id was forgotten: only the memory of ids keeps it from being read twice (PROTOCOL §5.1).

    Raises Unreadable `stale` (it may be one that was forgotten) or `malformed` (dated in the future).
    """
    sent = sent_ms(envelope)
    if sent <= snapshot.dropped_ms:
        raise Unreadable(Reason.STALE, "not later than what was forgotten")
    if sent > now_ms() + MOST_AHEAD_MS:
        raise DatedAhead(Reason.MALFORMED, "client_message_id: more than a day ahead")


class Groups:
    """The groups of one agent."""

    def __init__(
        self,
        *,
        vault: Vault,
        rest: Rest,
        owners: Owners,
        members: Members,
        device: LocalDevice,
        metrics: Metrics,
        triggers: RetryTriggers,
        pauses: Pauses = PAUSES,
    ) -> None:
        """`triggers` is told the group of which a key was accepted."""
        self._vault = vault
        self._rest = rest
        self._owners = owners
        self._members = members
        self._device = device
        self._metrics = metrics
        self._triggers = triggers
        self._pauses = pauses
        self._asked_since_connected: set[str] = set()
        self._fetching: dict[str, Shared[GroupKeys | None]] = {}
        self._in_vain: dict[str, _InVain] = {}
        self._send, self._rotations = trio.open_memory_channel[GroupKeyRotated](MOST_ROTATIONS_WAITING)

    async def authenticate(self, envelope: Envelope) -> None:
        """Checks the sender's grant, if there is one, and the signature under the pinned pair.

        Raises Unreadable `no_grant` (suspended or revoked), `unknown_sender`, `key_changed`, `bad_signature`; RestFailed.
        """
        owner = await self._owners.find(envelope.sender_id)
        if owner is not None and owner.grant.status is not Status.ACTIVE:
            raise Unreadable(Reason.NO_GRANT, "the sender's grant is not active")
        await self._verify(envelope, owner)

    async def open(self, envelope: Envelope) -> OpenedInGroup:
        """Opens a verified message; for an unknown version the group's key is fetched once. Raises Unreadable; NotTold if the relay does not tell it."""
        version = group_key_version(envelope)
        keys = await self._kept(envelope.to)
        current = keys.current
        if keys.find(version) is None and (current is None or 0 < version - current.key_version <= MOST_VERSIONS_AHEAD):
            await self._ask_for(envelope.to, version, envelope.sender_id)
            keys = await self._kept(envelope.to)
        payload = open_group_message(envelope, keys)
        key = keys.find(version)
        if key is None:
            raise Unreadable(Reason.UNKNOWN_GROUP_KEY, "no key of this version")
        return OpenedInGroup(payload, key)

    async def to_write(self, group_id: str) -> GroupKeys:
        """Returns the keys to write under. Once per connection the relay is asked, since a rotation may have been missed before.

        Raises RestFailed if there is no key and the relay does not say whether there is one.
        """
        kept = await self._kept(group_id)
        if group_id in self._asked_since_connected and kept.current is not None:
            return kept
        try:
            fetched = await self._fetch_once(group_id)
        except RestFailed as error:
            if kept.current is None and not error.is_final:
                raise
            log.warning("group: key not fetched", group=group_id, reason=str(error))
            return kept
        self._asked_since_connected.add(group_id)
        return fetched or kept

    def connected(self) -> None:
        """Called with each new connection: rotations may have been missed."""
        self._asked_since_connected.clear()
        self._in_vain.clear()

    def rotated(self, frame: GroupKeyRotated) -> None:
        """Called when the relay says that there is a new version. One frame too many is passed over: the next message asks for it again."""
        try:
            self._send.send_nowait(frame)
        except trio.WouldBlock:
            self._metrics.frames_dropped.labels("rotation_overflow").inc()

    async def run(self) -> None:
        """Fetches what was rotated, and what was asked for in vain, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear_of_rotations)
            nursery.start_soon(self._ask_again)

    async def _hear_of_rotations(self) -> None:
        async for frame in self._rotations:
            self._in_vain.pop(frame.group_id, None)
            try:
                current = (await self._kept(frame.group_id)).current
                if current is None or frame.key_version > current.key_version:
                    await self._fetch_once(frame.group_id)
            except (RestFailed, RedisFailed) as error:
                log.warning("group: key not fetched", group=frame.group_id, reason=str(error))
                if isinstance(error, MENDABLE) or (isinstance(error, RestFailed) and not error.is_final):
                    self.rotated(frame)
                    await trio.sleep(self._pauses.group_key_again)

    async def _ask_again(self) -> None:
        while True:
            await trio.sleep(self._pauses.group_key_again)
            now = trio.current_time()
            for group_id in [one for one, vain in self._in_vain.items() if now >= vain.at + VAIN_SECONDS]:
                vain = self._in_vain.pop(group_id, None)
                try:
                    await self._fetch_once(group_id)
                except (RestFailed, RedisFailed) as error:
                    log.warning("group: key not fetched", group=group_id, reason=str(error))
                    if vain is not None and not (isinstance(error, RestFailed) and error.is_final):
                        self._note_in_vain(group_id, vain.version)

    # Keys

    async def _ask_for(self, group_id: str, version: int, sender_id: str) -> None:
        """Fetches once for all messages under an unknown version, while they wait; not at all for a minute after a fetch in vain.

        Raises NotTold while the relay does not answer.
        """
        vain = self._in_vain.get(group_id)
        ago = math.inf if vain is None else trio.current_time() - vain.at
        if vain is not None and ago < (VAIN_SECONDS if version <= vain.version else FETCH_AGAIN_SECONDS):
            return
        untold = self._owners.untold
        if not untold.is_paused(group_id) and not await asked(partial(self._is_told, group_id), pauses=self._pauses):
            pause_seconds = untold.note(group_id)
            log.warning("relay: does not tell a group's key", group=group_id, again_seconds=pause_seconds)
        if not untold.is_long(group_id):  # nor is it told
            untold.needs_group(sender_id, group_id)
            raise NotTold(f"about {group_id}")
        if (await self._kept(group_id)).find(version) is None:
            self._note_in_vain(group_id, version)

    async def _is_told(self, group_id: str) -> bool:
        """Fetches; True also if the relay says that there is no key for us. Raises RestFailed."""
        try:
            await self._fetch_once(group_id)
        except RestFailed as error:
            if not error.is_final:
                raise
            log.warning("group: key not fetched", group=group_id, reason=str(error))
        self._owners.untold.told(group_id)
        return True

    def _note_in_vain(self, group_id: str, version: int) -> None:
        if len(self._in_vain) >= MOST_GROUPS_NOTED:
            self._in_vain.clear()
        self._in_vain[group_id] = _InVain(version, trio.current_time())

    async def _fetch_once(self, group_id: str) -> GroupKeys | None:
        """Fetches as `_fetch` does; all who ask at the same time share one fetch."""
        if len(self._fetching) >= MOST_GROUPS_NOTED:
            self._fetching = {one: shared for one, shared in self._fetching.items() if not shared.is_free}
        shared = self._fetching.setdefault(group_id, Shared(0.0))
        return await shared.ask(partial(self._fetch, group_id))

    async def _fetch(self, group_id: str) -> GroupKeys | None:
        """Fetches the relay's key and keeps it. Returns all kept keys; None if the key was refused. Raises RestFailed."""
        sealed = await self._rest.group_key(group_id)
        try:
            envelope = read_group_key_envelope(sealed, group_id)
            await self._verify(envelope, await self._owners.find(envelope.sender_id))
            self._owners.untold.told(group_id)
            return await self._keep(open_group_key(envelope, self._device), envelope.sender_id)
        except Unreadable as error:
            self._metrics.group_keys_refused.labels(error.reason.value).inc()
            log.warning("group: key refused", group=group_id, reason=error.reason.value, detail=error.detail)
            return None

    async def _keep(self, key: GroupKey, maker_id: str) -> GroupKeys:
        while True:
            read = await self._vault.group(key.group_id)
            known = _decode(read, key.group_id)
            keys = accept_group_key(known, key, maker_id)
            if keys is known:
                return known
            if await self._vault.put_group(key.group_id, read, keys.encode()):
                log.info("group: key accepted", group=key.group_id, version=key.key_version, maker=maker_id)
                self._triggers.group_key_came(key.group_id)
                return keys

    async def _kept(self, group_id: str) -> GroupKeys:
        return _decode(await self._vault.group(group_id), group_id)

    # Who signed

    async def _verify(self, envelope: Envelope, owner: Owner | None) -> None:
        """Verifies the signature under the pair of the owner's row, else under the member's pin. Raises Unreadable, RestFailed."""
        if envelope.sender_id == self._device.owner_id:
            raise Unreadable(Reason.NOT_FOR_US, "signed in our own name")  # nobody else shows us our own pair
        grant = None if owner is None else owner.grant
        if grant is not None and grant.held is not None:
            raise Unreadable(Reason.KEY_CHANGED, "a changed identity pair awaits a decision")
        if grant is not None and grant.pinned is not None:
            verify_signature(envelope, grant.pinned)
            return
        pinned = await self._pair(envelope.sender_id)
        try:
            verify_signature(envelope, pinned)
        except Unreadable:
            looked = await self._owners.asked_of(envelope.sender_id, partial(self._changed, envelope.sender_id))
            if looked is None:
                raise Unreadable(Reason.UNKNOWN_SENDER, "the relay does not show this owner's keys now") from None
            changed = looked.pair
            if changed is None:
                raise
            verify_signature(envelope, changed)

    async def _changed(self, owner_id: str) -> "_Looked":
        return _Looked(await self._members.changed_pair(owner_id))

    async def _pair(self, owner_id: str) -> PublicIdentity:
        pair = await self._owners.asked_of(owner_id, partial(self._members.pair, owner_id))
        if pair is None:
            raise Unreadable(Reason.UNKNOWN_SENDER, "the relay does not show this owner's keys now")
        return pair


def _decode(read: Versioned, group_id: str) -> GroupKeys:
    if read.value is not None:
        try:
            return GroupKeys.decode(read.value)
        except NewerFormat as error:
            raise StoreIsNewer(f"group {group_id}: {error}; upgrade this one") from None
        except Unreadable:
            pass  # said below
    if read.version:
        log.error("group: the stored keys do not open", group=group_id)
    return GroupKeys(group_id)
