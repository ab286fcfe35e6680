"""What comes in waits until the relay's answer to our last message there is noted, and never for long."""

import pytest
import trio
import trio.testing

from supervisor.relay.pending_acks import SETTLE_SECONDS, PendingAcks
from tests.waiting import waiting_for

pytestmark = pytest.mark.pure


async def test_without_an_answer_that_was_heard_nothing_waits(autojump_clock: trio.testing.MockClock) -> None:
    pending = PendingAcks()
    pending.heard("another conversation")
    pending.noted("conversation")
    await pending.wait_noted("conversation")
    assert trio.current_time() == 0


async def test_one_waits_until_the_answer_is_noted(autojump_clock: trio.testing.MockClock) -> None:
    pending = PendingAcks()
    pending.heard("conversation")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pending.wait_noted, "conversation")
        await trio.sleep(1.0)
        pending.noted("conversation")
    assert trio.current_time() == 1.0
    await pending.wait_noted("conversation")
    assert trio.current_time() == 1.0


async def test_an_answer_that_cannot_be_noted_holds_nobody_for_long(autojump_clock: trio.testing.MockClock) -> None:
    pending = PendingAcks()
    pending.heard("conversation")
    pending.heard("conversation")
    with waiting_for("the end of the wait", 2 * SETTLE_SECONDS):
        await pending.wait_noted("conversation")
    assert trio.current_time() == SETTLE_SECONDS
