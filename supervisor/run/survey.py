"""Looks around every two seconds: what waits in Redis, which workers live elsewhere, what the processes hold.

The gauges come from here, and two answers for readiness: whether anybody takes jobs, and whether those who should do not (DESIGN P7).
"""

import os
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

import trio

from bus.records.presence import Presence
from bus.steps.store import Store
from bus.transport.wire import RedisFailed
from bus.views.backlog import Ages, Backlog, ServerFacts
from bus.views.overview import Counts, Overview
from host.proc import command_line, rss_bytes
from supervisor.observe import gauges
from supervisor.observe.gauges import Gauge, Values
from supervisor.observe.health import Check
from supervisor.observe.metrics import Metrics
from supervisor.pool.places import WorkerStatus
from supervisor.pool.process import Stage
from supervisor.pool.workforce import Workforce
from supervisor.relay.slots import ConnectionSlot
from supervisor.run.fullness import Fullness

LOOK_SECONDS = 2.0
DEAF_SECONDS = 10.0
"""A job that lies for so long while workers have room: they do not hear."""

SELDOM_EVERY = 15
MOST_REASONS = 50


class Survey:
    """One supervisor's."""

    def __init__(
        self,
        *,
        backlog: Backlog,
        overview: Overview,
        workforce: Workforce,
        slots: ConnectionSlot,
        store: Store,
        metrics: Metrics,
        instance: str,
        redis_faults: Callable[[], Mapping[str, str]] = dict,
        redis_clock_ahead_ms: Callable[[], int] = int,
        backup_max_age_seconds: float = 0.0,
    ) -> None:
        """`redis_faults`: of each setting of Redis that is watched, what is wrong with it, empty for nothing. `redis_clock_ahead_ms`: of
        this process' clock. `backup_max_age_seconds`: of the last backup, 0 for any age.
        """
        self._backlog = backlog
        self._overview = overview
        self._workforce = workforce
        self._pool = workforce.pool
        self._slots = slots
        self._fullness = Fullness(store)
        self._metrics = metrics
        self._instance = instance
        self._redis_faults = redis_faults
        self._redis_clock_ahead_ms = redis_clock_ahead_ms
        self.backup_max_age_seconds = backup_max_age_seconds
        self._last_backup_ms = 0
        self._began_at = time.time()
        self._elsewhere: tuple[Presence, ...] = ()
        self._quarantine: Mapping[str, int] = {}
        self._deaf_seconds = 0.0
        self._counted: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        turn, late_seconds = 0, 0.0
        while True:
            measured = self._of_this_process(late_seconds)
            try:
                measured |= await self._of_the_agent(turn)
            except RedisFailed:
                self._elsewhere, self._deaf_seconds = (), 0.0  # not known; readiness says that Redis is away
            self._workforce.measure()
            self._count_attempts()
            self._metrics.gauges.show(measured)
            turn += 1
            due = trio.current_time() + LOOK_SECONDS
            await trio.sleep_until(due)
            late_seconds = trio.current_time() - due

    @property
    def elsewhere(self) -> tuple[Presence, ...]:
        """The agent's workers under another supervisor or none, as they said themselves."""
        return self._elsewhere

    def checks(self) -> tuple[Check, ...]:
        """Whether anything is taken in, and whether jobs are taken."""
        return self._fullness.check(), self.workers_check()

    def workers_check(self) -> Check:
        """Whether jobs are taken: by workers of our own if there should be any, else by those elsewhere."""
        ready, elsewhere, loop = self._pool.ready, len(self._elsewhere), self._pool.crash_loop
        detail = f"{ready} ready" + (f", {elsewhere} elsewhere" if elsewhere else "") + (f"; {loop}" if loop else "")
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

    async def _of_the_agent(self, turn: int) -> dict[Gauge, Values]:
        counts, ages = await self._overview.counts(), await self._backlog.ages()
        self._fullness.consider(counts)
        self._elsewhere = await self._backlog.workers_elsewhere(self._instance)
        self._deaf_seconds = ages.untaken if counts.running < self._room() else 0.0
        if turn % SELDOM_EVERY == 0:
            backup = await self._overview.last_backup()
            self._last_backup_ms = 0 if backup is None else backup.made_ms
        if turn % SELDOM_EVERY == 0 or counts.quarantined != sum(self._quarantine.values()):
            self._quarantine = await self._backlog.quarantine()
        return {
            **_waiting(counts, ages, time.time() * 1000 + self._redis_clock_ahead_ms()),
            **self._server(await self._backlog.server()),
            gauges.QUARANTINE: dict(sorted(self._quarantine.items())[:MOST_REASONS]),
            gauges.KEPT_BYTES: await self._overview.bytes_by_kind(),
            gauges.SLOTS_HELD: {"": self._slots.held},
            gauges.WORKERS_ELSEWHERE: {"": len(self._elsewhere)},
            gauges.REDIS_CLOCK: self._clocks(),
            gauges.LAST_BACKUP: {"": self._last_backup_ms / 1000},
        }

    def _clocks(self) -> Values:
        worst = max((one.redis_clock_ahead_ms for one in self._elsewhere), key=abs, default=None)
        ahead = {"supervisor": self._redis_clock_ahead_ms(), **({} if worst is None else {"workers elsewhere": worst})}
        return {of: ahead_ms / 1000 for of, ahead_ms in ahead.items()}

    def _of_this_process(self, late_seconds: float) -> dict[Gauge, Values]:
        workers = sum(status.rss_bytes or 0 for status in self._pool.statuses())
        memory = {"supervisor": float(rss_bytes()), "workers": workers}
        if (keeper := _keeper_pid()) is not None:
            memory["keeper"] = rss_bytes(keeper)
        return {
            gauges.SLOT: {"": self._slots.number},
            gauges.STANDBY: {"": self._slots.is_standby},
            gauges.PROCESS_MEMORY: memory,
            gauges.LOOP_LAG: {"": max(0.0, late_seconds)},
            gauges.BUILD: {version("hashee-agent"): 1},
            gauges.STARTED: {"": self._began_at},
            gauges.BACKUP_MAX_AGE: {"": self.backup_max_age_seconds},
        }

    def _server(self, facts: ServerFacts) -> dict[Gauge, Values]:
        numbers = {
            gauges.REDIS_MEMORY: facts.memory_bytes,
            gauges.REDIS_LIMIT: facts.limit_bytes,
            gauges.REDIS_EVICTED: facts.evicted_keys,
        }
        return {
            **{gauge: {"": value} for gauge, value in numbers.items() if value is not None},
            gauges.REDIS_FIT: {name: float(not fault) for name, fault in self._redis_faults().items()},
        }

    def _room(self) -> int:
        """How many jobs the workers can run at a time."""
        ours = sum(one.concurrency for one in self._pool.statuses() if one.stage is Stage.READY)
        return ours + sum(one.concurrency for one in self._elsewhere)

    def _count_attempts(self) -> None:
        """What workers count since their start becomes one counter; one that is gone keeps what it had added."""
        workers: list[WorkerStatus | Presence] = [*self._pool.statuses(), *self._elsewhere]
        counted: dict[str, tuple[int, int]] = {}
        for worker in workers:
            done, failed = self._counted.get(worker.consumer, (0, 0))
            self._metrics.job_attempts.labels("done").inc(max(0, worker.jobs_done - done))
            self._metrics.job_attempts.labels("failed").inc(max(0, worker.jobs_failed - failed))
            counted[worker.consumer] = (worker.jobs_done, worker.jobs_failed)
        self._counted = counted


def _waiting(counts: Counts, ages: Ages, redis_ms: float) -> dict[Gauge, Values]:
    numbers: dict[Gauge, float] = {
        gauges.JOBS_QUEUED: counts.queued,
        gauges.JOBS_WAITING: ages.in_mailboxes,
        gauges.JOBS_RUNNING: counts.running,
        gauges.JOBS_DUE: counts.due,
        gauges.OLDEST_UNTAKEN: ages.untaken,
        gauges.OLDEST_BUSY: ages.busy,
        gauges.REPLIES_UNSENT: counts.unsent,
        gauges.REPLIES_UNACKNOWLEDGED: counts.unacknowledged,
        gauges.OUTBOX_OLDEST: ages.unacknowledged,
        gauges.DEAD_LETTERS: counts.dead_letters,
        gauges.HELD_NOTES: counts.notes,
        gauges.HELD_SENDERS: counts.held_senders,
        gauges.TIMERS: counts.timers,
        gauges.TIMERS_OVERDUE: max(0.0, (redis_ms - counts.next_timer_ms) / 1000) if counts.next_timer_ms else 0.0,
    }
    return {gauge: {"": value} for gauge, value in numbers.items()}


def _keeper_pid() -> int | None:
    """Our parent, if that is a keeper."""
    parent = os.getppid()
    try:
        title = command_line(parent)
    except OSError:
        return None
    return parent if title.startswith(b"hashee-agent: keeper") else None
