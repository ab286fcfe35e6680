"""Byte budgets: `Shares` bounds what each taker may have waiting, `FreeBytes` lets work wait for some."""

from collections import deque
from collections.abc import Hashable
from typing import Final

import trio

SHARE: Final = 4
"""Nobody may take more than a quarter of what is free: one who floods leaves some to others, and alone comes to take a fifth of all."""


class Shares:
    """Bytes that are taken out of a total, each by several takers (a conversation, a sender)."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._taken: dict[Hashable, int] = {}
        self.taken_bytes = 0

    def admits(self, size: int, *takers: Hashable) -> bool:
        """Whether each of the takers may take `size` bytes more."""
        most = (self._total_bytes - self.taken_bytes) // SHARE
        return all(self._taken.get(taker, 0) + size <= most for taker in takers)

    def take(self, size: int, *takers: Hashable) -> None:
        """Counts `size` bytes more for each taker, whether or not they may."""
        self.taken_bytes += size
        for taker in takers:
            self._taken[taker] = self._taken.get(taker, 0) + size

    def give_back(self, size: int, *takers: Hashable) -> None:
        """Counts `size` bytes less for each taker."""
        self.taken_bytes -= size
        for taker in takers:
            left = self._taken[taker] - size
            if left:
                self._taken[taker] = left
            else:
                del self._taken[taker]


class FreeBytes:
    """Bytes that may be in work at once. Who finds too few free waits, first come, first served; what is larger than all goes alone."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._free_bytes = total_bytes
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    async def take(self, size: int) -> int:
        """Waits until `size` bytes are free and takes them. Returns how many were taken, to be given to `give_back`."""
        size = min(size, self._total_bytes)
        if not self._waiting and size <= self._free_bytes:
            self._free_bytes -= size
            return size
        mine = (size, trio.Event())
        self._waiting.append(mine)
        try:
            await mine[1].wait()
        except trio.Cancelled:
            if mine in self._waiting:
                self._waiting.remove(mine)
                self._let_in()
            else:
                self.give_back(size)  # the turn came between our cancellation and this line
            raise
        return size

    def give_back(self, size: int) -> None:
        """Gives `size` bytes back, and lets in who waits for them."""
        self._free_bytes += size
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free_bytes:
            size, turn = self._waiting.popleft()
            self._free_bytes -= size
            turn.set()


class Reservation:
    """One piece of work's bytes out of those that are free: taken at most once, given back at the end."""

    def __init__(self, free: FreeBytes, size: int) -> None:
        self._free = free
        self._size = size
        self._taken: int | None = None

    async def take(self) -> None:
        """Waits until they are free and takes them, the first time; returns at once after that."""
        if self._taken is None:
            self._taken = await self._free.take(self._size)

    def give_back(self) -> None:
        """Called at the end of the work, whether or not they were taken."""
        if self._taken is not None:
            self._free.give_back(self._taken)
            self._taken = None
