"""What a pool's events become: metrics, and the word to the bus that a dead worker's jobs may go on."""

from collections.abc import Awaitable, Callable

from bus.records.control import Observation
from supervisor.observe.metrics import Metrics
from supervisor.pool.process import WorkerExit

OnDeath = Callable[[WorkerExit], Awaitable[None]]


class WorkerEvents:
    """`on_death` waits for Redis by itself and never raises."""

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
