"""Offers again, once a second, jobs and replies of dead or silent processes, and starts failed jobs that are due (DESIGN rules 6 and 7).

A known death (a process of this host that is gone) is acted on at once; silence only when every holder has had time to renew
(supervisor/recovery/lease_clock.py).
"""

from typing import Protocol

import msgspec
import structlog
import trio

from bus.records.records import BadRecord
from bus.steps.recovery import HeldEntries, Pending, Reclaim, Reclaimed, Recovery
from bus.transport.client import RedisClient
from bus.transport.wire import RedisFailed
from bus.views.trace import KEPT_SECONDS
from host.instance import Instance
from supervisor.observe.metrics import Metrics
from supervisor.recovery.lease_clock import LeaseClock
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.relay.own_words import DeclaredWords

INTERVAL_SECONDS = 1.0
RECLAIMER_LEASE_SECONDS = 5.0
UPKEEP_EVERY = 60
SHOW_EVERY = 3  # turns of a second: typing is shown for 5 s
AUDIT_AFTER_MS = 60_000  # conversations that have been busy for so long are audited

MOST_RUN_ALONE = 4
"""What a worker that died ran, up to so many jobs, runs alone next, one after the other; of more, few run together first (rule 8)."""
MOST_SAID = 1000  # entries that could not be offered again and were logged; beyond it they are logged anew

log = structlog.get_logger()


class ReclaimerTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How often the reclaimer works. `reclaimer_seconds`: the length of its own lease."""

    interval_seconds: float = INTERVAL_SECONDS
    reclaimer_seconds: float = RECLAIMER_LEASE_SECONDS


TIMES = ReclaimerTimes()


class Shown(Protocol):
    """What people see of jobs meanwhile, each by its conversation."""

    async def job_lost(self, conversation_id: str, /) -> None:
        """Ends the stream that a job was showing which lost its worker."""

    async def kept_waiting(self, conversation_id: str, /) -> None:
        """Shows typing where one waits for the next try of a failed job; called again and again."""


class Reclaimer:
    """The reclaimer of one supervisor; idle while another supervisor has the reclaimer's lease."""

    def __init__(
        self,
        *,
        client: RedisClient,
        clock: LeaseClock,
        recovery: Recovery,
        instance: Instance,
        words: DeclaredWords,
        metrics: Metrics,
        shown: Shown,
        counts_strikes: bool = True,
        times: ReclaimerTimes = TIMES,
    ) -> None:
        """`counts_strikes`: a worker that ends by itself counts against the jobs that it was running."""
        self._client = client
        self._clock = clock
        self._recovery = recovery
        self._instance = instance
        self._words = words
        self._metrics = metrics
        self._counts_strikes = counts_strikes
        self._shown = shown
        self._times = times
        self.turns = 0
        """How many turns have ended without a failure, here or at another supervisor."""
        self._said: set[str] = set()
        recovery.on_left = self._say_left

    async def run(self) -> None:
        """Reclaims until cancelled."""
        trouble = said_trouble("reclaimer")
        connects = self._client.connects
        while True:
            try:
                if self._client.connects != connects and await self._recovery.make_groups():
                    log.warning("redis: a consumer group was gone and is made again")
                connects = self._client.connects
                now_ms = await self._clock.read()  # by all: after a jump any supervisor may get the lease
                if await self._recovery.lease.hold(int(self._times.reclaimer_seconds * 1000)):
                    await self._allow_for_a_step_back()
                    await self._work(self.turns, now_ms)
                else:
                    self._clock.back_seconds = 0.0  # whoever holds it has seen it too
                self.turns += 1
                trouble.over()
            except RedisFailed as error:
                trouble.met(error)
                connects = -1  # whatever failed, the groups may be gone
            await trio.sleep(self._times.interval_seconds)

    async def worker_died(
        self, consumer: str, *, by_itself: bool = False, overran: frozenset[str] = frozenset()
    ) -> None:
        """Offers the jobs of a worker again at once, after the pool saw it end.

        `by_itself`: it counts as a strike for the jobs that it was running (DESIGN rule 8). `overran`: entries of jobs whose time limit it
        was killed for; they become dead letters.
        """
        try:
            held = await self._recovery.pending(self._recovery.jobs, consumer=consumer)
            how = Reclaim(is_strike=by_itself and self._counts_strikes, ran_many=len(held) > MOST_RUN_ALONE)
            for pending in held:
                is_over = pending.entry_id in overran
                await self._release(
                    self._recovery.jobs, pending, Reclaim(ends_as="timeout", idle_ms=0) if is_over else how
                )
        except RedisFailed:
            return  # its leases run out

    async def _allow_for_a_step_back(self) -> None:
        if self._clock.back_seconds:
            log.warning(
                "reclaimer: Redis' clock was put back, leases begin anew", seconds=round(self._clock.back_seconds)
            )
            await self._recovery.clock_went_back(round(self._clock.back_seconds * 1000))
            self._clock.back_seconds = 0.0

    async def _work(self, turn: int, now_ms: int) -> None:
        await self._recovery.start_due(now_ms)
        for held in (self._recovery.jobs, self._recovery.replies):
            for consumer in await self._recovery.holders(held):
                if self._instance.knows_dead(consumer):
                    await self._release_all(held, consumer)
            await self._clock.read()
            if self._clock.may_judge():
                await self._release_silent(held)
        if turn % SHOW_EVERY == 0:
            for conversation in await self._recovery.kept_waiting(now_ms):
                await self._shown.kept_waiting(conversation)
        if turn % UPKEEP_EVERY == 0:
            await self._recovery.forget_idle_consumers()
            await self._recovery.trim_ledger(now_ms - KEPT_SECONDS * 1000)
            mended = await self._recovery.audit(now_ms - AUDIT_AFTER_MS)
            if mended:
                self._metrics.audited.inc(mended)
                log.error("audit: conversations were busy with nothing under way; started again", mended=mended)

    def _say_left(self, name: str, error: Exception) -> None:
        """Logs once that an entry stays as it is: it cannot be read, or Redis refuses it alone (a key of a wrong type)."""
        if name not in self._said:
            self._said = {name} if len(self._said) >= MOST_SAID else self._said | {name}
            log.error("lease: this one cannot be given on", of=name, reason=str(error))

    async def _release_all(self, held: HeldEntries, consumer: str) -> None:
        for pending in await self._recovery.pending(held, consumer=consumer):
            await self._release(held, pending, Reclaim())

    async def _release_silent(self, held: HeldEntries) -> None:
        silent = Reclaim(idle_ms=int(self._clock.lease_seconds * 1000))
        for pending in await self._recovery.pending(held, idle_ms=silent.idle_ms):
            await self._release(held, pending, silent)

    async def _release(self, held: HeldEntries, pending: Pending, how: Reclaim) -> None:
        if held is self._recovery.jobs:
            how = msgspec.structs.replace(how, apology=await self._words.apology())
        try:
            reclaimed = await self._recovery.reclaim(held, pending, how)
        except BadRecord as error:
            self._say_left(pending.entry_id, error)
            return
        if reclaimed.outcome == "kept":
            return
        self._count(held, reclaimed, pending.consumer)
        if held is self._recovery.jobs:
            await self._shown.job_lost(reclaimed.conversation_id)

    def _count(self, held: HeldEntries, reclaimed: Reclaimed, consumer: str) -> None:
        kind = "job" if held is self._recovery.jobs else "reply"
        if reclaimed.outcome == "restarted":
            self._metrics.reclaimed.labels(kind).inc()
            log.info("lease: reclaimed", kind=kind, job_id=reclaimed.job_id, holder=consumer)
        else:
            self._metrics.dead_letters.labels(kind).inc()
            log.error("job: dead letter", job_id=reclaimed.job_id, reason=reclaimed.reason, holder=consumer)
