"""Runs short work in tasks that are kept for the next: making and ending a task costs twice what waking one does, and a message needs three."""

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Final, Generic, TypeVar

import trio

Item = TypeVar("Item")

MOST_SPARE: Final = 32
"""Tasks that wait for work, of some 2 KiB each: more of them at once are rare, and end with their work."""


class SpareTasks(Generic[Item]):
    """Tasks of one nursery, which ends only when it is cancelled: those that wait do not end by themselves.

    `work(item)` must not raise. All of it runs in the context in which this was made, and has to set anew what it sets there.
    """

    def __init__(self, nursery: trio.Nursery, work: Callable[[Item], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._work = work
        self._context = copy_context()
        self._spare: list[trio.lowlevel.Task] = []
        self._given: dict[trio.lowlevel.Task, Item] = {}

    def start_soon(self, item: Item) -> None:
        """Has `work(item)` run soon, beside whatever runs already."""
        if self._spare:
            task = self._spare.pop()
            self._given[task] = item
            trio.lowlevel.reschedule(task)
        else:
            self._context.run(self._nursery.start_soon, self._run, item)

    async def _run(self, item: Item) -> None:
        while True:
            await self._work(item)
            del item  # or it would be kept until the next comes
            if len(self._spare) >= MOST_SPARE:
                return
            item = await self._next()

    async def _next(self) -> Item:
        task = trio.lowlevel.current_task()

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._spare.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._spare.append(task)
        await trio.lowlevel.wait_task_rescheduled(give_up)
        return self._given.pop(task)
