"""Tells liveness (our event loop turns) and readiness (the whole path works, else the reason) of this process (DESIGN P7).

The event loop writes a snapshot twice a second; the HTTP thread only reads it, so that a stuck loop is seen from outside.
"""

import time
from collections.abc import Callable

import msgspec
import trio

TICK_SECONDS = 0.5
STUCK_SECONDS = 10.0
SILENT_SECONDS = 20.0


class Check(msgspec.Struct, frozen=True):
    """One thing that must hold: `ok`, or in `detail` the reason why it does not."""

    name: str
    ok: bool
    detail: str


class HealthSnapshot(msgspec.Struct, frozen=True):
    """The state at one turn of the event loop. `turned_at`: by time.monotonic()."""

    turned_at: float
    checks: tuple[Check, ...]
    dead_threads: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Returns whether every check holds."""
        return all(check.ok for check in self.checks)


class Health:
    """Takes snapshots, and judges the latest one by its age too."""

    def __init__(self, *, tick_seconds: float = TICK_SECONDS, stuck_seconds: float = STUCK_SECONDS) -> None:
        """`tick_seconds`: between two snapshots. `stuck_seconds`: the age of a snapshot from which on the loop counts as stuck."""
        self._tick_seconds = tick_seconds
        self._stuck_seconds = stuck_seconds
        self._latest = HealthSnapshot(time.monotonic(), (Check("start", ok=False, detail="starting"),))

    async def run(
        self,
        checks: Callable[[], tuple[Check, ...]],
        dead_threads: Callable[[], list[str]],
        show: Callable[[tuple[Check, ...]], None] | None = None,
    ) -> None:
        """Takes snapshots until cancelled. `show`: called with the checks of each."""
        while True:
            self._latest = HealthSnapshot(time.monotonic(), checks(), tuple(dead_threads()))
            if show is not None:
                show(self._latest.checks)
            await trio.sleep(self._tick_seconds)

    def liveness(self) -> Check:
        """Returns whether our own loops turn: the event loop, and the threads that talk to Redis."""
        latest = self._latest
        behind = time.monotonic() - latest.turned_at
        if latest.dead_threads:
            return Check("loop", ok=False, detail=f"threads have ended: {', '.join(latest.dead_threads)}")
        return Check("loop", ok=behind < self._stuck_seconds, detail=f"last turn {behind:.1f} s ago")

    def readiness(self) -> tuple[Check, ...]:
        """Returns every check, that of the event loop first."""
        return (self.liveness(), *self._latest.checks)
