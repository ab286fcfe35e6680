"""What a pool is told and what it tells: `PoolSettings`, `PoolEvents`, and the one way in which it gives up.

They become metrics, and the word to the bus that a dead worker's jobs may go on.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from bus.records.control import Observation, StartFailed
from supervisor.observe.metrics import Metrics
from supervisor.pool.autoscale import AutoscaleTimes
from supervisor.pool.crash_loop import CrashLoopLimits
from supervisor.pool.process import WorkerExit
from supervisor.pool.worker_order import WorkerOrder
from supervisor.settings.bounds import Bounds
from supervisor.settings.recycle_limits import RecycleLimits

RELOAD = "reload"
"""Why a worker is replaced by new code: a label of the restart metric."""

OnDeath = Callable[[WorkerExit], Awaitable[None]]
"""Told of every end of a worker. It waits for Redis by itself and never raises."""


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """A pool's size and patience. Backoff doubles from first to last and starts anew after `healthy_seconds` of work.

    `waits_for_code`: a handler that cannot be used is no reason to end, since somebody is about to change it.
    """

    bounds: Bounds
    order: WorkerOrder
    drain_seconds: float = 25.0
    backoff_first_seconds: float = 0.5
    backoff_last_seconds: float = 30.0
    healthy_seconds: float = 60.0
    tend_seconds: float = 1.0
    crash_loop: CrashLoopLimits = field(default_factory=CrashLoopLimits)
    recycle: RecycleLimits = field(default_factory=RecycleLimits)
    autoscale: AutoscaleTimes = field(default_factory=AutoscaleTimes)
    waits_for_code: bool = False


class HandlerUnusable(Exception):
    """No worker could ever start, for a reason that trying again does not mend: exit code 78."""

    def __init__(self, failure: StartFailed) -> None:
        place = f" ({failure.file}:{failure.line})" if failure.file else ""
        super().__init__(f"{failure.last_line}{place}")
        self.failure = failure


class PoolEvents(Protocol):
    """Who hears of what happens in a pool. Nothing here may raise."""

    async def worker_ended(self, exited: WorkerExit) -> None:
        """Called when a worker is gone: what it held may go on. Waits for Redis by itself."""

    def worker_restarts(self, reason: str) -> None:
        """Called when a worker is started in place of one that ended for this: an ExitReason, a Worn, RELOAD or FORK."""

    def observed(self, observation: Observation) -> None:
        """Called with what a worker has measured."""


class WorkerEvents:
    """The PoolEvents of a supervisor: counts them, and tells `on_death` of every end."""

    def __init__(self, metrics: Metrics, on_death: OnDeath) -> None:
        self._metrics = metrics
        self._on_death = on_death

    async def worker_ended(self, exited: WorkerExit) -> None:
        self._metrics.worker_ends.labels(exited.reason.value).inc()
        if exited.abnormal:
            self._metrics.worker_deaths.inc()
        await self._on_death(exited)

    def worker_restarts(self, reason: str) -> None:
        self._metrics.worker_restarts.labels(reason).inc()

    def observed(self, observation: Observation) -> None:
        self._metrics.observe(observation.metric, observation.labels, observation.value)


Waiting = Callable[[], Awaitable[int]]
"""How many jobs no worker has taken; only asked with a MIN:MAX size. Never raises."""


async def nothing_waits() -> int:
    """Returns 0: the answer of a pool of a fixed size, which is never asked."""
    await trio.lowlevel.checkpoint()
    return 0
