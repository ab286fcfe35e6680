"""Work runs beside each other in tasks that are used again, each in the same context."""

from contextvars import ContextVar

import pytest
import trio
import trio.testing

from bus.transport.spare_tasks import MOST_SPARE, SpareTasks
from tests.waiting import waiting_for

pytestmark = pytest.mark.pure


class Work:
    """Work that can be held up, and notes which task has done it."""

    def __init__(self) -> None:
        self.tasks: dict[int, trio.lowlevel.Task] = {}
        self.go_on = trio.Event()
        self.done: list[int] = []

    async def __call__(self, number: int) -> None:
        self.tasks[number] = trio.lowlevel.current_task()
        await self.go_on.wait()
        self.done.append(number)


async def test_one_task_does_one_thing_after_another() -> None:
    work = Work()
    work.go_on.set()
    async with trio.open_nursery() as nursery:
        tasks = SpareTasks(nursery, work)
        for number in range(3):
            tasks.start_soon(number)
            await trio.testing.wait_all_tasks_blocked()
        assert len(set(work.tasks.values())) == 1
        assert work.done == [0, 1, 2]
        nursery.cancel_scope.cancel()


async def test_what_is_begun_at_once_runs_beside_each_other_and_no_more_tasks_are_kept_than_may_be() -> None:
    work, many = Work(), 2 * MOST_SPARE
    async with trio.open_nursery() as nursery:
        tasks = SpareTasks(nursery, work)
        for number in range(many):
            tasks.start_soon(number)
        await trio.testing.wait_all_tasks_blocked()
        assert len(set(work.tasks.values())) == many
        work.go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(work.done) == list(range(many))
        assert len(nursery.child_tasks) == MOST_SPARE
        nursery.cancel_scope.cancel()


async def test_it_ends_when_it_is_cancelled_whether_or_not_there_is_work() -> None:
    work = Work()
    with waiting_for("the end of all tasks", 5):
        async with trio.open_nursery() as nursery:
            tasks = SpareTasks(nursery, work)
            tasks.start_soon(1)
            work.go_on.set()
            await trio.testing.wait_all_tasks_blocked()
            work.go_on = trio.Event()
            tasks.start_soon(2)  # by the one that waits
            tasks.start_soon(3)
            nursery.cancel_scope.cancel()
    assert work.done == [1]


async def test_work_runs_in_the_context_of_its_maker_not_of_who_brings_it() -> None:
    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    seen: list[str] = []

    async def work(number: int) -> None:
        seen.append(whose.get())
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        tasks = SpareTasks(nursery, work)
        whose.set("the bringer's")
        for number in range(2):
            tasks.start_soon(number)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen == ["nobody's", "nobody's"]
