"""Takes jobs while slots are free, runs each to one end (finish, fail, hand back or lost), and stops in good order.

What a handler raises ends its job, never the worker. Redis' absence is waited out. The order within a conversation is the
bus's business: it never gives two jobs of one conversation at once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from bus.jobs import Failed, Finished
from bus.records import Job
from bus.wire import RedisUnavailable
from workers.agent import Agent
from workers.context import Observe, observe_nothing
from workers.errors import Fail, Retry
from workers.execution import Bench, run_handler
from workers.logs import Log, kind, where
from workers.outlet import Backoff, WorkerBus, until_redis_answers
from workers.vitals import Vitals

# Three tries more after a failure, then a dead letter: a passing fault of a service is over by then, a defect is not.
RETRY_AFTER_SECONDS = (1.0, 5.0, 30.0)
# DESIGN rule 8: deliveries of all kinds are bounded.
MOST_DELIVERIES = 20
SEEN_SECONDS = 5.0
HAND_BACK_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """`retry_after_seconds`: the wait after the first, second, … failure of a handler; then the job is a dead letter."""

    concurrency: int
    retry_after_seconds: Sequence[float] = RETRY_AFTER_SECONDS


@dataclass(eq=False)
class _Hand:
    """A job that was taken: the scope that ends it, and whether its handler was begun."""

    job: Job
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    begun: bool = False


class Runner:
    """One worker's jobs."""

    def __init__(
        self,
        agent: Agent,
        bus: WorkerBus,
        settings: RunnerSettings,
        *,
        vitals: Vitals,
        log: Log,
        observe: Observe = observe_nothing,
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._vitals = vitals
        self._log = log
        self._slots = trio.CapacityLimiter(settings.concurrency)
        threads = trio.CapacityLimiter(settings.concurrency)
        self._bench = Bench(agent=agent, outlet=bus, threads=threads, observe=observe)
        self._hands: dict[str, _Hand] = {}
        self._room = trio.Event()
        self._taking = trio.CancelScope()
        self._stopping = False
        self.handed_back = 0

    async def run(self) -> None:
        """Until `drain` or `stop`, and until what was taken has ended."""
        self._bus.on_fenced(self._lost)
        async with trio.open_nursery() as company:
            company.start_soon(self._be_seen)
            async with trio.open_nursery() as nursery:
                with self._taking:
                    await self._take(nursery)
            company.cancel_scope.cancel()

    def drain(self) -> None:
        """Take no more; finish what runs; hand back what was taken and not begun."""
        self._taking.cancel()
        for hand in self._hands.values():
            if not hand.begun:
                hand.scope.cancel()

    def stop(self) -> None:
        """Cancel what runs and hand it back."""
        self.drain()
        self._stopping = True
        for hand in self._hands.values():
            hand.scope.cancel()

    async def _take(self, nursery: trio.Nursery) -> None:
        backoff = Backoff()
        while True:
            while (free := self._settings.concurrency - len(self._hands)) <= 0:
                self._room = trio.Event()
                await self._room.wait()
            try:
                jobs = await self._bus.take(free)
            except RedisUnavailable:
                if backoff.is_fresh:
                    self._log.warning("worker: Redis is away, waiting for it")
                await backoff.wait()
                continue
            backoff.reset()
            for job in jobs:
                hand = self._hands[job.entry_id] = _Hand(job)
                self._bus.hold(job)
                if self._taking.cancel_called:
                    hand.scope.cancel()
                nursery.start_soon(self._carry, hand)

    async def _carry(self, hand: _Hand) -> None:
        """From taking to letting go."""
        try:
            with hand.scope:
                async with self._slots:
                    hand.begun = True
                    self._vitals.started(hand.job)
                    await self._run(hand)
            if hand.scope.cancelled_caught and (self._stopping or not hand.begun):
                await self._hand_back(hand.job)
        finally:
            self._vitals.ended(hand.job)
            self._bus.release(hand.job)
            del self._hands[hand.job.entry_id]
            self._room.set()

    async def _run(self, hand: _Hand) -> None:
        job = hand.job
        emitted = await until_redis_answers(lambda: self._bus.emitted(job))
        try:
            handled = await run_handler(self._bench, job, emitted, hand.scope.cancel)
        except Retry as asked:
            await self._retry_as_asked(job, asked)
        except Fail as refused:
            await self._fail(job, refused.reason, None)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the rule of this room: a handler never ends the worker
            await self._fail_by(job, error)
        else:
            if not handled:
                payload_type = str(job.message.payload.get("type", ""))[:32]
                self._log.info("job: no handler for this type", job=job.job_id, payload_type=payload_type)
            if await until_redis_answers(lambda: self._bus.finish(job)) is Finished.FENCED:
                self._log.warning("job: lost to another worker", job=job.job_id)
            else:
                self._vitals.count_done()

    async def _retry_as_asked(self, job: Job, asked: Retry) -> None:
        if job.deliveries >= MOST_DELIVERIES:
            await self._fail(job, "deliveries", None)
        else:
            await self._fail(job, "retry_asked", asked.after_seconds)

    async def _fail_by(self, job: Job, error: BaseException) -> None:
        waits = self._settings.retry_after_seconds
        wait = waits[job.attempt - 1] if job.attempt <= len(waits) else None
        # The exception's text may quote the conversation, so it is not shown.
        self._log.warning(
            "job: the handler failed",
            job=job.job_id,
            attempt=job.attempt,
            exception=kind(error),
            at=where(error),
            ends="dead letter" if wait is None else f"again in about {wait:g} s",
        )
        spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
        await self._fail(job, "handler_error", None if wait is None else wait * spread)

    async def _fail(self, job: Job, reason: str, retry_after_seconds: float | None) -> None:
        after_ms = None if retry_after_seconds is None else int(retry_after_seconds * 1000)
        failed = await until_redis_answers(lambda: self._bus.fail(job, reason, after_ms))
        if failed is Failed.FENCED:
            self._log.warning("job: lost to another worker", job=job.job_id)
            return
        if reason != "retry_asked":
            self._vitals.count_failed()

    async def _hand_back(self, job: Job) -> None:
        with trio.move_on_after(HAND_BACK_SECONDS, shield=True):
            try:
                await self._bus.hand_back(job)
            except RedisUnavailable:
                return  # Its lease runs out.
            self.handed_back += 1

    def _lost(self, entry_id: str) -> None:
        if hand := self._hands.get(entry_id):
            self._log.warning("job: lost to another worker", job=hand.job.job_id)
            hand.scope.cancel()

    async def _be_seen(self) -> None:
        late_seconds = 0.0
        while True:
            try:
                await self._bus.seen(self._vitals.presence(late_seconds * 1000))
            except RedisUnavailable:
                self._log.info("worker: could not say that it lives")
            due = trio.current_time() + SEEN_SECONDS
            await trio.sleep_until(due)
            late_seconds = trio.current_time() - due
