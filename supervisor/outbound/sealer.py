"""Encrypts one payload for every device of a person, or once for a group under its key, and returns what the commit needs.

The caller holds the locks of the sessions' records from reading to commit. A device without a usable key is left out and counted; a person
without any is an error.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import msgspec

from bus.steps.store import now_ms
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
from supervisor.outbound.outgoing import Addressed, Recipient, SealedFor
from supervisor.peers.owners import Owner, Owners
from supervisor.peers.record_locks import Peer
from supervisor.peers.sessions import Loaded, Sessions
from supervisor.relay.rest import RestFailed


class CannotSeal(Exception):
    """A reply that can never be encrypted. `reason`: no_grant, no_usable_device, too_large, no_group_key, payload_without_json_form."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OfferFirst(Exception):
    """A device has only sessions that are not sent with any more, since Redis went back. New ones are offered in a message of their own
    before the reply: the relay may pass over the reply itself as one that it has had (PROTOCOL §5.4).
    """


class EpochRaised(Exception):
    """The epoch was raised while a reply was prepared: its sessions are no longer sent with, and bundles for new ones were not fetched."""


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
        """Returns a lock on the records of these devices, to be held from reading to commit."""
        return self._sessions.locked(peers)

    async def peers(self, recipient: Recipient) -> list[Peer]:
        """Returns the devices to encrypt for; none for a group, whose messages move no session."""
        if isinstance(recipient, GroupKeys):
            return []
        owner = recipient
        return [(owner.owner_id, device_id) for device_id in await self._owners.devices(owner)]

    def now_listed(self, recipient: Recipient, peers: list[Peer]) -> list[Peer]:
        """Returns the devices to encrypt for after bundles were fetched. Counts those that were listed before (`peers`) and are not now."""
        if isinstance(recipient, GroupKeys):
            return []
        listed = [(recipient.owner_id, device_id) for device_id in recipient.grant.devices]
        self._metrics.devices_left_out.inc(len(set(peers) - set(listed)))
        return listed

    @property
    def epoch(self) -> int:
        """Epoch of the sessions that may be sent with; it is raised when Redis went back."""
        return self._write_count.epoch

    async def missing(self, to: Addressed, peers: list[Peer]) -> dict[str, Bundle] | None:
        """Returns the bundles of the owner's devices if one needs a new session that cannot begin with what is known of it, else None.

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
        current = record.current
        return bool(record.sessions) and (current is None or current.epoch < self._write_count.epoch)

    async def _fetched(self, owner: Owner) -> dict[str, Bundle]:
        try:
            return await self._owners.bundles(owner)
        except RestFailed as error:
            if not error.is_refusal:
                raise
            return {}  # the sessions that there are will do, if there is one

    async def bundles(self, to: Addressed) -> dict[str, Bundle]:
        """Fetches the bundles of all devices of the owner; none for a group. Raises RestFailed."""
        return {} if isinstance(to.recipient, GroupKeys) else await self._owners.bundles(to.recipient)

    async def seal(self, to: Addressed, peers: list[Peer], bundles: Mapping[str, Bundle]) -> SealedFor:
        """Encrypts for these devices, or for the group. The caller holds the peers' locks. Raises CannotSeal."""
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

    def committed(self, sealed: SealedFor) -> None:
        """Called after the commit: the sessions are remembered as they stand in Redis now."""
        for write, record in zip(sealed.writes, sealed.moved, strict=True):
            self._sessions.committed(write, record)

    def _goes_on(self, record: DeviceRecord, to: Addressed, device_id: str, now: int) -> bool:
        """Whether the device gets this in a session that there is. An offer goes into one that is open already, if there is one."""
        epoch = self._write_count.epoch
        if device_id == to.new_session_with:
            return has_open_offer(record, epoch=epoch, now_ms=now)
        return record.may_send(epoch, now)

    def _sendable(
        self, record: DeviceRecord, to: Addressed, owner: Owner, device_id: str, fetched: Bundle | None
    ) -> DeviceRecord | None:
        """Returns the record with a session to send on; None if none can be begun.

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
    """Returns the bundle with which a session with the device can begin without asking the relay; None if it has to be asked."""
    return None if needs_bundle(record, now) else known_bundle(record, owner.owner_id, device_id)


def unanswered(sealed: SealedFor) -> int:
    """Returns how many messages went to a device without an answer if it is time to ask for one, else 0."""
    for record in sealed.moved:
        session = record.current
        if session is not None and ping_due(record):
            return session.ratchet.send_count
    return 0
