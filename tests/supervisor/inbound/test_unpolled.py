"""What is pushed before the cursor moves: a poll is asked for in time, then pushes wait for it, and what is counted has a bound."""

import pytest

from supervisor.inbound.unpolled import UnpolledPushes
from supervisor.relay.poll_wish import PollWish

pytestmark = pytest.mark.pure


def test_a_poll_is_asked_for_in_time_and_beyond_that_pushes_wait_for_the_cursor() -> None:
    polls = PollWish()
    unpolled = UnpolledPushes(polls, poll_after=2, most_unpolled=4)
    for asked in (0, 1, 1, 2):
        assert not unpolled.must_wait("c")
        unpolled.note("c")
        assert polls.times == asked
    assert unpolled.must_wait("c")
    assert not unpolled.must_wait("another")
    unpolled.polled(has_caught_up=False)
    assert not unpolled.must_wait("c"), "a cursor that cannot move holds nothing up"
    unpolled.polled(has_caught_up=True)
    assert not unpolled.must_wait("c")
    assert len(unpolled) == 0


def test_conversations_whose_pushes_are_counted_are_bounded() -> None:
    polls = PollWish()
    unpolled = UnpolledPushes(polls, most_counted=3)
    for number in range(8):
        unpolled.note(f"c{number}")
        assert len(unpolled) <= 3
    assert polls.times == 2
    for _ in range(3):
        unpolled.note("c7")
    assert polls.times == 2, "who is counted already needs no room"
