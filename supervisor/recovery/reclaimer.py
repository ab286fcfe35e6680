"""Offers again, once a second, jobs and replies of dead or silent processes, and starts failed jobs that are due (DESIGN rules 6 and 7).

A known death (a process of this host that is gone) is acted on at once; silence only after one lease of unbroken Redis connection and of
an even clock, so that after an outage or a suspend living processes renew their leases first.
"""

import math
from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from bus.records.records import BadRecord
from bus.steps.recovery import HeldEntries, Pending, Reclaim, Reclaimed, Recovery
from bus.steps.store import Store
from bus.transport.client import RedisClient
from bus.transport.leases import LEASE_SECONDS
from bus.transport.wire import RedisFailed
from bus.views.trace import KEPT_SECONDS
from host.instance import Instance
from supervisor.observe.metrics import Metrics
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.relay.own_words import DeclaredWords

INTERVAL_SECONDS = 1.0
RECLAIMER_LEASE_SECONDS = 5.0
UPKEEP_EVERY = 60
SHOW_EVERY = 3  # turns of a second: typing is shown for 5 s
JUMP_SECONDS = 2.0
AUDIT_AFTER_MS = 60_000  # conversations that have been busy for so long are audited

MOST_SAID = 1000  # entries that could not be offered again and were logged; beyond it they are logged anew

log = structlog.get_logger()


class ReclaimerTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How often the reclaimer works, and how long a lease may go unrenewed.

    `lease_seconds`: the length of the leases of jobs and replies. `reclaimer_seconds`: the length of the reclaimer's lease.
    """

    interval_seconds: float = INTERVAL_SECONDS
    lease_seconds: float = LEASE_SECONDS
    reclaimer_seconds: float = RECLAIMER_LEASE_SECONDS


TIMES = ReclaimerTimes()


class Reclaimer:
    """The reclaimer of one supervisor; idle while another supervisor has the reclaimer's lease."""

    def __init__(
        self,
        *,
        client: RedisClient,
        store: Store,
        recovery: Recovery,
        instance: Instance,
        words: DeclaredWords,
        metrics: Metrics,
        counts_strikes: bool = True,
        end_stream: Callable[[str], Awaitable[None]],
        kept_waiting: Callable[[str], Awaitable[None]],
        times: ReclaimerTimes = TIMES,
    ) -> None:
        """`end_stream` is called with the conversation of a job that lost its worker, to end the stream that it was showing.

        `kept_waiting` is called with each conversation that waits for the next try of a failed job, again and again, to show typing there.
        """
        self._client = client
        self._store = store
        self._recovery = recovery
        self._instance = instance
        self._words = words
        self._metrics = metrics
        self._counts_strikes = counts_strikes
        self._end_stream = end_stream
        self._kept_waiting = kept_waiting
        self._times = times
        self.turns = 0
        """How many turns have ended without a failure, here or at another supervisor."""
        self._lead_seconds = math.inf
        """By how much Redis' clock is ahead of our monotonic one, which only counts the time that this host was awake."""
        self._jumped_at = -math.inf
        self._back_seconds = 0.0
        """How far Redis' clock was put back, until that is allowed for."""
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
                now_ms = await self._watch_clock()  # by all: after a jump any supervisor may get the lease
                if await self._recovery.lease.hold(int(self._times.reclaimer_seconds * 1000)):
                    await self._allow_for_a_step_back()
                    await self._work(self.turns, now_ms)
                else:
                    self._back_seconds = 0.0  # whoever holds it has seen it too
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
        how = Reclaim(is_strike=by_itself and self._counts_strikes)
        try:
            for pending in await self._recovery.pending(self._recovery.jobs, consumer=consumer):
                is_over = pending.entry_id in overran
                await self._release(
                    self._recovery.jobs, pending, Reclaim(ends_as="timeout", idle_ms=0) if is_over else how
                )
        except RedisFailed:
            return  # its leases run out

    async def _allow_for_a_step_back(self) -> None:
        if self._back_seconds:
            log.warning("reclaimer: Redis' clock was put back, leases begin anew", seconds=round(self._back_seconds))
            await self._recovery.clock_went_back(round(self._back_seconds * 1000))
            self._back_seconds = 0.0

    async def _work(self, turn: int, now_ms: int) -> None:
        await self._recovery.start_due(now_ms)
        for held in (self._recovery.jobs, self._recovery.replies):
            for consumer in await self._recovery.holders(held):
                if self._instance.knows_dead(consumer):
                    await self._release_all(held, consumer)
            await self._watch_clock()
            if self._may_judge():
                await self._release_silent(held)
        if turn % SHOW_EVERY == 0:
            for conversation in await self._recovery.kept_waiting(now_ms):
                await self._kept_waiting(conversation)
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

    def _may_judge(self) -> bool:
        """Returns whether every holder has had time to renew: for one lease we are connected and Redis' clock has not jumped."""
        since, now = self._client.connected_since, trio.current_time()
        return since is not None and now - max(since, self._jumped_at) >= self._times.lease_seconds

    async def _watch_clock(self) -> int:
        """Returns Redis' time (ms), and notes a jump of its clock.

        After a suspend, or if the clock was put forward, all leases look expired although nobody could renew.
        """
        now_ms = await self._store.now_ms()
        lead_seconds = now_ms / 1000 - trio.current_time()
        if lead_seconds - self._lead_seconds > JUMP_SECONDS:
            log.warning(
                "reclaimer: Redis' clock has jumped, leases are given time",
                seconds=round(lead_seconds - self._lead_seconds),
            )
            self._jumped_at = trio.current_time()
        back_seconds = self._lead_seconds - lead_seconds
        if JUMP_SECONDS < back_seconds < math.inf:
            self._back_seconds = back_seconds
        self._lead_seconds = lead_seconds
        return now_ms

    async def _release_all(self, held: HeldEntries, consumer: str) -> None:
        for pending in await self._recovery.pending(held, consumer=consumer):
            await self._release(held, pending, Reclaim())

    async def _release_silent(self, held: HeldEntries) -> None:
        silent = Reclaim(idle_ms=int(self._times.lease_seconds * 1000))
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
            await self._end_stream(reclaimed.conversation_id)

    def _count(self, held: HeldEntries, reclaimed: Reclaimed, consumer: str) -> None:
        kind = "job" if held is self._recovery.jobs else "reply"
        if reclaimed.outcome == "restarted":
            self._metrics.reclaimed.labels(kind).inc()
            log.info("lease: reclaimed", kind=kind, job_id=reclaimed.job_id, holder=consumer)
        else:
            self._metrics.dead_letters.labels(kind).inc()
            log.error("job: dead letter", job_id=reclaimed.job_id, reason=reclaimed.reason, holder=consumer)
