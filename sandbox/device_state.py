"""One simulated device's keys, pins and ratchets: durable in memory only, and otherwise as honest as a real one.

It opens and seals by PROTOCOL §5 in its order, on values, and commits a record only with what it belongs to. It
opens no socket; `people.py` brings it bundles and frames.
"""

import os

import msgspec

from crypto.envelope import (
    BadContent,
    Envelope,
    Expected,
    check_recipient_of_person,
    handshake_prekeys,
    open_ratchet,
    parse_envelope,
    ratchet_wrap,
    seal_ratchet,
    verify_signature,
)
from crypto.errors import Reason, Unreadable
from crypto.identity import LocalDevice, PublicIdentity
from crypto.prekeys import (
    ONE_TIME_PREKEYS_PUBLISHED,
    Bundle,
    OneTimePrekey,
    Prekeys,
    check_bundle,
    make_one_time_prekeys,
    make_signed_prekey,
    prekeys_to_json,
)
from crypto.records import EMPTY_RECORD, DeviceRecord
from crypto.renewal import Renewal, handshake_refused, never_sent_on, offered, renewal_due
from crypto.sessions import ping_due, start_session
from crypto.streams import StreamReader
from crypto.wraps import RatchetWrap
from sandbox.ulid import now_ms

EPOCH = 0
"""Its memory is never restored from an older copy, so there is one epoch."""


class Received(msgspec.Struct, frozen=True):
    """An envelope that was addressed to us, verified and opened."""

    envelope: Envelope
    payload: dict[str, object]


class DeviceState:
    def __init__(self, device: LocalDevice) -> None:
        self.device = device
        self._signed = make_signed_prekey(device, 1, now_ms(), os.urandom)
        self._one_time: dict[int, OneTimePrekey] = {}
        self._next_prekey_id = 1
        self._pins: dict[str, PublicIdentity] = {}
        self._records: dict[tuple[str, str], DeviceRecord] = {}
        self._seen: set[bytes] = set()

    @property
    def sessions(self) -> set[bytes]:
        """The ids of the sessions that this device has, with anybody."""
        return {session.id for record in self._records.values() for session in record.sessions}

    def registration(self, one_time: int = ONE_TIME_PREKEYS_PUBLISHED) -> dict[str, object]:
        """The body that registers it, with so many fresh one-time prekeys; also to refill them."""
        fresh = make_one_time_prekeys(self._next_prekey_id, one_time, os.urandom)
        self._next_prekey_id += one_time
        self._one_time |= {prekey.id: prekey for prekey in fresh}
        return prekeys_to_json(self.device, self._signed, fresh)

    def knows(self, owner_id: str) -> bool:
        return owner_id in self._pins

    def pin(self, bundle: Bundle) -> None:
        """Pins the owner's pair at first sight and checks the bundle under the pinned one. Raises `Unreadable`."""
        pinned = self._pins.get(bundle.owner_id, bundle.identity)
        check_bundle(bundle, pinned)
        self._pins[bundle.owner_id] = pinned

    def accept_keys(self, owner_id: str) -> None:
        """As a person does who was told that an owner's keys have changed: the next pair is pinned, in new sessions."""
        self._pins.pop(owner_id, None)
        self._records = {peer: record for peer, record in self._records.items() if peer[0] != owner_id}

    def forget_sessions(self) -> None:
        self._records.clear()

    # --- sending ---

    def may_send(self, owner_id: str, device_id: str) -> bool:
        return self._record(owner_id, device_id).may_send(EPOCH, now_ms())

    def start_session(self, bundle: Bundle) -> None:
        """A new session to send on. Raises `Unreadable` for a bundle that does not count under the pin."""
        self.pin(bundle)
        peer = (bundle.owner_id, bundle.device_id)
        self._records[peer] = start_session(
            self._record(*peer), self.device, bundle, epoch=EPOCH, now_ms=now_ms(), random=os.urandom
        )

    def seal(
        self, to: str, devices: list[str], conversation_id: str, client_message_id: str, payload: dict[str, object]
    ) -> str:
        """The `encrypted_payload` for these devices of `to`; each needs a session that may be sent on."""
        sealed = seal_ratchet(
            self.device,
            to=to,
            conversation_id=conversation_id,
            client_message_id=client_message_id,
            payload=payload,
            records={device_id: self._record(to, device_id) for device_id in devices},
            epoch=EPOCH,
            now_ms=now_ms(),
            random=os.urandom,
        )
        for device_id, record in sealed.records.items():
            self._records[to, device_id] = record
        return sealed.encrypted_payload

    def ping_is_due(self, owner_id: str, device_id: str) -> bool:
        return ping_due(self._record(owner_id, device_id))

    # --- receiving ---

    def verified(self, encrypted_payload: str, expected: Expected) -> Envelope:
        """Everything that §5.10 checks before the wrap, but duplicates. Raises `Unreadable`."""
        envelope = parse_envelope(encrypted_payload, expected)
        check_recipient_of_person(envelope, self.device)
        pinned = self._pins.get(envelope.sender_id)
        if pinned is None:
            raise Unreadable(Reason.UNKNOWN_SENDER)
        verify_signature(envelope, pinned)
        return envelope

    def open(self, encrypted_payload: str, expected: Expected) -> Received:
        """Opens an envelope once; the same one again is `duplicate`. Raises `Unreadable`, having changed nothing."""
        envelope = self.verified(encrypted_payload, expected)
        if envelope.replay_id in self._seen:
            raise Unreadable(Reason.DUPLICATE)
        peer = (envelope.sender_id, envelope.sender_device)
        try:
            opened = open_ratchet(
                envelope,
                self.device,
                self._pins[envelope.sender_id],
                self._record(*peer),
                self._prekeys_for(envelope),
                epoch=EPOCH,
                now_ms=now_ms(),
            )
        except BadContent as bad:
            # Its tag was good: the ratchet has moved, and the envelope will not open a second time.
            self._commit(envelope, bad.record, bad.used_one_time_prekey)
            raise
        self._commit(envelope, opened.record, opened.used_one_time_prekey)
        return Received(envelope, opened.payload)

    def open_stream(self, encrypted_payload: str, expected: Expected, stream_id: str) -> StreamReader:
        """The reader of a stream that starts. Raises `Unreadable`."""
        received = self.open(encrypted_payload, expected)
        return StreamReader.start(received.envelope, received.payload, stream_id=stream_id)

    def renewal_due(self, owner_id: str, reason: Reason, wrap: RatchetWrap | None) -> Renewal:
        """What a message that could not be read calls for now (§5.4); it counts as done."""
        peer = (owner_id, owner_id)
        record = self._record(*peer)
        if wrap is not None:
            record = handshake_refused(record, wrap, now_ms())
        renewal = renewal_due(record, reason, epoch=EPOCH, now_ms=now_ms())
        self._records[peer] = offered(record, renewal, now_ms())
        return renewal

    def never_send_on(self, owner_id: str, session_id: bytes) -> None:
        """The agent has said that it cannot read this session."""
        self._records[owner_id, owner_id] = never_sent_on(self._record(owner_id, owner_id), session_id)

    def wrap_of(self, encrypted_payload: str, expected: Expected) -> RatchetWrap | None:
        """The wrap for this device of a signed envelope, if there is one."""
        try:
            return ratchet_wrap(self.verified(encrypted_payload, expected), self.device.device_id)
        except Unreadable:
            return None

    def _record(self, owner_id: str, device_id: str) -> DeviceRecord:
        return self._records.get((owner_id, device_id), EMPTY_RECORD)

    def _prekeys_for(self, envelope: Envelope) -> Prekeys:
        named = handshake_prekeys(envelope, self.device.device_id)
        if named is None:
            return Prekeys()
        signed = {self._signed.id: self._signed} if named[0] == self._signed.id else {}
        one_time = self._one_time.get(named[1]) if named[1] is not None else None
        return Prekeys(signed, {one_time.id: one_time} if one_time is not None else {})

    def _commit(self, envelope: Envelope, record: DeviceRecord, used_one_time_prekey: int | None) -> None:
        self._records[envelope.sender_id, envelope.sender_device] = record
        self._seen.add(envelope.replay_id)
        if used_one_time_prekey is not None:
            del self._one_time[used_one_time_prekey]
