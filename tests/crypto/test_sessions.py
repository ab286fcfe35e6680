"""Which session is sent on, which are kept, and when a new one may be started (PROTOCOL §5.4)."""

from __future__ import annotations

import copy
from collections import deque

import msgspec
import pytest

from crypto.errors import CannotSend, Reason
from crypto.prekeys import make_signed_prekey
from crypto.ratchet import MAX_SKIPPED_PER_STEP
from crypto.records import MAX_OWN_SESSIONS, MAX_SESSIONS, MAX_UNANSWERED, DeviceRecord
from crypto.sessions import forget_prekey, ping_due, wrap_key
from tests.crypto.builders import (
    DAY_MS,
    NOW_MS,
    Peer,
    make_peer,
    only_wrap,
    reason_of,
    resign,
    talking_pair,
)

pytestmark = pytest.mark.pure


def _start_and_deliver(sender: Peer, receiver: Peer, words: str = "x") -> None:
    sender.start(receiver)
    receiver.open(sender, sender.seal(receiver, words))


def test_900_unanswered_messages_end_a_session_for_sending() -> None:
    alice, agent = make_peer(1), make_peer(2)
    alice.start(agent)
    for number in range(MAX_UNANSWERED):
        assert alice.record(agent).may_send(0, NOW_MS), number
        sealed = alice.seal(agent, "x")
    assert not alice.record(agent).may_send(0, NOW_MS)
    with pytest.raises(CannotSend):
        wrap_key(
            alice.record(agent),
            alice.device,
            agent.id,
            bytes(32),
            bytes(32),
            epoch=0,
            now_ms=NOW_MS,
            random=alice.random,
        )
    assert agent.open(alice, sealed) == "x", "a peer that lost all the others still follows"
    assert agent.record(alice).skipped_count() == MAX_UNANSWERED - 1


def test_an_answer_makes_a_session_good_for_another_900() -> None:
    alice, agent = talking_pair()
    for _ in range(MAX_UNANSWERED - 1):
        sealed = alice.seal(agent, "x")
    agent.open(alice, sealed)
    alice.open(agent, agent.seal(alice, "still here"))
    assert alice.record(agent).may_send(0, NOW_MS)
    assert len(alice.record(agent).sessions) == 1


def test_30_days_without_an_answer_end_a_session_for_sending() -> None:
    alice, agent = talking_pair()
    alice.seal(agent, "x")
    assert alice.record(agent).may_send(0, NOW_MS + 30 * DAY_MS)
    assert not alice.record(agent).may_send(0, NOW_MS + 30 * DAY_MS + 1_000)
    quiet = agent.record(alice)
    assert quiet.may_send(0, NOW_MS + 30 * DAY_MS)


def test_a_session_of_an_older_epoch_is_read_with_and_never_sent_with() -> None:
    alice, agent = talking_pair()
    agent.epoch = 1
    assert not agent.record(alice).may_send(1, NOW_MS)
    assert agent.open(alice, alice.seal(agent, "under way")) == "under way"
    assert not agent.record(alice).may_send(1, NOW_MS)
    answer = agent.seal(alice, "in a new session")
    assert only_wrap(agent, answer).handshake is not None
    assert alice.open(agent, answer) == "in a new session"
    assert agent.open(alice, alice.seal(agent, "follows")) == "follows"


def test_a_session_begun_with_a_prekey_from_before_a_loss_is_read_with_and_never_sent_with() -> None:
    """The state that was lost may have answered in it, under another ratchet key: what was sent then cannot be gone on with."""
    alice, agent = make_peer(1), make_peer(2)
    first, second = alice.seal(agent, "first"), alice.seal(agent, "second")
    lost, agent = agent, copy.deepcopy(agent)
    lost.open(alice, first)
    alice.open(lost, lost.seal(alice, "by the state that is lost"))
    agent.lost_through = agent.current_signed
    assert [agent.open(alice, first), agent.open(alice, second)] == ["first", "second"]
    assert not agent.record(alice).may_send(0, NOW_MS)
    answer = agent.seal(alice, "in a new session")
    assert only_wrap(agent, answer).handshake is not None
    assert alice.open(agent, answer) == "in a new session"


def test_a_session_begun_with_a_prekey_from_after_a_loss_is_answered_in() -> None:
    alice, agent = make_peer(1), make_peer(2)
    agent.lost_through = agent.current_signed - 1
    agent.open(alice, alice.seal(agent, "first"))
    assert only_wrap(agent, agent.seal(alice, "answer")).handshake is None


def test_started_rises_above_every_known_session() -> None:
    alice, agent = talking_pair()
    known = agent.record(alice).current
    agent.now_ms -= 10 * DAY_MS
    agent.start(alice)
    started = agent.record(alice).current
    assert known is not None
    assert started is not None
    assert started.started == known.started + 1


def test_a_session_started_more_than_a_day_from_now_is_malformed() -> None:
    alice, agent = make_peer(1), make_peer(2)
    alice.now_ms += DAY_MS + 1
    sealed = alice.seal(agent, "from the future")
    assert reason_of(lambda: agent.try_open(alice, sealed)) is Reason.MALFORMED
    agent.now_ms += 1
    assert agent.open(alice, sealed) == "from the future"


def test_a_session_id_that_is_not_its_handshakes_is_malformed() -> None:
    alice, agent = make_peer(1), make_peer(2)
    sealed = alice.seal(agent, "x")
    wrap = msgspec.structs.replace(only_wrap(alice, sealed), session=bytes(16))
    forged = resign(alice, sealed, wraps=(wrap,))
    assert reason_of(lambda: agent.try_open(alice, forged)) is Reason.MALFORMED


def test_an_unknown_session_without_a_handshake_is_no_session() -> None:
    alice, agent = talking_pair()
    agent.records.clear()
    sealed = alice.seal(agent, "x")
    assert reason_of(lambda: agent.try_open(alice, sealed)) is Reason.NO_SESSION


def test_an_envelope_that_leaves_us_out_is_no_session_and_two_wraps_are_malformed() -> None:
    alice, agent = talking_pair()
    sealed = alice.seal(agent, "x")
    wrap = only_wrap(alice, sealed)
    left_out = resign(alice, sealed, wraps=())
    assert reason_of(lambda: agent.try_open(alice, left_out)) is Reason.NO_SESSION
    twice = resign(alice, sealed, wraps=(wrap, wrap))
    assert reason_of(lambda: agent.try_open(alice, twice)) is Reason.MALFORMED


def test_missing_prekeys_are_unknown_prekey() -> None:
    alice, agent = make_peer(1), make_peer(2)
    sealed = alice.seal(agent, "x")
    one_time, signed = agent.one_time, agent.signed
    agent.one_time = {}
    assert reason_of(lambda: agent.try_open(alice, sealed)) is Reason.UNKNOWN_PREKEY
    agent.one_time, agent.signed = one_time, {}
    assert reason_of(lambda: agent.try_open(alice, sealed)) is Reason.UNKNOWN_PREKEY
    agent.signed = signed
    assert agent.open(alice, sealed) == "x"


def test_five_sessions_are_kept_and_the_smallest_dropped() -> None:
    alice, agent = make_peer(1, one_time=0), make_peer(2, one_time=0)
    for number in range(7):
        alice.now_ms = NOW_MS + number
        _start_and_deliver(alice, agent)
    kept = agent.record(alice)
    assert [session.started for session in kept.sessions] == [NOW_MS + number for number in range(2, 7)]
    assert sum(len(ids) for _, ids in kept.dropped) == 2 * 8


def test_of_our_own_sessions_sixteen_are_kept_and_the_smallest_dropped() -> None:
    alice, agent = make_peer(1, one_time=0), make_peer(2, one_time=0)
    for number in range(MAX_OWN_SESSIONS + 2):
        agent.now_ms = NOW_MS + number
        agent.start(alice)
    kept = agent.record(alice)
    assert [session.started for session in kept.sessions] == [NOW_MS + 2 + n for n in range(MAX_OWN_SESSIONS)]
    assert kept.dropped == ()
    assert len(kept.encode()) < 4096
    assert DeviceRecord.decode(kept.encode()) == kept
    versions = [
        msgspec.msgpack.decode(msgspec.structs.replace(kept, sessions=kept.sessions[:n]).encode())[0] for n in (5, 6)
    ]
    assert versions == [2, 3], "a release that keeps five takes six for damaged, and a later version for what it is"


def test_what_a_device_has_said_in_session_after_session_is_read_however_many_our_late_answers_begin() -> None:
    """3,500 questions wait; each is read and answered at once, and what the device says to the answers waits behind them."""
    alice, agent = make_peer(1, one_time=0), make_peer(2, one_time=0)
    waiting = deque((f"question {number}", alice.seal(agent, f"question {number}")) for number in range(3500))
    assert len(alice.record(agent).sessions) == 4
    answers = 0
    while waiting:
        said, sealed = waiting.popleft()
        assert agent.open(alice, sealed) == said
        if not said.startswith("question"):
            continue
        answers += 1
        agent.epoch += answers in {10, 20, 30}  # three restarts of a Redis that may have lost something
        agent.now_ms += 1000
        alice.now_ms = agent.now_ms
        heard = alice.open(agent, agent.seal(alice, f"answer to {said}"))
        assert heard == f"answer to {said}"
        if answers % 50 == 0:
            waiting.append((f"pong {answers}", alice.seal(agent, f"pong {answers}")))
    assert answers == 3500


def test_a_dropped_id_is_remembered_until_its_prekey_is_erased() -> None:
    alice, agent = make_peer(1, one_time=0), make_peer(2, one_time=0)
    alice.start(agent)
    first = alice.seal(agent, "first")
    agent.open(alice, first)
    for number in range(1, 6):
        alice.now_ms = NOW_MS + number
        _start_and_deliver(alice, agent)
    assert reason_of(lambda: agent.try_open(alice, first)) is Reason.NO_SESSION
    agent.records[alice.id] = forget_prekey(agent.record(alice), 1)
    assert agent.record(alice).dropped == ()
    del agent.signed[1]
    assert reason_of(lambda: agent.try_open(alice, first)) is Reason.UNKNOWN_PREKEY


def test_the_first_message_of_a_session_older_than_all_kept_ones_is_read_once() -> None:
    alice, agent = make_peer(1, one_time=0), make_peer(2, one_time=0)
    alice.start(agent)
    late = alice.seal(agent, "late")
    for number in range(1, 6):
        alice.now_ms = NOW_MS + number
        _start_and_deliver(alice, agent)
    assert agent.open(alice, late) == "late"
    assert len(agent.record(alice).sessions) == 5
    assert reason_of(lambda: agent.try_open(alice, late)) is Reason.NO_SESSION


def test_100_new_sessions_a_day_and_no_more() -> None:
    alice, agent = make_peer(1, one_time=0), make_peer(2, one_time=0)
    for number in range(100):
        alice.now_ms = NOW_MS + number
        _start_and_deliver(alice, agent)
    alice.now_ms = NOW_MS + 100
    alice.start(agent)
    sealed = alice.seal(agent, "one too many")
    assert reason_of(lambda: agent.try_open(alice, sealed)) is Reason.NO_SESSION
    agent.now_ms += DAY_MS
    assert agent.open(alice, sealed) == "one too many"


def test_a_reinstalled_peer_starts_a_session_and_both_go_on_in_it() -> None:
    alice, agent = talking_pair()
    alice.records.clear()
    alice.now_ms += 1_000
    assert agent.open(alice, alice.seal(agent, "new phone")) == "new phone"
    assert alice.open(agent, agent.seal(alice, "hello again")) == "hello again"


def test_a_changed_and_accepted_pair_drops_the_sessions_of_the_old_one() -> None:
    alice, agent = talking_pair()
    renewed = make_peer(11, owner=alice.device.owner_id)
    renewed.device = type(alice.device)(alice.device.owner_id, alice.id, renewed.device.identity)
    renewed.signed = {1: make_signed_prekey(renewed.device, 1, NOW_MS, renewed.random)}
    assert agent.open(renewed, renewed.seal(agent, "new keys")) == "new keys"
    record = agent.record(renewed)
    assert record.peer == renewed.device.identity.public
    assert len(record.sessions) == 1


def test_a_ping_is_due_after_every_50th_message_in_a_row() -> None:
    alice, agent = talking_pair()
    due = []
    for number in range(1, 121):
        sealed = alice.seal(agent, "x")
        if ping_due(alice.record(agent)):
            due.append(number)
    assert due == [50, 100]
    agent.open(alice, sealed)
    alice.open(agent, agent.seal(alice, "pong"))
    assert not ping_due(alice.record(agent))


def test_the_gap_is_counted_over_the_old_chain_and_the_new_one() -> None:
    alice, agent = talking_pair()
    old = [alice.seal(agent, "old") for _ in range(600)]
    agent.open(alice, old[0])
    alice.open(agent, agent.seal(alice, "turns the ratchet"))
    new = [alice.seal(agent, str(number)) for number in range(403)]
    assert reason_of(lambda: agent.try_open(alice, new[402])) is Reason.TOO_MANY_SKIPPED
    assert agent.open(alice, new[401]) == "401"
    assert agent.record(alice).skipped_count() == MAX_SKIPPED_PER_STEP
    assert agent.open(alice, old[599]) == "old"


def test_nothing_but_the_session_and_the_used_key_changes_on_a_late_message() -> None:
    alice, agent = talking_pair()
    sealed = [alice.seal(agent, str(number)) for number in range(5)]
    agent.open(alice, sealed[4])
    before = agent.record(alice)
    agent.open(alice, sealed[1])
    after = agent.record(alice)
    assert after.sessions[0].ratchet == before.sessions[0].ratchet
    assert after.skipped_count() == before.skipped_count() - 1
    assert reason_of(lambda: agent.try_open(alice, sealed[1])) is Reason.KEY_USED


def test_a_new_ratchet_key_is_made_on_the_next_send_only() -> None:
    alice, agent = talking_pair()
    agent.open(alice, alice.seal(agent, "x"))
    current = agent.record(alice).current
    assert current is not None
    assert current.ratchet.own_private is None
    assert current.ratchet.send_chain is None
    agent.seal(alice, "y")
    current = agent.record(alice).current
    assert current is not None
    assert current.ratchet.own_private is not None


def test_the_sessions_that_we_begin_push_out_none_in_which_the_device_may_still_be_read() -> None:
    """As while much of what it has said waits: each of our late answers begins one."""
    alice, agent = make_peer(1), make_peer(2)
    for number in range(MAX_SESSIONS):
        alice.now_ms = NOW_MS + number
        _start_and_deliver(alice, agent)
    of_the_device = [session.id for session in agent.record(alice).sessions]
    for number in range(MAX_OWN_SESSIONS + 1):
        agent.now_ms = NOW_MS + 1_000 + number
        agent.start(alice)
    sessions = agent.record(alice).sessions
    assert [session.id for session in sessions if not session.is_initiator] == of_the_device
    assert len(sessions) == MAX_SESSIONS + MAX_OWN_SESSIONS
