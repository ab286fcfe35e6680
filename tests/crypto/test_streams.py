"""A stream's deltas: once each, in order, in their own frame, by their own sender, at no ratchet number."""

from __future__ import annotations

import msgspec
import pytest

from crypto.envelope import Envelope, Expected, parse_envelope, seal_ratchet, verify_signature
from crypto.errors import Reason, Unreadable
from crypto.streams import StreamKey, StreamReader, open_delta, seal_delta, stream_start_payload
from tests.crypto.builders import CONVERSATION, Peer, make_peer

pytestmark = pytest.mark.pure

STREAM = "01J00000000000000000STREAM"


def _start(agent: Peer, alice: Peer) -> tuple[StreamKey, StreamReader]:
    agent.open(alice, alice.seal(agent, "tell me"))
    key = StreamKey.generate(agent.random)
    sealed = seal_ratchet(
        agent.device,
        to=alice.device.owner_id,
        conversation_id=CONVERSATION,
        client_message_id="01J0000000000000000000STRT",
        payload=stream_start_payload(STREAM, key),
        records={alice.id: agent.record(alice)},
        epoch=0,
        now_ms=agent.now_ms,
        random=agent.random,
    )
    agent.records.update(sealed.records)
    opened = alice.try_open(agent, sealed.encrypted_payload)
    alice.commit(agent, opened)
    envelope = alice.parse(agent, sealed.encrypted_payload)
    return key, StreamReader.start(envelope, opened.payload, stream_id=STREAM)


def _delta(sender: Peer, receiver: Peer, key: StreamKey, seq: int, words: str) -> Envelope:
    sealed = seal_delta(
        sender.device,
        key,
        to=receiver.device.owner_id,
        conversation_id=CONVERSATION,
        client_message_id=f"01J000000000000000000D{seq:04d}",
        stream_id=STREAM,
        seq=seq,
        text=words,
        random=sender.random,
    )
    envelope = parse_envelope(sealed, Expected(CONVERSATION, sender.device.owner_id))
    verify_signature(envelope, sender.device.identity.public)
    return envelope


def _reason(reader: StreamReader, envelope: Envelope, seq: int) -> Reason:
    with pytest.raises(Unreadable) as refused:
        reader.read(envelope, seq=seq)
    return refused.value.reason


def test_deltas_are_read_in_order_once_each() -> None:
    alice, agent = make_peer(1), make_peer(2)
    key, reader = _start(agent, alice)
    deltas = [_delta(agent, alice, key, seq, f"word {seq} ") for seq in range(3)]
    assert _reason(reader, deltas[1], 1) is Reason.BAD_PAYLOAD
    shown = ""
    for seq, delta in enumerate(deltas):
        reader, words = reader.read(delta, seq=seq)
        shown += words
    assert shown == "word 0 word 1 word 2 "
    assert _reason(reader, deltas[2], 2) is Reason.BAD_PAYLOAD
    assert _reason(reader, deltas[2], 3) is Reason.BAD_PAYLOAD


def test_a_delta_of_another_sender_key_or_stream_is_refused() -> None:
    alice, agent, other = make_peer(1), make_peer(2), make_peer(3)
    key, reader = _start(agent, alice)
    assert _reason(reader, _delta(other, alice, key, 0, "x"), 0) is Reason.BAD_PAYLOAD
    wrong = _delta(agent, alice, StreamKey.generate(agent.random), 0, "x")
    assert _reason(reader, wrong, 0) is Reason.BAD_CIPHERTEXT
    genuine = _delta(agent, alice, key, 0, "x")
    with pytest.raises(Unreadable) as refused:
        open_delta(genuine, key, stream_id="another", seq=0)
    assert refused.value.reason is Reason.BAD_PAYLOAD
    twice = msgspec.structs.replace(genuine, wraps=genuine.wraps * 2)
    assert _reason(reader, twice, 0) is Reason.MALFORMED
    assert reader.read(genuine, seq=0)[1] == "x"


def test_a_delta_is_nothing_outside_its_frame() -> None:
    alice, agent = make_peer(1), make_peer(2)
    key, _ = _start(agent, alice)
    sealed = seal_delta(
        agent.device,
        key,
        to=alice.device.owner_id,
        conversation_id=CONVERSATION,
        client_message_id="01J000000000000000000D0000",
        stream_id=STREAM,
        seq=0,
        text="x",
        random=agent.random,
    )
    with pytest.raises(Unreadable) as refused:
        alice.try_open(agent, sealed)
    assert refused.value.reason is Reason.BAD_PAYLOAD


def test_1500_deltas_cost_one_ratchet_number() -> None:
    alice, agent = make_peer(1), make_peer(2)
    key, _ = _start(agent, alice)
    before = agent.record(alice)
    for seq in range(1_500):
        seal_delta(
            agent.device,
            key,
            to=alice.device.owner_id,
            conversation_id=CONVERSATION,
            client_message_id=f"01J000000000000000000D{seq:04d}",
            stream_id=STREAM,
            seq=seq,
            text="x",
            random=agent.random,
        )
    assert agent.record(alice) == before
    assert alice.open(agent, agent.seal(alice, "done")) == "done"


def test_a_stream_key_shows_in_no_repr() -> None:
    key = StreamKey(bytes(range(32)))
    assert "1e1f" not in repr(key).lower()
    assert "\\x1e" not in repr(key)
