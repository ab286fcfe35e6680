"""Bounds how many jobs run at once, and lets a job run alone. First come, first served, also for a job that needs every slot."""

import trio

from bus.transport.acquire import acquire


class Slots:
    """The slots of one worker."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._turn = trio.Lock()
        self._freed = trio.Event()

    def one(self) -> "Held":
        """Returns a context manager that holds one slot for its block."""
        return Held(self, 1)

    def alone(self) -> "Held":
        """Returns one that holds all slots for its block, so that nothing else runs."""
        return Held(self, self._count)

    async def _take(self, wanted: int) -> None:
        await acquire(self._turn)
        try:
            while self._free < wanted:
                self._freed = trio.Event()
                await self._freed.wait()
            self._free -= wanted
        finally:
            self._turn.release()

    def _give_back(self, held: int) -> None:
        self._free += held
        self._freed.set()


class Held:
    """So many slots for one block. A class and no generator, which costs several times as much: each job holds one."""

    __slots__ = ("_count", "_slots")

    def __init__(self, slots: Slots, count: int) -> None:
        self._slots = slots
        self._count = count

    async def __aenter__(self) -> None:
        await self._slots._take(self._count)

    async def __aexit__(self, *_raised: object) -> None:
        self._slots._give_back(self._count)
