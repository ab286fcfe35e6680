"""When an offer is made, repeated, replaced; what is not sent on any more (PROTOCOL §5.4 "Renegotiation")."""

from __future__ import annotations

import msgspec
import pytest

from crypto.errors import Reason
from crypto.records import MAX_AHEAD_MS, DeviceRecord
from crypto.renewal import (
    DAY_SECONDS,
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    MAX_GIVEN_UP_PER_DAY,
    PREKEY_FRESH_SECONDS,
    Renewal,
    handshake_refused,
    has_open_offer,
    known_bundle,
    needs_bundle,
    never_sent_on,
    never_sent_on_again,
    offered,
    renewal_due,
    session_was_offered,
)
from tests.crypto.builders import NOW_MS, Peer, only_wrap, reason_of, talking_pair

pytestmark = pytest.mark.pure


def _due(record: DeviceRecord, now_ms: int, epoch: int = 0) -> Renewal:
    return renewal_due(record, Reason.NO_SESSION, epoch=epoch, now_ms=now_ms)


def _offering(agent: Peer, alice: Peer) -> DeviceRecord:
    """The agent's record with a session of its own that nobody has answered."""
    agent.now_ms += 1
    agent.start(alice)
    return agent.record(alice)


@pytest.mark.parametrize("reason", list(Reason))
def test_only_the_reasons_of_a_desync_are_answered_by_an_offer(reason: Reason) -> None:
    alice, agent = talking_pair()
    allowed = {"no_session", "unknown_prekey", "too_many_skipped", "key_used", "bad_ciphertext"}
    due = renewal_due(agent.record(alice), reason, epoch=0, now_ms=NOW_MS)
    assert due is (Renewal.NEW if reason in allowed else Renewal.NONE)


def test_offers_wait_ten_seconds_then_twice_as_long_up_to_an_hour() -> None:
    alice, agent = talking_pair()
    record, now_ms, waits = agent.record(alice), NOW_MS, []
    for _ in range(12):
        record = offered(record, _due(record, now_ms), now_ms)
        wait = next(
            seconds
            for seconds in range(1, 2 * LONGEST_WAIT_SECONDS)
            if _due(record, now_ms + 1000 * seconds) is Renewal.NEW
        )
        waits.append(wait)
        now_ms += 1000 * wait
    assert waits[:3] == [FIRST_WAIT_SECONDS, 2 * FIRST_WAIT_SECONDS, 4 * FIRST_WAIT_SECONDS]
    assert waits[-1] == LONGEST_WAIT_SECONDS


def test_the_wait_begins_anew_after_a_day_and_a_clock_set_back_waits_for_nothing() -> None:
    alice, agent = talking_pair()
    record = agent.record(alice)
    for number in range(6):
        record = offered(record, Renewal.NEW, NOW_MS + number)
    next_day = NOW_MS + 1000 * (DAY_SECONDS + 1)
    record = offered(record, _due(record, next_day), next_day)
    assert record.offers.wait_seconds == FIRST_WAIT_SECONDS
    assert _due(record, NOW_MS) is Renewal.NEW


def test_an_unanswered_offer_is_repeated_and_an_answered_one_is_not() -> None:
    alice, agent = talking_pair()
    record = _offering(agent, alice)
    assert _due(record, agent.now_ms) is Renewal.REPEAT
    alice.open(agent, agent.seal(alice, "an offer"))
    agent.open(alice, alice.seal(agent, "an answer"))
    assert _due(agent.record(alice), agent.now_ms) is Renewal.NEW


def test_an_offer_of_an_older_epoch_is_replaced() -> None:
    alice, agent = talking_pair()
    assert _due(_offering(agent, alice), agent.now_ms, epoch=1) is Renewal.NEW


def test_after_twenty_new_sessions_a_day_the_last_is_repeated_only() -> None:
    alice, agent = talking_pair()
    record = agent.record(alice)
    for number in range(20):
        record = offered(record, Renewal.NEW, NOW_MS + number)
    later = NOW_MS + 2000 * LONGEST_WAIT_SECONDS
    assert _due(record, later) is Renewal.NONE
    unanswered = msgspec.structs.replace(_offering(agent, alice), offers=record.offers)
    assert _due(unanswered, later) is Renewal.REPEAT


def test_an_offer_that_is_older_than_what_the_device_sends_on_is_replaced() -> None:
    """The device would go on sending on its own, which is greater."""
    alice, agent = talking_pair()
    record = _offering(agent, alice)
    alice.now_ms += 5_000
    alice.start(agent)
    agent.one_time.clear()
    sealed = alice.seal(agent, "cannot be read")
    assert reason_of(lambda: agent.try_open(alice, sealed)) is Reason.UNKNOWN_PREKEY
    record = handshake_refused(record, only_wrap(alice, sealed), NOW_MS)
    assert record.refused_started == NOW_MS + 5_000
    assert not has_open_offer(record, epoch=0, now_ms=NOW_MS)
    assert _due(record, NOW_MS) is Renewal.NEW
    agent.records[alice.id] = record
    agent.start(alice)
    started = agent.record(alice).current
    assert started is not None
    assert started.started == NOW_MS + 5_001


def test_a_handshake_of_the_far_future_counts_for_nothing() -> None:
    alice, agent = talking_pair()
    alice.now_ms += MAX_AHEAD_MS + 1_000
    alice.start(agent)
    wrap = only_wrap(alice, alice.seal(agent, "from the future"))
    assert handshake_refused(agent.record(alice), wrap, NOW_MS) == agent.record(alice)


@pytest.mark.parametrize("ahead_ms", [2 * MAX_AHEAD_MS, 365 * MAX_AHEAD_MS])
def test_a_session_of_days_when_our_clock_was_ahead_leaves_nobody_deaf_once_it_is_right(ahead_ms: int) -> None:
    """Its handshake is refused until that day comes, and a later one would be too."""
    alice, agent = talking_pair()
    agent.now_ms, agent.epoch = NOW_MS + ahead_ms, 1  # it was started again, and has no witness
    unheard = agent.seal(alice, "from the future")
    assert reason_of(lambda: alice.try_open(agent, unheard)) is Reason.MALFORMED
    agent.now_ms = NOW_MS + 1_000
    assert not has_open_offer(agent.record(alice), epoch=1, now_ms=agent.now_ms)
    assert alice.open(agent, agent.seal(alice, "and now")) == "and now"
    assert agent.open(alice, alice.seal(agent, "heard")) == "heard"
    assert alice.open(agent, agent.seal(alice, "both ways")) == "both ways"
    current = agent.record(alice).current
    assert current is not None
    assert not current.is_unanswered
    assert current.started < NOW_MS + MAX_AHEAD_MS


def test_a_clock_that_is_days_behind_gives_up_no_session_that_was_answered() -> None:
    alice, agent = talking_pair()
    before = agent.record(alice)
    agent.now_ms -= 1_000 * MAX_AHEAD_MS
    assert before.may_send(0, agent.now_ms)
    assert alice.open(agent, agent.seal(alice, "as ever")) == "as ever"
    agent.epoch = 1
    assert alice.open(agent, agent.seal(alice, "started anew")) == "started anew"
    assert agent.open(alice, alice.seal(agent, "heard")) == "heard"
    current = agent.record(alice).current
    assert current is not None
    assert not current.is_unanswered


def test_a_session_that_the_device_has_lost_is_read_with_and_never_sent_with() -> None:
    alice, agent = talking_pair()
    older = agent.record(alice).current
    assert older is not None
    late = alice.seal(agent, "under way")
    agent.records[alice.id] = never_sent_on(agent.record(alice), older.id)
    assert agent.record(alice).current is None
    assert not agent.record(alice).may_send(0, NOW_MS)
    assert agent.open(alice, late) == "under way"
    assert agent.record(alice).current is None
    decoded = DeviceRecord.decode(agent.record(alice).encode())
    assert decoded == agent.record(alice)


def test_sessions_in_which_more_was_sent_than_is_known_are_read_with_so_often_a_day() -> None:
    alice, agent = talking_pair()
    late = alice.seal(agent, "under way")
    for _ in range(MAX_GIVEN_UP_PER_DAY):
        given_up = never_sent_on_again(agent.record(alice), epoch=0, now_ms=agent.now_ms)
        assert given_up.current is None
        assert never_sent_on_again(given_up, epoch=0, now_ms=agent.now_ms) is given_up
        agent.records[alice.id] = given_up
        agent.now_ms += 1
        agent.start(alice)
        assert alice.open(agent, agent.seal(alice, "an offer")) == "an offer"
    assert agent.open(alice, late) == "under way"
    record = agent.record(alice)
    assert never_sent_on_again(record, epoch=0, now_ms=agent.now_ms) is record, "whoever says so could say it all day"
    tomorrow = agent.now_ms + 1000 * DAY_SECONDS
    assert never_sent_on_again(record, epoch=1, now_ms=tomorrow) is record, "it is not sent on anyway"
    assert never_sent_on_again(record, epoch=0, now_ms=tomorrow).current is None


def test_the_smaller_session_is_sent_on_when_the_greater_one_is_lost() -> None:
    """The device's clock is behind: the session that it offers has started earlier than the one that it lost."""
    alice, agent = talking_pair()
    lost = [session.id for session in _offering(agent, alice).sessions]
    alice.records.clear()
    alice.now_ms -= 60_000
    alice.start(agent)
    agent.open(alice, alice.seal(agent, "an offer"))
    for session_id in lost:
        agent.records[alice.id] = never_sent_on(agent.record(alice), session_id)
    assert alice.open(agent, agent.seal(alice, "heard")) == "heard"


def test_the_first_new_session_takes_the_known_prekey_and_the_second_in_a_row_a_fetched_one() -> None:
    alice, agent = talking_pair()
    record = _offering(agent, alice)
    assert not needs_bundle(record, NOW_MS)
    known = known_bundle(record, alice.device.owner_id, alice.id)
    assert known is not None
    assert known.one_time_prekey_id is None
    assert needs_bundle(session_was_offered(record), NOW_MS)
    assert needs_bundle(record, NOW_MS + 1000 * PREKEY_FRESH_SECONDS + 10_000)
    agent.records[alice.id] = session_was_offered(record)
    alice.open(agent, agent.seal(alice, "an offer"))
    agent.open(alice, alice.seal(agent, "an answer"))
    assert not needs_bundle(agent.record(alice), NOW_MS)


def test_a_device_of_which_no_prekey_is_known_needs_a_bundle() -> None:
    assert needs_bundle(DeviceRecord(), NOW_MS)
    assert known_bundle(DeviceRecord(), "owner", "device") is None


def test_a_desync_recovers_by_an_offer() -> None:
    alice, agent = talking_pair()
    agent.records.clear()
    lost = alice.seal(agent, "lost")
    assert reason_of(lambda: agent.try_open(alice, lost)) is Reason.NO_SESSION
    assert _due(agent.record(alice), NOW_MS) is Renewal.NEW
    agent.now_ms += 10
    agent.start(alice)
    assert alice.open(agent, agent.seal(alice, "an offer")) == "an offer"
    assert agent.open(alice, alice.seal(agent, "again")) == "again"


def test_an_unread_record_of_the_first_version_is_understood() -> None:
    """Written by the release before: it knows nothing of offers."""
    _, agent = talking_pair()
    record = next(iter(agent.records.values()))
    version, peer, accepted, _, sessions, dropped, *_ = msgspec.msgpack.decode(record.encode())
    old = msgspec.msgpack.encode([1, peer, accepted, [NOW_MS // 1000], sessions, dropped])
    assert version == 2
    assert DeviceRecord.decode(old) == record
