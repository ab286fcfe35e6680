"""Encrypts one payload for every device of a person, with the sessions as they stand, and hands over what the commit needs.

The caller holds the locks of the records from reading to commit. A device without a usable key is left out and counted;
a person without any is an error.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import msgspec

from bus.records import Payload
from bus.store import SessionWrite, now_ms
from crypto.envelope import seal_ratchet
from crypto.errors import Unreadable
from crypto.identity import LocalDevice
from crypto.prekeys import Bundle
from crypto.sessions import DeviceRecord, start_session
from supervisor.metrics import Metrics
from supervisor.owners import Owner, Owners
from supervisor.sessions import Loaded, Peer, Sessions


class NoUsableDevice(Exception):
    """The person has no device with a valid signed prekey or a session."""


class SealedFor(msgspec.Struct, frozen=True):
    """One envelope, and the records that making it moved."""

    encrypted_payload: str
    moved: list[tuple[Peer, Loaded, DeviceRecord]]

    def __repr__(self) -> str:
        return f"SealedFor({len(self.moved)} devices)"


class Addressed(msgspec.Struct, frozen=True):
    """A payload and where it goes."""

    owner: Owner
    conversation_id: str
    conversation_type: str
    client_message_id: str
    payload: Payload

    def __repr__(self) -> str:
        return f"Addressed(conversation_id={self.conversation_id!r}, client_message_id={self.client_message_id!r}, …)"


class Sealer:
    """Encrypts for one agent."""

    def __init__(self, sessions: Sessions, owners: Owners, device: LocalDevice, metrics: Metrics) -> None:
        self._sessions = sessions
        self._owners = owners
        self._device = device
        self._metrics = metrics
        self.epoch = 0

    def locked(self, peers: list[Peer]) -> AbstractAsyncContextManager[None]:
        """Hold the records of these devices from reading to commit."""
        return self._sessions.locked(peers)

    async def peers(self, owner: Owner) -> list[Peer]:
        """The devices to encrypt for."""
        return [(owner.owner_id, device_id) for device_id in await self._owners.devices(owner)]

    async def missing(self, owner: Owner, peers: list[Peer]) -> dict[str, Bundle]:
        """Bundles of the owner's devices, fetched only when one of them has no session to send on."""
        now = now_ms()
        for peer in peers:
            if not (await self._sessions.load(peer)).record.may_send(self.epoch, now):
                return await self._owners.bundles(owner)
        return {}

    async def seal(self, to: Addressed, peers: list[Peer], bundles: Mapping[str, Bundle]) -> SealedFor:
        """Encrypt; the caller holds the peers' locks. Raises NoUsableDevice."""
        loaded: dict[str, Loaded] = {}
        records: dict[str, DeviceRecord] = {}
        for peer in peers:
            read = await self._sessions.load(peer)
            record = self._sendable(read.record, bundles.get(peer[1]))
            if record is None:
                self._metrics.devices_left_out.inc()
                continue
            loaded[peer[1]], records[peer[1]] = read, record
        if not records:
            raise NoUsableDevice
        sealed = seal_ratchet(
            self._device,
            to=to.owner.owner_id,
            conversation_id=to.conversation_id,
            client_message_id=to.client_message_id,
            payload=to.payload,
            records=records,
            epoch=self.epoch,
            now_ms=now_ms(),
            random=os.urandom,
        )
        owner_id = to.owner.owner_id
        moved = [((owner_id, device), loaded[device], record) for device, record in sealed.records.items()]
        return SealedFor(sealed.encrypted_payload, moved)

    def writes(self, sealed: SealedFor) -> list[SessionWrite]:
        """The records for the commit."""
        return [self._sessions.seal(peer, read, record) for peer, read, record in sealed.moved]

    def committed(self, sealed: SealedFor) -> None:
        """The commit has happened."""
        for peer, read, record in sealed.moved:
            self._sessions.committed(peer, read, record)

    def _sendable(self, record: DeviceRecord, bundle: Bundle | None) -> DeviceRecord | None:
        now = now_ms()
        if record.may_send(self.epoch, now):
            return record
        if bundle is None:
            return None
        try:
            return start_session(record, self._device, bundle, epoch=self.epoch, now_ms=now, random=os.urandom)
        except Unreadable:
            return None
