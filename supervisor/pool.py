"""Keeps N workers running: what ends is started again, later and later while it keeps ending, and everything ends in a drain.

Each place in the pool is a task of its own, so that one that crashes for ever takes nothing from the others. Deaths are told
at once, so that a dead worker's jobs go on without waiting for their leases.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio
from structlog.typing import FilteringBoundLogger

from bus.control import FromWorker, Observation, Ready, StartFailed
from supervisor.process import Stage, WorkerExit, WorkerOrder, WorkerProcess

# Told deaths wait for Redis; at the end of a drain they do not wait for ever.
LAST_DEATHS_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """A pool's size and patience. Backoff doubles from first to last and starts anew after `healthy_seconds` of work."""

    workers: int
    order: WorkerOrder
    drain_seconds: float = 25.0
    backoff_first_seconds: float = 0.5
    backoff_last_seconds: float = 30.0
    healthy_seconds: float = 60.0


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """One worker, as `status` and /readyz show it. Times in seconds, None where it has not said yet."""

    number: int
    consumer: str
    pid: int | None
    stage: Stage
    running: int
    loop_lag_ms: float | None
    rss_bytes: int | None
    jobs_done: int
    jobs_failed: int


class HandlerUnusable(Exception):
    """No worker could ever start, for a reason that trying again does not mend: exit code 78."""

    def __init__(self, failure: StartFailed) -> None:
        place = f" ({failure.file}:{failure.line})" if failure.file else ""
        super().__init__(f"{failure.last_line}{place}")
        self.failure = failure


OnDeath = Callable[[str, bool], Awaitable[None]]
"""Told of each end with the consumer's name and whether it was abnormal; waits for Redis by itself, never raises."""


class Pool:
    """The workers of one supervisor."""

    def __init__(
        self,
        settings: PoolSettings,
        *,
        consumer_of: Callable[[int], str],
        on_death: OnDeath,
        on_observation: Callable[[Observation], None],
        log: FilteringBoundLogger,
    ) -> None:
        """`consumer_of` names the worker of start number 1, 2, …: a name is never used twice."""
        self._settings = settings
        self._consumer_of = consumer_of
        self._on_death = on_death
        self._on_observation = on_observation
        self._log = log
        self._processes: dict[int, WorkerProcess] = {}
        self._failures: dict[int, StartFailed] = {}
        self._reported: set[StartFailed] = set()
        self._was_ready = False
        self._changed = trio.Event()
        self._draining = trio.Event()
        self._ended = trio.Event()
        self._patience = trio.CancelScope()
        self._slots = trio.CancelScope()
        self._starts = 0
        self.restarts = 0

    @property
    def ready(self) -> int:
        """How many workers take jobs."""
        return sum(process.stage is Stage.READY for process in self._processes.values())

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """Every worker process that there is now, by its number."""
        return tuple(_status(number, process) for number, process in sorted(self._processes.items()))

    async def wait_until_ready(self, count: int = 1) -> None:
        """Until `count` workers take jobs."""
        while self.ready < count:
            await self._changed.wait()

    async def run(self) -> None:
        """Until drained. Raises HandlerUnusable if no worker could ever start. Cancelled, it kills all workers."""
        async with trio.open_nursery() as deaths:
            try:
                with self._slots:
                    async with trio.open_nursery() as slots:
                        for number in range(1, self._settings.workers + 1):
                            slots.start_soon(self._keep, number, deaths)
            finally:
                self._ended.set()
            deaths.cancel_scope.deadline = trio.current_time() + LAST_DEATHS_SECONDS
        if self._slots.cancelled_caught:
            raise HandlerUnusable(next(iter(self._failures.values())))

    async def drain(self) -> None:
        """No new jobs; what runs has `drain_seconds`, then it is stopped, then killed. Returns when all are gone."""
        self._draining.set()
        for process in self._processes.values():
            process.drain()
        with self._patience:
            self._patience.deadline = trio.current_time() + self._settings.drain_seconds
            await self._ended.wait()
        for process in self._processes.values():
            self._log.warning("worker: does not drain, stopped", worker=process.consumer)
            process.stop()
        with trio.move_on_after(self._settings.order.times.terminate_seconds):
            await self._ended.wait()
        for process in self._processes.values():
            process.kill()
        await self._ended.wait()

    def hurry(self) -> None:
        """A drain waits no longer for what runs."""
        self._patience.cancel()

    async def _keep(self, number: int, deaths: trio.Nursery) -> None:
        failures = 0
        while not self._draining.is_set():
            exited = await self._live(number)
            if exited is not None:
                deaths.start_soon(self._on_death, exited.consumer, exited.abnormal)
                self._consider(number, exited)
            if self._draining.is_set():
                return
            is_healthy = exited is not None and exited.ready_seconds >= self._settings.healthy_seconds
            failures = 1 if is_healthy else failures + 1
            with trio.move_on_after(self._backoff_seconds(failures)):
                await self._draining.wait()
            self.restarts += 1

    async def _live(self, number: int) -> WorkerExit | None:
        """One process from start to end; None if it could not be forked."""
        self._starts += 1
        process = WorkerProcess(self._settings.order, self._consumer_of(self._starts), self._log)
        try:
            process.start()
        except OSError as error:
            self._log.error("worker: cannot be started", number=number, error=error.strerror)
            return None
        self._processes[number] = process
        try:
            return await process.supervise(self._hear)
        finally:
            del self._processes[number]
            self._notify()

    def _hear(self, message: FromWorker) -> None:
        match message:
            case Ready():
                self._was_ready = True
                self._notify()
            case Observation():
                self._on_observation(message)
            case StartFailed() if message not in self._reported:
                self._reported.add(message)
                self._log.error(
                    "worker: cannot use the handler",
                    handler=self._settings.order.handler,
                    exception=message.exception,
                    at=f"{message.file}:{message.line}",
                    error=message.last_line,
                )

    def _consider(self, number: int, exited: WorkerExit) -> None:
        """What an end means for the pool."""
        if exited.failure is None:
            self._failures.pop(number, None)
            if exited.abnormal:
                self._log.error(
                    "worker: died",
                    worker=exited.consumer,
                    status=exited.returncode,
                    running=len(exited.running),
                )
            return
        self._failures[number] = exited.failure
        if not self._was_ready and len(self._failures) == self._settings.workers:
            self._slots.cancel()

    def _backoff_seconds(self, failures: int) -> float:
        settings = self._settings
        longest = min(settings.backoff_last_seconds, settings.backoff_first_seconds * 2.0 ** min(failures - 1, 30))
        return longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _status(number: int, process: WorkerProcess) -> WorkerStatus:
    beat = process.heartbeat
    return WorkerStatus(
        number=number,
        consumer=process.consumer,
        pid=process.pid,
        stage=process.stage,
        running=len(beat.running) if beat else 0,
        loop_lag_ms=beat.loop_lag_ms if beat else None,
        rss_bytes=beat.rss_bytes if beat else None,
        jobs_done=beat.jobs_done if beat else 0,
        jobs_failed=beat.jobs_failed if beat else 0,
    )
