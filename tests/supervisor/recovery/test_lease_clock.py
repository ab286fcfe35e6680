"""Whether Redis' clock has jumped, and what only looks so: an answer that was long under way, or lay unread."""

from typing import cast

import pytest
import trio
from trio.testing import MockClock

from bus.steps.store import InboundStore
from bus.transport.client import RedisClient
from supervisor.recovery.lease_clock import LeaseClock

pytestmark = pytest.mark.pure

SLOW_SECONDS = 4.0
"""An answer may take up to five seconds (bus/transport/client.py)."""


class FarRedis:
    """A Redis whose clock runs evenly until it is set, and the way there and back. Always connected."""

    connected_since = 0.0

    def __init__(self) -> None:
        self.ahead_seconds = 1_000_000.0
        self.there_seconds = self.back_seconds = 0.0

    async def now_ms(self) -> int:
        await trio.sleep(self.there_seconds)
        now = self.ahead_seconds + trio.current_time()
        await trio.sleep(self.back_seconds)
        return round(now * 1000)


async def clock_of(redis: FarRedis) -> LeaseClock:
    """One that has looked once, for longer ago than a lease."""
    clock = LeaseClock(cast("RedisClient", redis), cast("InboundStore", redis))
    await clock.read()
    await trio.sleep(clock.lease_seconds)
    await clock.read()
    assert clock.may_judge()
    return clock


@pytest.mark.parametrize("slow", ["there_seconds", "back_seconds"])
async def test_an_answer_that_was_long_under_way_is_no_jump(autojump_clock: MockClock, slow: str) -> None:
    redis = FarRedis()
    clock = await clock_of(redis)
    for seconds in (SLOW_SECONDS, 0.0, SLOW_SECONDS, SLOW_SECONDS, 0.0):
        setattr(redis, slow, seconds)
        await clock.read()
        assert (clock.back_seconds, clock.may_judge()) == (0.0, True)


@pytest.mark.parametrize("slow_seconds", [0.0, SLOW_SECONDS])
async def test_a_clock_that_is_put_forward_is_a_jump_however_long_the_answer_takes(
    autojump_clock: MockClock, slow_seconds: float
) -> None:
    redis = FarRedis()
    clock = await clock_of(redis)
    redis.there_seconds, redis.ahead_seconds = slow_seconds, redis.ahead_seconds + 600
    await clock.read()
    assert not clock.may_judge()
    await trio.sleep(clock.lease_seconds)
    assert clock.may_judge()


@pytest.mark.parametrize("slow_seconds", [0.0, SLOW_SECONDS])
async def test_a_clock_that_is_put_back_is_told_by_at_least_what_is_certain(
    autojump_clock: MockClock, slow_seconds: float
) -> None:
    redis = FarRedis()
    clock = await clock_of(redis)
    redis.back_seconds, redis.ahead_seconds = slow_seconds, redis.ahead_seconds - 600
    await clock.read()
    assert 600 - SLOW_SECONDS - 0.01 <= clock.back_seconds <= 600 + 0.01
    assert clock.may_judge()
