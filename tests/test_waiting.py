"""A wait in vain says what did not come, and what was seen last."""

from functools import partial

import pytest
import trio.testing

from tests.waiting import until, waiting_for

SECONDS = 7.0


async def test_what_did_not_come_is_said(autojump_clock: trio.testing.MockClock) -> None:
    seen = [1, 2]
    with (
        pytest.raises(AssertionError, match=r"^waited 7 s in vain for the third; seen last: \[1, 2\]$"),
        waiting_for("the third", SECONDS, seen.copy),
    ):
        await trio.sleep_forever()


async def test_what_comes_in_time_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    with waiting_for("the sleep", SECONDS):
        await trio.sleep(SECONDS - 1)


async def test_a_condition_that_does_not_come_true_is_shown(autojump_clock: trio.testing.MockClock) -> None:
    async def false(_number: int) -> bool:
        return False

    seen = [1]
    with pytest.raises(
        AssertionError, match=r"in vain for `await until\(lambda: not seen, SECONDS\)` \(test_waiting.py:\d+\)"
    ):
        await until(lambda: not seen, SECONDS)
    with pytest.raises(AssertionError, match="in vain for `async def false"):
        await until(partial(false, 1), SECONDS)


async def test_a_condition_is_asked_again_until_it_holds(autojump_clock: trio.testing.MockClock) -> None:
    asked: list[int] = []

    async def is_third() -> bool:
        asked.append(1)
        return len(asked) == 3

    await until(is_third, SECONDS)
    assert len(asked) == 3
