"""Bounds how many jobs run at once: all that have slots, few that are suspected, or one alone. First come, first served, whatever each needs."""

from math import isqrt

import trio

from bus.transport.acquire import acquire


class Slots:
    """The slots of one worker. What runs at once has the same number of strikes: a suspect brings suspicion on nobody else (DESIGN rule 8)."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held = 0
        self._strikes = 0
        self._turn = trio.Lock()
        self._freed = trio.Event()

    def one(self, strikes: int = 0) -> "Held":
        """Returns a context manager that holds a slot for its block, for a job with so many strikes."""
        return Held(self, strikes)

    def most(self, strikes: int) -> int:
        """Returns how many jobs with so many strikes run at once. Of suspects the root of all slots: so both their rounds and each one's company are few."""
        if strikes == 0:
            return self._count
        return 1 if strikes > 0 else isqrt(self._count)

    async def _take(self, strikes: int) -> None:
        await acquire(self._turn)
        try:
            while self._held and (strikes != self._strikes or self._held >= self.most(strikes)):
                self._freed = trio.Event()
                await self._freed.wait()
            self._held += 1
            self._strikes = strikes
        finally:
            self._turn.release()

    def _give_back(self) -> None:
        self._held -= 1
        self._freed.set()


class Held:
    """One slot for one block. A class and no generator, which costs several times as much: each job holds one."""

    __slots__ = ("_slots", "_strikes")

    def __init__(self, slots: Slots, strikes: int) -> None:
        self._slots = slots
        self._strikes = strikes

    async def __aenter__(self) -> None:
        await self._slots._take(self._strikes)

    async def __aexit__(self, *_raised: object) -> None:
        self._slots._give_back()
