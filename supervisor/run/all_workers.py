"""The agent's workers, those of this supervisor and those elsewhere: do they take jobs, and how many attempts have they ended?"""

from bus.records.presence import Presence
from bus.views.backlog import Backlog
from supervisor.observe.health import Check
from supervisor.observe.metrics import Metrics
from supervisor.pool.places import WorkerStatus
from supervisor.pool.process import Stage
from supervisor.pool.workforce import Workforce

DEAF_SECONDS = 10.0
"""A job that lies for so long while workers have room: they do not hear."""


class AllWorkers:
    """As one supervisor sees them; `instance` is its own. `elsewhere`: under another supervisor or none, as they said themselves."""

    def __init__(self, workforce: Workforce, backlog: Backlog, metrics: Metrics, instance: str) -> None:
        self._workforce = workforce
        self._pool = workforce.pool
        self._backlog = backlog
        self._metrics = metrics
        self._instance = instance
        self.elsewhere: tuple[Presence, ...] = ()
        self._deaf_seconds = 0.0
        self._counted: dict[str, tuple[int, int]] = {}

    async def look(self, running: int, untaken_seconds: float) -> None:
        """Reads who is elsewhere. `running`: jobs; `untaken_seconds`: how long the oldest has lain in the stream. Raises RedisFailed."""
        self.elsewhere = await self._backlog.workers_elsewhere(self._instance)
        self._deaf_seconds = untaken_seconds if running < self._most_running() else 0.0

    def redis_is_away(self) -> None:
        """Forgets what Redis said: it is not known now, and readiness says that Redis is away."""
        self.elsewhere, self._deaf_seconds = (), 0.0

    def check(self) -> Check:
        """Whether jobs are taken: by workers of our own if there should be any, else by those elsewhere."""
        ready, elsewhere, loop = self._pool.ready, len(self.elsewhere), self._pool.crash_loop
        detail = f"{ready} ready" + (f", {elsewhere} elsewhere" if elsewhere else "") + (f"; {loop}" if loop else "")
        if not (ready or loop) and (end := self._pool.not_begun):
            detail += f"; the last one could not begin: {end}"
        if not (self._pool.target or elsewhere):
            detail += "; HASHEE_WORKERS is 0 here, and no worker elsewhere has joined"
        if self._pool.start_problem:
            detail += f"; no other can be started: {self._pool.start_problem}"
        if self._deaf_seconds >= DEAF_SECONDS:
            return Check("workers", ok=False, detail=f"{detail}; a job was not taken for {self._deaf_seconds:.0f} s")
        if ready and not elsewhere and (trouble := self._trouble_of_all()):
            return Check("workers", ok=False, detail=f"{detail}; none can work: {trouble}")
        return Check("workers", ok=ready > 0 if self._pool.target else elsewhere > 0, detail=detail)

    def _trouble_of_all(self) -> str:
        """What keeps every worker of ours from its work in Redis; empty while one works."""
        troubles = [one.trouble for one in self._pool.statuses() if one.stage is Stage.READY]
        return troubles[0] if all(troubles) and troubles else ""

    def _most_running(self) -> int:
        """How many jobs the workers can run at a time."""
        ours = sum(one.concurrency for one in self._pool.statuses() if one.stage is Stage.READY)
        return ours + sum(one.concurrency for one in self.elsewhere)

    def rss_bytes(self) -> int:
        """The memory of our own."""
        return sum(status.rss_bytes or 0 for status in self._pool.statuses())

    def measure(self) -> None:
        """Sets the metrics to what they are now."""
        self._workforce.measure()
        self._count_attempts()

    def _count_attempts(self) -> None:
        """What workers count since their start becomes one counter; one that is gone keeps what it had added."""
        workers: list[WorkerStatus | Presence] = [*self._pool.statuses(), *self.elsewhere]
        counted: dict[str, tuple[int, int]] = {}
        for worker in workers:
            done, failed = self._counted.get(worker.consumer, (0, 0))
            self._metrics.job_attempts.labels("done").inc(max(0, worker.jobs_done - done))
            self._metrics.job_attempts.labels("failed").inc(max(0, worker.jobs_failed - failed))
            counted[worker.consumer] = (worker.jobs_done, worker.jobs_failed)
        self._counted = counted
