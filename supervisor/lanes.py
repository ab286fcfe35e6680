"""A queue per conversation (DESIGN P3): a conversation's messages one after the other, different ones never behind each other.

A queue and its task exist only while there is something in it.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

Item = TypeVar("Item")

LANE_LENGTH = 256
MOST_WAITING = 10_000


class LaneFull(Exception):
    """Too much waits already, in this lane or in all of them."""


class Lanes(Generic[Item]):
    """Queues of items, each worked by `work(item)`, which must not raise."""

    def __init__(self, work: Callable[[Item], Awaitable[None]]) -> None:
        self._work = work
        self._lanes: dict[str, deque[Item]] = {}
        self._started: trio.Nursery | None = None
        self.waiting = 0
        """Items in queues or under way."""

    def put(self, lane: str, item: Item, *, even_if_full: bool = False) -> None:
        """Behind whatever is in this lane; raises LaneFull."""
        queue = self._lanes.get(lane)
        if not even_if_full and (self.waiting >= MOST_WAITING or (queue is not None and len(queue) >= LANE_LENGTH)):
            raise LaneFull
        self.waiting += 1
        if queue is not None:
            queue.append(item)
            return
        self._lanes[lane] = deque([item])
        if self._started is not None:
            self._started.start_soon(self._run_lane, lane)

    async def run(self) -> None:
        """Work the lanes until cancelled."""
        async with trio.open_nursery() as nursery:
            for lane in self._lanes:
                nursery.start_soon(self._run_lane, lane)
            self._started = nursery
            await trio.sleep_forever()

    async def _run_lane(self, lane: str) -> None:
        queue = self._lanes[lane]
        while queue:
            item = queue.popleft()
            try:
                await self._work(item)
            finally:
                self.waiting -= 1
        del self._lanes[lane]
