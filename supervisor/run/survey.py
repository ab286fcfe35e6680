"""Looks around every two seconds: what waits in Redis, which workers live elsewhere, what the processes hold.

The gauges come from here, and two answers for readiness: whether anybody takes jobs, and whether those who should do not (DESIGN P7).
"""

import os
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

import structlog
import trio

from bus.steps.last_backup import dated_ms
from bus.transport.wire import RedisFailed
from bus.views.backlog import Ages, Backlog, ServerFacts
from bus.views.overview import Counts, Overview
from host.proc import command_line, rss_bytes
from supervisor.observe import gauges
from supervisor.observe.gauges import Gauge, Values
from supervisor.observe.health import Check
from supervisor.observe.metrics import Metrics
from supervisor.recovery.redis_watch import RedisWatch
from supervisor.relay.relay_clock import RelayClock
from supervisor.relay.slots import ConnectionSlot
from supervisor.run.all_workers import AllWorkers
from supervisor.run.fullness import Fullness

LOOK_SECONDS = 2.0
SELDOM_EVERY = 15
MOST_REASONS = 50

log = structlog.get_logger()


class Survey:
    """One supervisor's."""

    def __init__(
        self,
        *,
        backlog: Backlog,
        overview: Overview,
        workers: AllWorkers,
        redis_watch: RedisWatch,
        slots: ConnectionSlot,
        fullness: Fullness,
        metrics: Metrics,
        relay_clock: RelayClock,
        on_clock_set: Callable[[], None],
        backup_max_age_seconds: float = 0.0,
    ) -> None:
        """`on_clock_set`: called when our clock was wrong and is right. `backup_max_age_seconds`: of the last backup, 0 for any age."""
        self._backlog = backlog
        self._overview = overview
        self._workers = workers
        self._redis_watch = redis_watch
        self._slots = slots
        self._fullness = fullness
        self._metrics = metrics
        self._relay_clock = relay_clock
        self._clock_fault = ""
        self._on_clock_set = on_clock_set
        self.backup_max_age_seconds = backup_max_age_seconds
        self._last_backup_ms = 0
        self._began_at = time.time()
        self._quarantine: Mapping[str, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        turn, late_seconds = 0, 0.0
        while True:
            measured = self._of_this_process(late_seconds)
            try:
                measured |= await self._of_the_agent(turn)
            except RedisFailed:
                self._workers.redis_is_away()
            self._workers.measure()
            self._say_clock()
            self._metrics.gauges.show(measured)
            turn += 1
            due = trio.current_time() + LOOK_SECONDS
            await trio.sleep_until(due)
            late_seconds = trio.current_time() - due

    def _say_clock(self) -> None:
        """Logs that our clock is wrong, and that it is right again, once for each."""
        before, self._clock_fault = self._clock_fault, self._relay_clock.fault()
        if self._clock_fault and not before:
            log.error(
                "clock: is wrong", reason=self._clock_fault, remedy="timedatectl set-ntp true; docs/runbooks/clocks.md"
            )
        elif before and not self._clock_fault:
            log.info("clock: agrees with the relay's again; what seemed to be of days to come is tried again")
            self._on_clock_set()

    def checks(self) -> tuple[Check, ...]:
        """Whether anything is taken in, and whether jobs are taken."""
        return self._fullness.check(), self._workers.check()

    async def _of_the_agent(self, turn: int) -> dict[Gauge, Values]:
        counts, ages = await self._overview.counts(), await self._backlog.ages()
        self._fullness.consider(counts)
        await self._workers.look(counts.running, ages.untaken)
        if turn % SELDOM_EVERY == 0:
            self._last_backup_ms = dated_ms(await self._overview.last_backup(), self._now_ms())
        if turn % SELDOM_EVERY == 0 or counts.quarantined != sum(self._quarantine.values()):
            self._quarantine = await self._backlog.quarantine()
        return {
            **_waiting(counts, ages, self._now_ms()),
            **self._server(await self._backlog.server()),
            gauges.QUARANTINE: dict(sorted(self._quarantine.items())[:MOST_REASONS]),
            gauges.KEPT_BYTES: await self._overview.bytes_by_kind(),
            gauges.SLOTS_HELD: {"": self._slots.held},
            gauges.WORKERS_ELSEWHERE: {"": len(self._workers.elsewhere)},
            gauges.REDIS_CLOCK: self._clocks(),
            gauges.LAST_BACKUP: {"": self._last_backup_ms / 1000},
        }

    def _now_ms(self) -> float:
        """Returns the time by Redis' clock."""
        return time.time() * 1000 + self._redis_watch.clock_ahead_ms

    def _clocks(self) -> Values:
        worst = max((one.redis_clock_ahead_ms for one in self._workers.elsewhere), key=abs, default=None)
        ahead = {
            "supervisor": self._redis_watch.clock_ahead_ms,
            **({} if worst is None else {"workers elsewhere": worst}),
        }
        return {of: ahead_ms / 1000 for of, ahead_ms in ahead.items()}

    def _of_this_process(self, late_seconds: float) -> dict[Gauge, Values]:
        memory = {"supervisor": float(rss_bytes()), "workers": self._workers.rss_bytes()}
        if (keeper := _keeper_pid()) is not None:
            memory["keeper"] = rss_bytes(keeper)
        return {
            gauges.SLOT: {"": self._slots.number},
            gauges.STANDBY: {"": self._slots.is_standby},
            gauges.PROCESS_MEMORY: memory,
            gauges.LOOP_LAG: {"": max(0.0, late_seconds)},
            gauges.BUILD: {version("hashee-agent"): 1},
            gauges.STARTED: {"": self._began_at},
            gauges.RELAY_CLOCK: {"": self._relay_clock.ahead_seconds()},
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
            gauges.REDIS_FIT: {name: float(not fault) for name, fault in self._redis_watch.faults.items()},
        }


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
