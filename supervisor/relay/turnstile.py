"""A lock with ranks: the lowest rank goes next, within a rank who came first. For a line that takes one frame at a time."""

import heapq
from itertools import count

import trio


class Turnstile:
    """A lock with ranks. Cancelled while waiting, one leaves the queue."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: list[tuple[int, int, trio.Event]] = []
        self._numbers = count()

    @property
    def is_taken(self) -> bool:
        """Whether somebody holds a turn, so that who comes now has to wait."""
        return self._is_taken

    def turn(self, rank: int) -> "HeldTurn":
        """Returns a context manager that waits for its turn and holds it for the block."""
        return HeldTurn(self, rank)

    async def _wait(self, rank: int) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        mine = (rank, next(self._numbers), trio.Event())
        heapq.heappush(self._waiting, mine)
        try:
            await mine[2].wait()
        except trio.Cancelled:
            if mine in self._waiting:
                self._waiting.remove(mine)
                heapq.heapify(self._waiting)
            else:
                self._pass_on()  # the turn came between our cancellation and this line
            raise

    def _pass_on(self) -> None:
        if self._waiting:
            heapq.heappop(self._waiting)[2].set()
        else:
            self._is_taken = False


class HeldTurn:
    """The turn of one block. A class and no generator, which costs twice as much: each send has a turn."""

    __slots__ = ("_line", "_rank")

    def __init__(self, line: Turnstile, rank: int) -> None:
        self._line = line
        self._rank = rank

    async def __aenter__(self) -> None:
        await self._line._wait(self._rank)

    async def __aexit__(self, *_raised: object) -> None:
        self._line._pass_on()
