"""Bytes that wait and bytes in work: who may still come, who waits, and that nothing is ever lost count of."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from host.budgets import MIB, OPENING_COST, READING_COST, Budgets, IntakeBudgets
from supervisor.inbound.shares import FreeBytes, Reservation, Shares
from tests.waiting import waiting_for

pytestmark = pytest.mark.pure

AT_MOST_SECONDS = 5.0
"""Of the mock clock, which jumps when all wait: who waits for ever has failed."""

offers = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 300), st.booleans()), max_size=200)


@given(offers)
def test_no_total_is_exceeded_and_nobody_takes_more_than_a_quarter_of_what_was_free(
    offered: list[tuple[str, int, bool]],
) -> None:
    shares, taken_by = Shares(1000), list[tuple[str, int]]()
    for taker, size, gives_back in offered:
        of_taker = sum(taken for other, taken in taken_by if other == taker)
        free = 1000 - sum(taken for _, taken in taken_by)
        if shares.admits(size, taker):
            assert of_taker + size <= free / 4
            shares.take(size, taker)
            taken_by.append((taker, size))
        if gives_back and taken_by:
            other, taken = taken_by.pop(0)
            shares.give_back(taken, other)
        assert shares.taken_bytes == sum(taken for _, taken in taken_by) <= 1000
    for taker, taken in taken_by:
        shares.give_back(taken, taker)
    assert shares.taken_bytes == 0
    assert all(shares.admits(250, taker) for taker in "abcdef"), "nothing is counted for anybody"


@pytest.mark.parametrize("limit_mib", [64, 256, 512, 1024, 65_536])
def test_the_stages_together_stay_within_what_the_intake_may_hold_and_admit_the_largest_frame(limit_mib: int) -> None:
    intake = Budgets.of(limit_mib * MIB).intake_bytes
    stages = IntakeBudgets.of(intake)
    at_worst = stages.lanes_bytes + OPENING_COST * stages.opening_bytes + READING_COST * stages.page_bytes
    assert at_worst <= intake
    assert stages.page_bytes > 2 * MIB
    assert limit_mib < 256 or Shares(stages.lanes_bytes).admits(int(READING_COST * MIB) + 8192, "one")


def test_one_who_floods_leaves_room_to_a_newcomer() -> None:
    shares = Shares(1000)
    while shares.admits(10, "flood"):
        shares.take(10, "flood")
    assert shares.taken_bytes == 200
    assert shares.admits(200, "newcomer")


def test_a_holder_of_two_kinds_is_bounded_by_both() -> None:
    shares = Shares(1000)
    for number in range(100):
        if shares.admits(10, ("lane", number), ("owner", "one")):
            shares.take(10, ("lane", number), ("owner", "one"))
    assert shares.taken_bytes == 200


async def test_who_finds_no_room_waits_first_come_first_served_and_one_too_large_goes_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with waiting_for("everybody to have been at work", AT_MOST_SECONDS):
        free, order = FreeBytes(10), list[int]()

        async def work(number: int, size: int) -> None:
            taken = await free.take(size)
            order.append(number)
            await trio.lowlevel.checkpoint()
            free.give_back(taken)

        async with trio.open_nursery() as nursery:
            first = trio.CancelScope()

            async def hold() -> None:
                with first:
                    taken = await free.take(6)
                    try:
                        await trio.sleep_forever()
                    finally:
                        free.give_back(taken)

            nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked()
            for number, size in enumerate((100, 4, 7), start=1):
                nursery.start_soon(work, number, size)
                await trio.testing.wait_all_tasks_blocked()
            assert order == []  # the small ones do not overtake: the large one would never come
            first.cancel()
        assert order == [1, 2, 3]
        assert await free.take(10) == 10


async def test_who_is_cancelled_while_waiting_holds_nobody_up_and_takes_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with waiting_for("the free bytes to let the next in", AT_MOST_SECONDS):
        free = FreeBytes(10)
        taken = await free.take(10)
        entered = trio.Event()

        async def enter() -> None:
            free.give_back(await free.take(1))
            entered.set()

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                scope.cancel()
                await free.take(10)
            nursery.start_soon(enter)
            await trio.testing.wait_all_tasks_blocked()
            free.give_back(taken)
            await entered.wait()

            taken = await free.take(10)
            late = trio.CancelScope()

            async def cancelled_at_its_turn() -> None:
                with late:
                    await free.take(10)

            nursery.start_soon(cancelled_at_its_turn)
            await trio.testing.wait_all_tasks_blocked()
            late.cancel()
            free.give_back(taken)  # its turn, before it has run
        assert await free.take(10) == 10


async def test_who_is_cancelled_at_the_head_of_those_who_wait_lets_in_who_fits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    free, large, has_entered = FreeBytes(10), trio.CancelScope(), trio.Event()

    async def enter_large() -> None:
        with large:
            await free.take(10)

    async def enter_small() -> None:
        await free.take(4)
        has_entered.set()

    assert await free.take(6) == 6
    async with trio.open_nursery() as nursery:
        for enter in (enter_large, enter_small):
            nursery.start_soon(enter)
            await trio.testing.wait_all_tasks_blocked()
        assert not has_entered.is_set()
        large.cancel()
        with waiting_for("the free bytes to let the next in, after the large one gave up", AT_MOST_SECONDS):
            await has_entered.wait()


async def test_a_place_is_taken_once_and_given_back_whether_or_not_it_was_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with waiting_for("the free bytes to let in who gave back before", AT_MOST_SECONDS):
        free = FreeBytes(10)
        place = Reservation(free, 6)
        place.give_back()
        await place.take()
        await place.take()
        assert await free.take(4) == 4
        place.give_back()
        place.give_back()
        assert await free.take(6) == 6
