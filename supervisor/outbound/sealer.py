"""Encrypts one payload for every device of a person, with the sessions as they stand, or once for a group under its key.

Hands over what the commit needs. The caller holds the locks of the records from reading to commit. A device without a usable key is left out and counted;
a person without any is an error.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import msgspec

from bus.records.records import Payload
from bus.steps.store import SessionWrite, now_ms
from bus.steps.write_count import WriteCount
from crypto.envelope import seal_ratchet
from crypto.errors import CannotSend, TooLarge, Unreadable
from crypto.groups import GroupKeys, seal_group_message
from crypto.identity import LocalDevice
from crypto.prekeys import Bundle
from crypto.records import DeviceRecord
from crypto.renewal import has_open_offer, known_bundle, needs_bundle, session_was_offered
from crypto.sessions import of_pair, ping_due, start_session
from supervisor.observe.metrics import Metrics
from supervisor.peers.owners import Owner, Owners
from supervisor.peers.sessions import Loaded, Peer, Sessions
from supervisor.relay.own_words import RENEWED, system_event
from supervisor.relay.rest import RestFailed


class CannotSeal(Exception):
    """A reply that can never be encrypted. `reason`: no_grant, no_usable_device, too_large, no_group_key, payload_without_json_form."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OfferFirst(Exception):
    """Redis went back: a device has only sessions that are not sent with any more. Their successor is offered in a message of its own
    before the reply, which the relay may pass over as one that it has had (PROTOCOL §5.4).
    """


class EpochRaised(Exception):
    """Redis went back a moment ago: sessions that could be sent with no longer can, and nobody has asked for bundles in their place."""


class SealedFor(msgspec.Struct, frozen=True):
    """One envelope, the records that making it moved, the same sealed for its commit, and the epoch they are of."""

    encrypted_payload: str
    moved: list[DeviceRecord]
    writes: list[SessionWrite]
    epoch: int

    def __repr__(self) -> str:
        return f"SealedFor({len(self.moved)} devices)"


class Addressed(msgspec.Struct, frozen=True):
    """A payload and where it goes: to a person's devices, or to a group under its highest key."""

    recipient: Owner | GroupKeys
    conversation_id: str
    conversation_type: str
    client_message_id: str
    payload: Payload
    new_session_with: str | None = None

    def __repr__(self) -> str:
        return f"Addressed(conversation_id={self.conversation_id!r}, client_message_id={self.client_message_id!r}, …)"

    @property
    def is_offer(self) -> bool:
        """Whether it opens sessions and says nothing else."""
        return system_event(self.payload) == RENEWED

    @property
    def recipient_id(self) -> str:
        """What stands in the envelope's `to`."""
        return self.recipient.group_id if isinstance(self.recipient, GroupKeys) else self.recipient.owner_id


class Sealer:
    """Encrypts for one agent."""

    def __init__(
        self, sessions: Sessions, owners: Owners, device: LocalDevice, metrics: Metrics, write_count: WriteCount
    ) -> None:
        self._sessions = sessions
        self._owners = owners
        self._device = device
        self._metrics = metrics
        self._write_count = write_count

    def locked(self, peers: list[Peer]) -> AbstractAsyncContextManager[None]:
        """Hold the records of these devices from reading to commit."""
        return self._sessions.locked(peers)

    async def peers(self, recipient: Owner | GroupKeys) -> list[Peer]:
        """The devices to encrypt for; none for a group, whose messages move no session."""
        if isinstance(recipient, GroupKeys):
            return []
        owner = recipient
        return [(owner.owner_id, device_id) for device_id in await self._owners.devices(owner)]

    def now_listed(self, recipient: Owner | GroupKeys, peers: list[Peer]) -> list[Peer]:
        """The devices to encrypt for after their bundles were fetched; one that was listed before (`peers`) and is not now is counted."""
        if isinstance(recipient, GroupKeys):
            return []
        listed = [(recipient.owner_id, device_id) for device_id in recipient.grant.devices]
        self._metrics.devices_left_out.inc(len(set(peers) - set(listed)))
        return listed

    @property
    def epoch(self) -> int:
        """Of the sessions that may be sent with; it is raised when Redis went back."""
        return self._write_count.epoch

    async def missing(self, to: Addressed, peers: list[Peer]) -> dict[str, Bundle] | None:
        """Bundles of the owner's devices, fetched when one of them needs a session that what we know of it cannot begin; else None.

        Raises OfferFirst; RestFailed where there is nothing to go on with.
        """
        if isinstance(to.recipient, GroupKeys):
            return None
        owner, now = to.recipient, now_ms()
        lacking: dict[str, DeviceRecord] = {}
        for peer in peers:
            record = of_pair((await self._sessions.peek(peer)).record, owner.pinned)
            if not self._goes_on(record, to, peer[1], now):
                lacking[peer[1]] = record
        if not lacking:
            return None
        bundles = None
        if any(_known(record, owner, device, now) is None for device, record in lacking.items()):
            bundles = await self._fetched(owner)
        for device, record in lacking.items():
            can_begin = device in (bundles or {}) or _known(record, owner, device, now) is not None
            if can_begin and not to.is_offer and self._is_given_up(record):
                raise OfferFirst
        return bundles

    def _is_given_up(self, record: DeviceRecord) -> bool:
        """Whether there are sessions, none of which may be sent on since this state, or what is known of them, went back."""
        return bool(record.sessions) and (record.current is None or record.sessions[-1].epoch < self._write_count.epoch)

    async def _fetched(self, owner: Owner) -> dict[str, Bundle]:
        try:
            return await self._owners.bundles(owner)
        except RestFailed as error:
            if not error.is_refusal:
                raise
            return {}  # the sessions that there are will do, if there is one

    async def bundles(self, to: Addressed) -> dict[str, Bundle]:
        """Of all devices of the owner; none for a group."""
        return {} if isinstance(to.recipient, GroupKeys) else await self._owners.bundles(to.recipient)

    async def seal(self, to: Addressed, peers: list[Peer], bundles: Mapping[str, Bundle]) -> SealedFor:
        """Encrypt; the caller holds the peers' locks. Raises CannotSeal."""
        try:
            if isinstance(to.recipient, GroupKeys):
                return self._seal_for_group(to, to.recipient)
            return await self._seal_for_person(to, to.recipient, peers, bundles)
        except TooLarge:
            raise CannotSeal("too_large") from None
        except CannotSend:
            raise CannotSeal("no_group_key" if isinstance(to.recipient, GroupKeys) else "no_usable_device") from None

    async def _seal_for_person(
        self, to: Addressed, owner: Owner, peers: list[Peer], bundles: Mapping[str, Bundle]
    ) -> SealedFor:
        epoch = self._write_count.epoch
        loaded: dict[str, Loaded] = {}
        records: dict[str, DeviceRecord] = {}
        for peer in peers:
            read = await self._sessions.load_to_send(peer)
            record = self._sendable(of_pair(read.record, owner.pinned), to, owner, peer[1], bundles.get(peer[1]))
            if record is None:
                self._metrics.devices_left_out.inc()
                continue
            loaded[peer[1]], records[peer[1]] = read, record
        if not records:
            raise CannotSeal("no_usable_device")
        try:
            sealed = seal_ratchet(
                self._device,
                to=to.recipient_id,
                conversation_id=to.conversation_id,
                client_message_id=to.client_message_id,
                payload=to.payload,
                records=records,
                epoch=epoch,
                now_ms=now_ms(),
                random=os.urandom,
            )
        except ValueError:
            raise CannotSeal("payload_without_json_form") from None
        moved = list(sealed.records.values())
        writes = [
            self._sessions.seal((to.recipient_id, device), loaded[device], record)
            for device, record in sealed.records.items()
        ]
        return SealedFor(sealed.encrypted_payload, moved, writes, epoch)

    def _seal_for_group(self, to: Addressed, keys: GroupKeys) -> SealedFor:
        try:
            sealed = seal_group_message(
                self._device,
                keys,
                conversation_id=to.conversation_id,
                client_message_id=to.client_message_id,
                payload=to.payload,
                random=os.urandom,
            )
        except ValueError:
            raise CannotSeal("payload_without_json_form") from None
        return SealedFor(sealed, [], [], self._write_count.epoch)

    def unanswered(self, sealed: SealedFor) -> int:
        """How many messages went to a device without an answer, when it is time to ask for one; else 0."""
        for record in sealed.moved:
            session = record.current
            if session is not None and ping_due(record):
                return session.ratchet.send_count
        return 0

    def committed(self, sealed: SealedFor) -> None:
        """The commit has happened."""
        for write, record in zip(sealed.writes, sealed.moved, strict=True):
            self._sessions.committed(write, record)

    def _goes_on(self, record: DeviceRecord, to: Addressed, device_id: str, now: int) -> bool:
        """Whether the device gets this in a session that there is; an offer goes into one that is open already."""
        epoch = self._write_count.epoch
        if device_id == to.new_session_with:
            return has_open_offer(record, epoch=epoch, now_ms=now)
        return record.may_send(epoch, now)

    def _sendable(
        self, record: DeviceRecord, to: Addressed, owner: Owner, device_id: str, fetched: Bundle | None
    ) -> DeviceRecord | None:
        """The record with a session to send on; None where none can be begun.

        A session that follows others names no one-time prekey: what was handed out last may be gone at the device.
        """
        now, epoch = now_ms(), self._write_count.epoch
        if self._goes_on(record, to, device_id, now):
            return record
        is_renewal, bundle = bool(record.sessions), fetched or _known(record, owner, device_id, now)
        if bundle is None:
            return record if record.may_send(epoch, now) else None
        if is_renewal:
            bundle = msgspec.structs.replace(bundle, one_time_prekey_id=None, one_time_prekey=None)
        try:
            begun = start_session(record, self._device, bundle, epoch=epoch, now_ms=now, random=os.urandom)
        except Unreadable:
            return None
        return session_was_offered(begun) if is_renewal else begun


def _known(record: DeviceRecord, owner: Owner, device_id: str, now: int) -> Bundle | None:
    """What a session with the device can begin with without asking the relay."""
    return None if needs_bundle(record, now) else known_bundle(record, owner.owner_id, device_id)
