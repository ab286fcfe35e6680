"""Bounds how many jobs run at once, and lets a job run alone. First come, first served, also for a job that needs every slot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from bus.transport.acquire import acquire


class Slots:
    """The slots of one worker."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._turn = trio.Lock()
        self._freed = trio.Event()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Holds one slot for the block."""
        async with self._take(1):
            yield

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Holds all slots for the block, so that nothing else runs."""
        async with self._take(self._count):
            yield

    @asynccontextmanager
    async def _take(self, wanted: int) -> AsyncIterator[None]:
        await acquire(self._turn)
        try:
            while self._free < wanted:
                self._freed = trio.Event()
                await self._freed.wait()
            self._free -= wanted
        finally:
            self._turn.release()
        try:
            yield
        finally:
            self._free += wanted
            self._freed.set()
