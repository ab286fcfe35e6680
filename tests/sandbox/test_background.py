"""A nursery behind a body: what its tasks raise is not lost, however deep in nurseries of its own the body waits."""

from contextlib import AsyncExitStack

import pytest
import trio

from sandbox.background import background

pytestmark = pytest.mark.pure


class TaskFails(Exception):
    """As a fault of a task would."""


async def fail() -> None:
    raise TaskFails


async def cannot_end() -> None:
    """Is cancelled, and once more where it cleans up."""
    try:
        await trio.sleep_forever()
    finally:
        await trio.lowlevel.checkpoint()


async def wait_beside_a_task_that_fails(depth: int) -> None:
    async with background() as nursery, AsyncExitStack() as within:
        for _ in range(depth):
            (await within.enter_async_context(background())).start_soon(cannot_end)
        nursery.start_soon(fail)
        await trio.sleep_forever()


async def fail_beside_a_task() -> None:
    async with background() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await fail()


@pytest.mark.parametrize("depth", [0, 1, 3])
async def test_what_a_task_raises_ends_the_body_and_comes_out(depth: int) -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        await wait_beside_a_task_that_fails(depth)
    assert raised.group_contains(TaskFails)


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    with pytest.raises(TaskFails):
        await fail_beside_a_task()


async def test_a_cancellation_from_outside_stays_one() -> None:
    with trio.move_on_after(0) as scope:
        async with background() as nursery, background() as inner:
            for one in (nursery, inner):
                one.start_soon(cannot_end)
            await trio.sleep_forever()
    assert scope.cancelled_caught
