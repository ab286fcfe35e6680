"""Works a queue per conversation (DESIGN P3): its messages one after the other, different conversations never behind each other.

A queue exists, and has a task, only while there is something in it. What waits is counted in bytes, in all and by whom.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

import trio

from bus.transport.spare_tasks import SpareTasks
from supervisor.inbound.shares import Shares

Item = TypeVar("Item")

LANE_LENGTH = 256
"""Items that wait in one lane, unless they are put there even if it is full."""

LANE_BYTES: Final = 6 * 1024
"""What a lane's task and queue take, as measured."""


class LaneFull(Exception):
    """Too much waits already: in this lane, of this sender, or in all."""


class Lanes(Generic[Item]):
    """Queues of items, each worked by `work(item)`, which must not raise. `most_bytes`: what may wait in all or be under way."""

    def __init__(
        self, work: Callable[[Item], Awaitable[None]], most_bytes: int, *, lane_length: int = LANE_LENGTH
    ) -> None:
        self._lane_length = lane_length
        self._work = work
        self._lanes: dict[str, deque[tuple[Item, int, tuple[Hashable, ...]]]] = {}
        self._shares = Shares(most_bytes)
        self._started: SpareTasks[str] | None = None
        self.waiting = 0
        """Items in queues or under way."""

    @property
    def taken_bytes(self) -> int:
        """Bytes of what waits or is under way."""
        return self._shares.taken_bytes

    def put(self, lane: str, item: Item, *, size: int, owner: str, even_if_full: bool = False) -> None:
        """Puts an item behind whatever is in this lane. `size` in bytes; `owner`: who sent it. Raises LaneFull."""
        queue = self._lanes.get(lane)
        size += LANE_BYTES if queue is None else 0
        takers = (("lane", lane), ("owner", owner))
        if not even_if_full and not self._admits(queue, size, takers):
            raise LaneFull
        self.waiting += 1
        self._shares.take(size, *takers)
        if queue is not None:
            queue.append((item, size, takers))
            return
        self._lanes[lane] = deque([(item, size, takers)])
        if self._started is not None:
            self._started.start_soon(lane)

    def _admits(
        self, queue: deque[tuple[Item, int, tuple[Hashable, ...]]] | None, size: int, takers: tuple[Hashable, ...]
    ) -> bool:
        return (queue is None or len(queue) < self._lane_length) and self._shares.admits(size, *takers)

    async def run(self) -> None:
        """Works the lanes, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._started = SpareTasks(nursery, self._run_lane)
            for lane in self._lanes:
                self._started.start_soon(lane)
            await trio.sleep_forever()

    async def _run_lane(self, lane: str) -> None:
        queue = self._lanes[lane]
        while queue:
            item, size, takers = queue.popleft()
            try:
                await self._work(item)
            finally:
                self.waiting -= 1
                self._shares.give_back(size, *takers)
            del item
        del self._lanes[lane]
