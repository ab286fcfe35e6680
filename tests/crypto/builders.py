"""Plain builders for the crypto tests: devices with prekeys that talk to each other, all from one seed.

`Peer` is the smallest honest shell: it keeps one record per peer device and commits exactly what the
crypto core tells it to commit.
"""

from __future__ import annotations

import random as seeded
from collections.abc import Callable
from dataclasses import dataclass, field

from crypto import msgpack, strict_base64
from crypto.envelope import (
    Body,
    Envelope,
    Expected,
    Opened,
    check_recipient,
    handshake_prekeys,
    open_ratchet,
    parse_envelope,
    seal_ratchet,
    verify_signature,
)
from crypto.errors import Reason, Unreadable
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import (
    Bundle,
    OneTimePrekey,
    Prekeys,
    SignedPrekey,
    make_one_time_prekeys,
    make_signed_prekey,
)
from crypto.primitives import Random
from crypto.records import EMPTY_RECORD, DeviceRecord
from crypto.sessions import start_session
from crypto.wraps import RatchetWrap

NOW_MS = 1_750_000_000_000
DAY_MS = 86_400_000
CONVERSATION = "0b5f1a52-8a3c-4a3e-9a33-3f1d2f4f9a01"


def stream(seed: int) -> Random:
    """Randomness that is the same in every run."""
    return seeded.Random(seed).randbytes


def text(words: str) -> dict[str, object]:
    """A text payload."""
    return {"type": "text", "text": words}


@dataclass
class Peer:
    """One device of one owner: identity, prekeys, and a record per peer device."""

    device: LocalDevice
    random: Random
    signed: dict[int, SignedPrekey]
    one_time: dict[int, OneTimePrekey]
    current_signed: int = 1
    now_ms: int = NOW_MS
    epoch: int = 0
    records: dict[str, DeviceRecord] = field(default_factory=dict)
    sent: int = 0
    offered: int = 0
    lost_through: int = 0

    @property
    def id(self) -> str:
        return self.device.device_id

    @property
    def prekeys(self) -> Prekeys:
        return Prekeys(self.signed, self.one_time, self.lost_through)

    def record(self, other: Peer) -> DeviceRecord:
        return self.records.get(other.id, EMPTY_RECORD)

    def bundle(self, *, with_one_time: bool = True) -> Bundle:
        """What the relay gives out; as there, a one-time prekey is given out once."""
        signed = self.signed[self.current_signed]
        one_time = self.one_time.get(self.offered + 1) if with_one_time else None
        if one_time is not None:
            self.offered += 1
        return Bundle(
            self.device.owner_id,
            self.id,
            self.device.identity.public,
            signed.id,
            signed.public,
            signed.signature,
            None if one_time is None else one_time.id,
            None if one_time is None else one_time.public,
        )

    def start(self, other: Peer, *, with_one_time: bool = True) -> None:
        self.records[other.id] = start_session(
            self.record(other),
            self.device,
            other.bundle(with_one_time=with_one_time),
            epoch=self.epoch,
            now_ms=self.now_ms,
            random=self.random,
        )

    def seal(self, other: Peer, words: str) -> str:
        """An envelope for the other; starts a session where there is none to send on."""
        if not self.record(other).may_send(self.epoch, self.now_ms):
            self.start(other)
        self.sent += 1
        sealed = seal_ratchet(
            self.device,
            to=other.device.owner_id,
            conversation_id=CONVERSATION,
            client_message_id=f"01J0000000{self.sent:016d}",
            payload=text(words),
            records={other.id: self.record(other)},
            epoch=self.epoch,
            now_ms=self.now_ms,
            random=self.random,
        )
        self.records.update(sealed.records)
        return sealed.encrypted_payload

    def seal_payload(
        self, other: Peer, record: DeviceRecord, payload: dict[str, object], client_message_id: str, now_ms: int
    ) -> tuple[str, DeviceRecord]:
        """An envelope with any payload under this record, and the record after it."""
        sealed = seal_ratchet(
            self.device,
            to=other.device.owner_id,
            conversation_id=CONVERSATION,
            client_message_id=client_message_id,
            payload=payload,
            records={other.id: record},
            epoch=self.epoch,
            now_ms=now_ms,
            random=self.random,
        )
        return sealed.encrypted_payload, sealed.records[other.id]

    def parse(self, other: Peer, encrypted_payload: str) -> Envelope:
        """As far as the signature."""
        expected = Expected(CONVERSATION, other.device.owner_id, other.id)
        envelope = parse_envelope(encrypted_payload, expected)
        check_recipient(envelope, self.device.owner_id)
        verify_signature(envelope, other.device.identity.public)
        return envelope

    def try_open(self, other: Peer, encrypted_payload: str) -> Opened:
        """Opens without committing."""
        envelope = self.parse(other, encrypted_payload)
        handshake_prekeys(envelope, self.id)
        return open_ratchet(
            envelope,
            self.device,
            other.device.identity.public,
            self.record(other),
            self.prekeys,
            epoch=self.epoch,
            now_ms=self.now_ms,
        )

    def open(self, other: Peer, encrypted_payload: str) -> str:
        """Opens and commits; the text that was said."""
        opened = self.try_open(other, encrypted_payload)
        self.commit(other, opened)
        words = opened.payload["text"]
        assert isinstance(words, str)
        return words

    def commit(self, other: Peer, opened: Opened) -> None:
        self.records[other.id] = opened.record
        if opened.used_one_time_prekey is not None:
            del self.one_time[opened.used_one_time_prekey]


def make_peer(seed: int, *, owner: str | None = None, one_time: int = 5) -> Peer:
    """A device of its own owner, with a signed prekey (id 1) and one-time prekeys (ids from 1)."""
    random = stream(seed)
    name = owner or f"0000000{seed % 10}-0000-4000-8000-000000000000"
    device = LocalDevice(name, f"device-{seed}", IdentityKeys.generate(random))
    signed = make_signed_prekey(device, 1, NOW_MS, random)
    keys = make_one_time_prekeys(1, one_time, random)
    return Peer(device, random, {1: signed}, {key.id: key for key in keys})


def talking_pair() -> tuple[Peer, Peer]:
    """Two devices in one session that both have been heard in: (who began it, who was asked)."""
    alice, agent = make_peer(1), make_peer(2)
    agent.open(alice, alice.seal(agent, "hello"))
    alice.open(agent, agent.seal(alice, "welcome"))
    return alice, agent


def reason_of(action: Callable[[], object]) -> Reason:
    """The reason for which `action` fails; it must fail as Unreadable."""
    try:
        action()
    except Unreadable as error:
        return error.reason
    raise AssertionError("nothing was refused")


def resign(sender: Peer, encrypted_payload: str, **changes: object) -> str:
    """The envelope with parts of its body changed, signed again by its own sender: what a bad peer can do."""
    envelope = parse_envelope(encrypted_payload, Expected(CONVERSATION, sender.device.owner_id))
    fields = {name: getattr(envelope, name) for name in Body.__struct_fields__} | changes
    body = msgpack.encode(Body(**fields))
    signature = sender.device.identity.sign(b"hashee-sign-v1\x00" + body)
    return strict_base64.encode(msgpack.encode([body, signature]))


def only_wrap(peer: Peer, encrypted_payload: str) -> RatchetWrap:
    """The one ratchet wrap of an envelope of `peer`."""
    envelope = parse_envelope(encrypted_payload, Expected(CONVERSATION, peer.device.owner_id))
    (wrap,) = envelope.wraps
    assert isinstance(wrap, RatchetWrap)
    return wrap
