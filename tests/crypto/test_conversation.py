"""Two devices talk: the whole way from a bundle to an opened payload, both sides, in and out of order."""

from __future__ import annotations

import pytest

from crypto.envelope import Expected, parse_envelope
from crypto.errors import Reason, Unreadable
from crypto.records import DeviceRecord
from tests.crypto.builders import CONVERSATION, make_peer

pytestmark = pytest.mark.pure


def test_two_devices_talk_both_ways() -> None:
    alice, agent = make_peer(1), make_peer(2)
    assert agent.open(alice, alice.seal(agent, "hello")) == "hello"
    assert alice.open(agent, agent.seal(alice, "echo: hello")) == "echo: hello"
    for number in range(20):
        assert agent.open(alice, alice.seal(agent, f"ping {number}")) == f"ping {number}"
        assert alice.open(agent, agent.seal(alice, f"pong {number}")) == f"pong {number}"
    assert len(alice.record(agent).sessions) == len(agent.record(alice).sessions) == 1


def test_the_first_message_carries_a_handshake_until_the_first_answer() -> None:
    alice, agent = make_peer(1), make_peer(2)
    first, second = alice.seal(agent, "one"), alice.seal(agent, "two")
    for sealed in (first, second):
        wrap = agent.parse(alice, sealed).wraps[0]
        assert getattr(wrap, "handshake", None) is not None
    agent.open(alice, first)
    agent.open(alice, second)
    alice.open(agent, agent.seal(alice, "answer"))
    assert getattr(agent.parse(alice, alice.seal(agent, "three")).wraps[0], "handshake", None) is None


def test_messages_arrive_in_any_order() -> None:
    alice, agent = make_peer(1), make_peer(2)
    sealed = [alice.seal(agent, str(number)) for number in range(30)]
    for number in reversed(range(30)):
        assert agent.open(alice, sealed[number]) == str(number)
    assert agent.record(alice).skipped_count() == 0


def test_a_late_message_of_an_old_chain_is_read() -> None:
    alice, agent = make_peer(1), make_peer(2)
    agent.open(alice, alice.seal(agent, "first"))
    late = alice.seal(agent, "late")
    alice.open(agent, agent.seal(alice, "answer"))
    assert agent.open(alice, alice.seal(agent, "next chain")) == "next chain"
    assert agent.open(alice, late) == "late"
    with pytest.raises(Unreadable) as refused:
        agent.try_open(alice, late)
    assert refused.value.reason in (Reason.KEY_USED, Reason.BAD_CIPHERTEXT)


def test_both_start_at_once_and_end_in_one_session() -> None:
    alice, agent = make_peer(1), make_peer(2)
    agent.now_ms += 5
    from_alice, from_agent = alice.seal(agent, "a"), agent.seal(alice, "b")
    assert agent.open(alice, from_alice) == "a"
    assert alice.open(agent, from_agent) == "b"
    assert alice.open(agent, agent.seal(alice, "c")) == "c"
    assert agent.open(alice, alice.seal(agent, "d")) == "d"
    mine, theirs = alice.record(agent).current, agent.record(alice).current
    assert mine is not None
    assert theirs is not None
    assert mine.id == theirs.id


def test_a_record_survives_its_stored_form() -> None:
    alice, agent = make_peer(1), make_peer(2)
    sealed = [alice.seal(agent, str(number)) for number in range(9)]
    agent.open(alice, sealed[4])
    agent.open(alice, sealed[8])
    for peer, other in ((alice, agent), (agent, alice)):
        record = peer.record(other)
        assert DeviceRecord.decode(record.encode()) == record
        peer.records[other.id] = DeviceRecord.decode(record.encode())
    assert agent.open(alice, sealed[2]) == "2"
    assert alice.open(agent, agent.seal(alice, "answer")) == "answer"


def test_the_body_must_say_what_the_frame_says() -> None:
    alice, agent = make_peer(1), make_peer(2)
    sealed = alice.seal(agent, "x")
    for expected in (
        Expected("another", alice.device.owner_id, alice.id),
        Expected(CONVERSATION, "another", alice.id),
        Expected(CONVERSATION, alice.device.owner_id, "another"),
    ):
        with pytest.raises(Unreadable) as refused:
            parse_envelope(sealed, expected)
        assert refused.value.reason is Reason.NOT_FOR_US
    parse_envelope(sealed, Expected(CONVERSATION, alice.device.owner_id))
