"""The places of a pool, and the lives in them: in each place one worker takes jobs, and now and then its successor comes up."""

from dataclasses import dataclass, field

import trio

from bus.records.control import StartFailed
from host.children import RestartBackoff
from supervisor.pool.process import Stage, WorkerExit, WorkerProcess
from supervisor.pool.worker_order import WorkerOrder
from supervisor.settings.recycle_limits import RecycleLimits


@dataclass(eq=False)
class Life:
    """One worker process. `settled` is set when it takes jobs, or has ended. `exit`: how it ended, once it has.

    `is_successor`: it works beside the one whose place it will take. `rest_until`: before that it is not replaced for being worn.
    """

    process: WorkerProcess
    number: int
    order: WorkerOrder
    limits: RecycleLimits
    is_successor: bool
    settled: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    exit: WorkerExit | None = None
    rest_until: float = 0.0

    @property
    def is_ready(self) -> bool:
        return self.process.stage is Stage.READY

    def retire(self) -> None:
        """Lets it finish and go. One that still imports has no job and nothing to finish: it is killed."""
        if self.process.stage is Stage.STARTING and not self.process.loop_runs:
            self.process.kill()
        else:
            self.process.drain()


@dataclass(eq=False)
class Place:
    """One place of the pool. `life`: who takes its jobs, None between two; the next one starts at `start_at`.

    `ended_by`: why the last one ended, for the restart metric; empty before the first. `failure`: why the handler could not be used by the
    last one. `left`: the pool has become smaller.
    """

    number: int
    backoff: RestartBackoff
    start_at: float = 0.0
    life: Life | None = None
    ended_by: str = ""
    failure: StartFailed | None = None
    left: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """One worker, as `status` and /readyz show it. Times in seconds, None where it has not said yet."""

    number: int
    consumer: str
    pid: int | None
    stage: Stage
    uptime_seconds: float
    running: int
    concurrency: int
    loop_lag_ms: float | None
    rss_bytes: int | None
    jobs_done: int
    jobs_failed: int
    trouble: str = ""
    """What keeps it from taking jobs or from keeping them; empty when nothing does."""
    lines_passed_over: int = 0
    """How many of its messages this release does not know."""


def status_of(life: Life, now: float) -> WorkerStatus:
    beat = life.process.heartbeat
    return WorkerStatus(
        number=life.number,
        consumer=life.process.consumer,
        pid=life.process.pid,
        stage=life.process.stage,
        uptime_seconds=round(now - life.process.began_at, 1),
        running=len(beat.running) if beat else 0,
        concurrency=life.order.concurrency,
        loop_lag_ms=round(beat.loop_lag_ms, 1) if beat and beat.loop_lag_ms is not None else None,
        rss_bytes=beat.rss_bytes if beat else None,
        jobs_done=beat.jobs_done if beat else 0,
        jobs_failed=beat.jobs_failed if beat else 0,
        trouble=beat.trouble if beat else "",
        lines_passed_over=life.process.passed_over,
    )


def use_of(place: Place) -> tuple[bool, int, int]:
    """Returns the sort key for whom to let go first: who does not work, then who has least to do, then the last."""
    life = place.life
    beat = life.process.heartbeat if life is not None else None
    return (life is not None and life.process.stage is Stage.READY, len(beat.running) if beat else 0, -place.number)


def why_not(exited: WorkerExit) -> str:
    """Returns why a successor did not come up, in words for the owner."""
    failure = exited.failure
    if failure is None:
        return f"the new worker ended with status {exited.returncode} ({exited.reason.value})"
    return f"{failure.last_line} ({failure.file}:{failure.line})" if failure.file else failure.last_line
