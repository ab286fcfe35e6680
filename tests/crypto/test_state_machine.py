"""Three devices under everything that can happen to them, against a model that only counts.

An agent and a person's two devices send, lose, repeat, reorder, forge, flip bits, crash before and after their
commit, start at once, and are restored from an old state. After each step: every genuine message opened
exactly once, no key and nonce pair was used twice, a rejected input changed nothing, records stay within bounds.
"""

from __future__ import annotations

import random as seeded
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from crypto import chains, content, primitives, strict_base64, wraps
from crypto.envelope import Expected, Opened, open_ratchet, parse_envelope, seal_ratchet, verify_signature
from crypto.errors import Reason, Unreadable
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import Bundle, Prekeys, SignedPrekey, make_one_time_prekeys, make_signed_prekey
from crypto.ratchet import Header, decode_header, encode_header
from crypto.records import EMPTY_RECORD, MAX_OWN_SESSIONS, MAX_RECORD_BYTES, MAX_SESSIONS, DeviceRecord
from crypto.sessions import start_session
from crypto.wraps import RatchetWrap
from tests.crypto.builders import CONVERSATION, NOW_MS, text

AGENT, PERSON = "22222222-0000-4000-8000-000000000000", "11111111-0000-4000-8000-000000000000"


class SealRecorder:
    """Stands at the AEAD and remembers every key and nonce; the same pair twice is the end of the test."""

    def __init__(self) -> None:
        self.seen: set[tuple[bytes, bytes]] = set()
        self.aead_seal = primitives.aead_seal

    def __call__(self, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        assert (key, nonce) not in self.seen, "a key and nonce pair was used twice"
        self.seen.add((key, nonce))
        return self.aead_seal(key, nonce, plaintext, aad)


@dataclass
class Device:
    """One device: what it has committed, and every state it ever had."""

    local: LocalDevice
    signed: SignedPrekey
    prekeys: Prekeys
    random: seeded.Random
    records: dict[str, DeviceRecord] = field(default_factory=dict)
    history: list[dict[str, DeviceRecord]] = field(default_factory=list)
    epoch: int = 0
    restores: int = 0
    offered: int = 0

    @property
    def id(self) -> str:
        return self.local.device_id

    def record(self, other: Device) -> DeviceRecord:
        return self.records.get(other.id, EMPTY_RECORD)

    def commit(self, changed: dict[str, DeviceRecord]) -> None:
        self.history.append(dict(self.records))
        self.records.update({device_id: DeviceRecord.decode(record.encode()) for device_id, record in changed.items()})


@dataclass
class Sent:
    """A message to one device, and whether it must open: only if nobody was restored since its session began."""

    sender: Device
    receiver: Device
    encrypted_payload: str
    words: str
    session: bytes
    restores: tuple[int, int]
    opened: int = 0


class Conversation(RuleBasedStateMachine):
    """The rules. Times move on by a second each, so that sessions have an order."""

    @initialize(seed=st.integers(0, 2**32))
    def arrange(self, seed: int) -> None:
        self.chance = seeded.Random(seed)
        self.now_ms = NOW_MS
        person = IdentityKeys.generate(self.chance.randbytes)
        agent = IdentityKeys.generate(self.chance.randbytes)
        self.devices = [
            self._device(LocalDevice(AGENT, AGENT, agent)),
            self._device(LocalDevice(PERSON, "phone", person)),
            self._device(LocalDevice(PERSON, "laptop", person)),
        ]
        self.messages: list[Sent] = []
        self.sessions: dict[bytes, tuple[int, int]] = {}
        self.pairs: dict[frozenset[str], int] = {}
        self.recorder = SealRecorder()
        self.patch = pytest.MonkeyPatch()
        for module in (chains, content, wraps):
            self.patch.setattr(module, "aead_seal", self.recorder)

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()

    def _device(self, local: LocalDevice) -> Device:
        random = seeded.Random(self.chance.random())
        signed = make_signed_prekey(local, 1, NOW_MS, random.randbytes)
        one_time = make_one_time_prekeys(1, 4, random.randbytes)
        return Device(local, signed, Prekeys({1: signed}, {key.id: key for key in one_time}), random)

    # Sending.

    def _others(self, sender: Device) -> list[Device]:
        agent, phone, laptop = self.devices
        return [phone, laptop] if sender is agent else [agent]

    def _start(self, sender: Device, receiver: Device) -> None:
        receiver.offered += 1
        one_time = receiver.prekeys.one_time(receiver.offered)
        bundle = Bundle(
            receiver.local.owner_id,
            receiver.id,
            receiver.local.identity.public,
            1,
            receiver.signed.public,
            receiver.signed.signature,
            None if one_time is None else one_time.id,
            None if one_time is None else one_time.public,
        )
        record = start_session(
            sender.record(receiver),
            sender.local,
            bundle,
            epoch=sender.epoch,
            now_ms=self.now_ms,
            random=sender.random.randbytes,
        )
        sender.commit({receiver.id: record})
        assert record.current is not None
        pair = frozenset((sender.id, receiver.id))
        self.sessions[record.current.id] = (sender.restores, receiver.restores)
        self.pairs[pair] = self.pairs.get(pair, 0) + 1

    def _seal(self, sender: Device) -> tuple[dict[str, DeviceRecord], list[Sent]]:
        receivers = self._others(sender)
        for receiver in receivers:
            if not sender.record(receiver).may_send(sender.epoch, self.now_ms):
                self._start(sender, receiver)
        words = f"message {len(self.messages)}"
        sealed = seal_ratchet(
            sender.local,
            to=receivers[0].local.owner_id,
            conversation_id=CONVERSATION,
            client_message_id=f"01J{len(self.recorder.seen):023d}",
            payload=text(words),
            records={receiver.id: sender.record(receiver) for receiver in receivers},
            epoch=sender.epoch,
            now_ms=self.now_ms,
            random=sender.random.randbytes,
        )
        made = []
        for receiver in receivers:
            current = sealed.records[receiver.id].current
            assert current is not None
            made.append(
                Sent(
                    sender, receiver, sealed.encrypted_payload, words, current.id, self.sessions_at(current.id, sender)
                )
            )
        return sealed.records, made

    def sessions_at(self, session: bytes, sender: Device) -> tuple[int, int]:
        """How often (sender, receiver) had been restored when the session began; the starter's count is first."""
        first, second = self.sessions[session]
        started_here = any(
            one.id == session and one.is_initiator for record in sender.records.values() for one in record.sessions
        )
        return (first, second) if started_here else (second, first)

    @rule(who=st.integers(0, 2), count=st.integers(1, 6))
    def send(self, who: int, count: int) -> None:
        for _ in range(count):
            self.now_ms += 1_000
            changed, made = self._seal(self.devices[who])
            self.devices[who].commit(changed)
            self.messages += made

    @rule(first=st.integers(0, 1), turns=st.integers(2, 8))
    def talk(self, first: int, turns: int) -> None:
        """A ping-pong in which everything arrives, as most of life is."""
        for turn in range(turns):
            self.send((first + turn) % 2, 1)
            while (message := self._pick(0, opened=False)) is not None:
                self.deliver_one(message, crash=False)

    @rule(who=st.integers(0, 2))
    def crash_before_the_commit_of_a_send(self, who: int) -> None:
        self._seal(self.devices[who])

    @rule(who=st.integers(0, 2))
    def crash_after_the_commit_of_a_send(self, who: int) -> None:
        changed, _ = self._seal(self.devices[who])
        self.devices[who].commit(changed)

    @rule(who=st.integers(0, 2), other=st.integers(0, 1))
    def start_another_session(self, who: int, other: int) -> None:
        self.now_ms += 1_000
        others = self._others(self.devices[who])
        self._start(self.devices[who], others[other % len(others)])

    # Receiving.

    def _open(self, message: Sent, encrypted_payload: str) -> Opened:
        pinned = message.sender.local.identity.public
        envelope = parse_envelope(
            encrypted_payload, Expected(CONVERSATION, message.sender.local.owner_id, message.sender.id)
        )
        verify_signature(envelope, pinned)
        receiver = message.receiver
        return open_ratchet(
            envelope,
            receiver.local,
            pinned,
            receiver.record(message.sender),
            receiver.prekeys,
            epoch=receiver.epoch,
            now_ms=self.now_ms,
        )

    def _commit(self, message: Sent, opened: Opened) -> None:
        receiver = message.receiver
        receiver.commit({message.sender.id: opened.record})
        if opened.used_one_time_prekey is not None:
            left = dict(receiver.prekeys.one_time_prekeys)
            del left[opened.used_one_time_prekey]
            receiver.prekeys = Prekeys(receiver.prekeys.signed_prekeys, left)

    def _must_open(self, message: Sent) -> bool:
        unrestored = message.restores == (message.sender.restores, message.receiver.restores)
        pair = frozenset((message.sender.id, message.receiver.id))
        return unrestored and self.pairs[pair] <= MAX_SESSIONS

    def _pick(self, place: int, *, opened: bool) -> Sent | None:
        fitting = [message for message in self.messages if bool(message.opened) is opened]
        return fitting[place % len(fitting)] if fitting else None

    @precondition(lambda self: self.messages)
    @rule(places=st.lists(st.integers(0, 10_000), min_size=1, max_size=6), crash=st.booleans())
    def deliver(self, places: list[int], crash: bool) -> None:
        for place in places:
            message = self._pick(place, opened=False)
            if message is not None:
                self.deliver_one(message, crash=crash)

    def deliver_one(self, message: Sent, *, crash: bool) -> None:
        before = message.receiver.record(message.sender).encode()
        opened: Opened | None = None
        try:
            opened = self._open(message, message.encrypted_payload)
        except Unreadable:
            if self._must_open(message):
                raise
        if opened is None:
            assert message.receiver.record(message.sender).encode() == before
            self.messages.remove(message)
            return
        assert opened.payload == text(message.words)
        if crash:
            return  # before the commit: it will be delivered again
        self._commit(message, opened)
        message.opened += 1

    @precondition(lambda self: any(message.opened for message in self.messages))
    @rule(place=st.integers(0, 10_000))
    def deliver_again(self, place: int) -> None:
        message = self._pick(place, opened=True)
        if message is None or message.receiver.restores != message.restores[1]:
            return
        before = message.receiver.record(message.sender).encode()
        with pytest.raises(Unreadable) as refused:
            self._open(message, message.encrypted_payload)
        assert refused.value.reason in (
            Reason.KEY_USED,
            Reason.BAD_CIPHERTEXT,
            Reason.NO_SESSION,
            Reason.UNKNOWN_PREKEY,
        )
        assert message.receiver.record(message.sender).encode() == before

    @precondition(lambda self: self.messages)
    @rule(place=st.integers(0, 10_000))
    def drop(self, place: int) -> None:
        message = self._pick(place, opened=False)
        if message is not None:
            self.messages.remove(message)

    # What an enemy does. The receiver's state must be what it was; the genuine message is delivered later.

    def _refused(self, message: Sent, encrypted_payload: str) -> None:
        before = message.receiver.record(message.sender).encode()
        with pytest.raises(Unreadable):
            self._open(message, encrypted_payload)
        assert message.receiver.record(message.sender).encode() == before

    @precondition(lambda self: self.messages)
    @rule(place=st.integers(0, 10_000), bit=st.integers(0, 10**9))
    def flip_a_bit(self, place: int, bit: int) -> None:
        message = self.messages[place % len(self.messages)]
        raw = bytearray(strict_base64.decode(message.encrypted_payload))
        raw[(bit // 8) % len(raw)] ^= 1 << (bit % 8)
        self._refused(message, strict_base64.encode(bytes(raw)))

    @precondition(lambda self: self.messages)
    @rule(place=st.integers(0, 10_000), what=st.integers(0, 5), number=st.integers(0, 1_200))
    def forge_as_the_sender_could(self, place: int, what: int, number: int) -> None:
        message = self.messages[place % len(self.messages)]
        envelope = parse_envelope(message.encrypted_payload, Expected(CONVERSATION, message.sender.local.owner_id))
        genuine = next(
            wrap for wrap in envelope.wraps if isinstance(wrap, RatchetWrap) and wrap.to == message.receiver.id
        )
        header = decode_header(genuine.header)
        other_key = self.devices[0].signed.public
        changes: list[dict[str, Any]] = [
            {"header": encode_header(Header(header.ratchet_key, number, header.number + 1))},
            {"header": encode_header(Header(other_key, header.previous_chain_length, number))},
            {"header": encode_header(Header(header.ratchet_key, header.previous_chain_length, number + 7))},
            {"salt": self.chance.randbytes(16)},
            {"session": self.chance.randbytes(16)},
            {"wrapped_key": self.chance.randbytes(48)},
        ]
        forged = msgspec.structs.replace(genuine, **changes[what])
        if forged == genuine:
            return
        self._refused(message, self._resealed(message, envelope, forged))

    def _resealed(self, message: Sent, envelope: Any, wrap: RatchetWrap) -> str:
        fields = msgspec.msgpack.decode(envelope.body) | {"wraps": [wrap]}
        body = msgspec.msgpack.encode(fields)
        signature = message.sender.local.identity.sign(b"hashee-sign-v1\x00" + body)
        return strict_base64.encode(msgspec.msgpack.encode([body, signature]))

    # Going back.

    @rule(who=st.integers(0, 2), age=st.integers(1, 30))
    def restore_an_old_state(self, who: int, age: int) -> None:
        device = self.devices[who]
        if len(device.history) < age:
            return
        device.records = dict(device.history[-age])
        device.history = device.history[:-age]
        device.epoch += 1
        device.restores += 1

    @invariant()
    def records_stay_within_bounds(self) -> None:
        for device in getattr(self, "devices", ()):
            for record in device.records.values():
                assert len(record.encode()) <= MAX_RECORD_BYTES
                ours = sum(session.is_initiator for session in record.sessions)
                assert len(record.sessions) - ours <= MAX_SESSIONS
                assert ours <= MAX_OWN_SESSIONS

    @invariant()
    def nothing_was_opened_twice(self) -> None:
        assert all(message.opened <= 1 for message in getattr(self, "messages", ()))


Conversation.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestConversation = Conversation.TestCase
