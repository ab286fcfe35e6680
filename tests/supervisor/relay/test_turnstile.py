"""Whole messages before deltas before typing, when the line is slow."""

import pytest
import trio
import trio.testing

from supervisor.relay.turnstile import Turnstile
from tests.waiting import waiting_for

pytestmark = pytest.mark.pure


async def passed(ranks: list[int], *, cancelled: int | None = None) -> list[int]:
    """In which order those come through who have waited behind one that is on the line; `cancelled` gives up before."""
    turnstile, order, scope = Turnstile(), list[int](), trio.CancelScope()

    async def wait(number: int) -> None:
        async with turnstile.turn(ranks[number]):
            order.append(number)
            await trio.lowlevel.checkpoint()

    async def give_up(number: int) -> None:
        with scope:
            await wait(number)

    async with trio.open_nursery() as nursery, turnstile.turn(0):
        for number in range(len(ranks)):
            nursery.start_soon(give_up if number == cancelled else wait, number)
            await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
    return order


async def test_the_lowest_rank_goes_first_and_within_a_rank_the_first_that_came() -> None:
    assert await passed([2, 1, 0, 1, 0]) == [2, 4, 1, 3, 0]


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_one_that_gives_up_waiting_holds_up_nobody(cancelled: int) -> None:
    assert await passed([1, 0, 1], cancelled=cancelled) == [n for n in (1, 0, 2) if n != cancelled]


async def test_one_that_gives_up_as_its_turn_comes_passes_it_on() -> None:
    turnstile, scope, later = Turnstile(), trio.CancelScope(), trio.Event()

    async def give_up() -> None:
        with scope:
            async with turnstile.turn(0):
                raise AssertionError("it was cancelled before")

    async def come_later() -> None:
        async with turnstile.turn(1):
            later.set()

    async with trio.open_nursery() as nursery:
        async with turnstile.turn(0):
            nursery.start_soon(give_up)
            nursery.start_soon(come_later)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()  # and, before that is delivered to the task, the turn is passed to it
        with waiting_for("the later one's turn", 5):
            await later.wait()
