"""Byte budgets: `Shares` bounds what each holder may have waiting, `Room` lets work wait for free bytes."""

from collections import deque
from collections.abc import Hashable
from typing import Final

import trio

SHARE: Final = 4
"""Nobody may take more than a quarter of what is free: one who floods leaves room to others, and alone comes to hold a fifth of all."""


class Shares:
    """Bytes that are held out of a total, each by several holders (a conversation, a sender)."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._held: dict[Hashable, int] = {}
        self.held_bytes = 0

    def admits(self, size: int, *holders: Hashable) -> bool:
        """Whether each of the holders may hold `size` bytes more."""
        room = (self._total_bytes - self.held_bytes) // SHARE
        return all(self._held.get(holder, 0) + size <= room for holder in holders)

    def take(self, size: int, *holders: Hashable) -> None:
        """Counts `size` bytes more for each holder, whether or not they may."""
        self.held_bytes += size
        for holder in holders:
            self._held[holder] = self._held.get(holder, 0) + size

    def give_back(self, size: int, *holders: Hashable) -> None:
        """Counts `size` bytes less for each holder."""
        self.held_bytes -= size
        for holder in holders:
            left = self._held[holder] - size
            if left:
                self._held[holder] = left
            else:
                del self._held[holder]


class Room:
    """Bytes that may be in work at once. Who finds too few free waits, first come, first served; what is larger than all goes alone."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._free_bytes = total_bytes
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    async def enter(self, size: int) -> int:
        """Waits until `size` bytes are free and takes them. Returns how many were taken, to be given to `leave`."""
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
                self.leave(size)  # the turn came between our cancellation and this line
            raise
        return size

    def leave(self, size: int) -> None:
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
    """One piece of work's bytes in a room: taken at most once, given back at the end."""

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self._size = size
        self._taken: int | None = None

    async def take(self) -> None:
        """Waits for room and takes it, the first time; returns at once after that."""
        if self._taken is None:
            self._taken = await self._room.enter(self._size)

    def give_back(self) -> None:
        """Called at the end of the work, whether or not room was taken."""
        if self._taken is not None:
            self._room.leave(self._taken)
            self._taken = None
