"""Takes jobs while slots are free, runs each to one end (finished, failed, handed back or lost), and drains or stops.

An exception of a handler ends its job, never the worker. While Redis is away it waits. The bus keeps the order within a conversation:
it never gives two jobs of one conversation at once.
"""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from bus.records.budgets import ADMITTED
from bus.records.control import Observation
from bus.records.records import (
    AGENT_SENDER,
    NOWHERE,
    STOP_ALL,
    BadRecord,
    InboundMessage,
    Job,
    Reply,
    is_answer_to_card,
)
from bus.steps.job_steps import Said, Settled, Taken
from bus.steps.jobs import Failed, Finished, Started
from bus.steps.thread_steps import Admitted, Bound, Effect, OpenWait
from bus.transport.backoff import Backoff
from bus.transport.wire import RedisFailed, RedisFull, RedisRefused
from host.reasons import remedy_of_descriptors
from host.unreadable import UNREADABLE
from workers.errors import Diverged, Fail, HandlerError, HandlerGone, Retry, StoreFull, WaitOutside, WaitsFull
from workers.files.files import FileWay
from workers.handling.agent import Agent
from workers.handling.context import Observe, observe_nothing
from workers.handling.execution import (
    Ended,
    Run,
    RunEnvironment,
    dropped,
    keeping_of,
    of_the_handler,
    resumed,
    run_handler,
)
from workers.kept.keeping import Keeping
from workers.kept.outlet import WorkerBus, until_redis_answers
from workers.kept.waits import (
    Answered,
    Postponed,
    Refused,
    Wait,
    answer_in,
    answered_in_time,
    asked_for_a_text,
    continued,
    none_for,
    quotable,
)
from workers.process.hand import Hand
from workers.process.logs import Log, kind, where, where_it_stands, whole
from workers.process.long_runs import LongRuns
from workers.process.slots import Slots
from workers.process.tracing import JobTracing
from workers.process.vitals import Vitals
from workers.talk.payloads import text_reply
from workers.talk.reminding import timer_for
from workers.talk.sending import ROOM_SECONDS, SendSoon
from workers.talk.typing import keep_typing

# Three more tries after a failure, then a dead letter: by then a passing fault of a service is over, and a defect is not.
RETRY_AFTER_SECONDS = (1.0, 5.0, 30.0)
# Longer than any answer of a language model takes; a job that runs longer hangs.
JOB_SECONDS = 600.0
# The start of a run that takes longer is noted while it runs.
LONG_SECONDS = 0.05
STILL_RUNS_SECONDS = 60.0
"""After so long the log says once where a run stands: an endpoint that hangs shows nowhere else before its time limit."""

# Who waits so long for a first word is shown that one comes.
TYPING_AFTER_SECONDS = 0.3
# What another version may go on with is given to it: after the tries of any job it comes back so much later, twice as much each time, as
# long as there is one. Its twentieth delivery, as of any job (DESIGN rule 8), is more than an hour later.
ANOTHER_VERSION_SECONDS, MOST_ANOTHER_VERSION_SECONDS = 30.0, 300.0
SEEN_SECONDS = 5.0
LAST_WORD_SECONDS = 2.0
# What a run's effects were made from was changed meanwhile: it is run again, cheaply, since what took time is noted.
CHANGED_AFTER_SECONDS = 0.05
# A job that a full Redis is in the way of: each wait is twice the one before.
MOST_FULL_SECONDS = 300.0
# Why a run ends and another follows, though nothing has failed.
WAITS, REDIS_FULL = "waits", "redis_full"
BUDGET_METRIC = "business_budget_refusals"
NO_FAILURES = ("retry_asked", "changed", WAITS, REDIS_FULL)
# What a person hears who has said /stop before anything was shown to them.
STOPPED_PLACE = "stopped"
# So often it is looked whether the answer to a question is still among the dead letters, once the question's deadline is over.
ANSWER_LOOKED_FOR_MS = 86_400_000
# So often a job's end is made anew where others add to the same keys of the store: each time one of them has come through.
MOST_RENEWALS = 20


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """`retry_after_seconds`: the wait after the first, second, … failure of a handler; then the job is a dead letter.

    `job_seconds`: the longest run; over it the job is a dead letter `timeout`, or with `retries_timeouts` a failure like others.
    `shows_errors`: the log has the text and traceback of a handler's exception, which may quote the conversation.
    `seen_seconds`: between two words to Redis that the worker lives.
    """

    concurrency: int
    retry_after_seconds: Sequence[float] = RETRY_AFTER_SECONDS
    job_seconds: float = JOB_SECONDS
    retries_timeouts: bool = False
    shows_errors: bool = False
    seen_seconds: float = SEEN_SECONDS


@dataclass(frozen=True)
class Meaning:
    """What a job means to the threads that wait in its conversation, of which there are `others` besides the one that it answers.

    `asked`: whose next text may be the answer to one of them.
    """

    found: Answered | Refused | Postponed | None
    others: int
    asked: frozenset[str] = frozenset()


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
        tracing: JobTracing | None = None,
        shared: tuple[object, ...] = (),
        files: FileWay | None = None,
        replace_worker: Callable[[str], None] = lambda _at: None,
        leave_exhausted: Callable[[str], None] = lambda _at: None,
        tell_failed: Callable[[Job, BaseException], None] = lambda _job, _error: None,
    ) -> None:
        """`shared`: what the agent's lifespan yielded; `files`: the way to files. `replace_worker` is called with where a handler hangs that will not end,
        `leave_exhausted` once with where a handler could open nothing any more: each that follows would fail, and quicker than another worker answers,
        `tell_failed` with what one raised.
        """
        self._replace_worker = replace_worker
        self._leave_exhausted = leave_exhausted
        self._is_exhausted = False
        self._tell_failed = tell_failed
        self._bus = bus
        self._settings = settings
        self._vitals = vitals
        self._log = log
        self._tracing = tracing or JobTracing()
        self._slots = Slots(settings.concurrency)
        self._threads = trio.CapacityLimiter(settings.concurrency)
        self._soon = SendSoon()
        self._run_environment = RunEnvironment(
            tell_swallowed=self._tell_swallowed,
            tell_caught=self._tell_caught,
            hangs=self._end_hanging,
            tell_tool_failed=self._tell_tool_failed,
            tell_forked=self._tell_forked,
            agent=agent,
            outlet=bus,
            threads=self._threads,
            observe=observe,
            soon=self._soon,
            shared=shared,
            files=files,
        )
        self._hands: dict[str, Hand] = {}
        self._long_runs = LongRuns(min(LONG_SECONDS, settings.job_seconds))
        self._others_wait = False
        """Others than the suspects that run were handed back to wait for their turn."""
        self._room = trio.Event()
        self._taking = trio.CancelScope()
        self._company: trio.Nursery | None = None
        self._stopping = False
        self.handed_back = 0

    async def run(self) -> None:
        """Takes and runs jobs until `drain` or `stop`, and then until all that were taken have ended."""
        self._run_environment = replace(self._run_environment, deadline=trio.current_effective_deadline())
        self._bus.on_fenced(self._lost)
        self._bus.on_superseded(self._superseded)
        async with trio.open_nursery() as company:
            self._company = company
            company.start_soon(self._be_seen)
            company.start_soon(self._soon.run)
            company.start_soon(self._long_runs.watch, company)
            async with trio.open_nursery() as nursery:
                with self._taking:
                    await self._take(nursery)
                await self._bus.stop_taking()
            company.cancel_scope.cancel()

    def drain(self) -> None:
        """Takes no more jobs, finishes those that run, and hands back those that were taken and not begun."""
        self._taking.cancel()
        self._clear_the_way()

    def stop(self) -> None:
        """Cancels running jobs and hands them back."""
        self.drain()
        self._stopping = True
        for hand in self._hands.values():
            hand.scope.cancel()

    async def _take(self, nursery: trio.Nursery) -> None:
        backoff, said = Backoff(), ""
        while True:
            while (free := self._free()) <= 0:
                self._room = trio.Event()
                await self._room.wait()
            try:
                jobs = await self._bus.take(free)
            except RedisFailed as error:
                if error.reason != said:
                    self._log.warning("worker: Redis gives no jobs, waiting for it", reason=error.reason)
                said = error.reason
                await backoff.wait()
                continue
            backoff.reset()
            said = ""
            for job in jobs:
                hand = self._hands[job.entry_id] = Hand(job)
                self._bus.hold(job)
                nursery.start_soon(self._carry, hand)
            self._clear_the_way()

    def _free(self) -> int:
        """Returns how many more jobs to take; while there are suspects, which nothing else runs beside, as many as may run with them until another came."""
        strikes = self._suspicion()
        if not strikes:
            return self._settings.concurrency - len(self._hands)
        return 0 if self._others_wait else self._slots.most(strikes) - len(self._alike(strikes))

    def _suspicion(self) -> int:
        """Returns the strikes of the first suspect; 0 if there is none."""
        return next((hand.job.strikes for hand in self._hands.values() if hand.job.strikes), 0)

    def _alike(self, strikes: int) -> list[Hand]:
        return [hand for hand in self._hands.values() if hand.job.strikes == strikes]

    def _clear_the_way(self) -> None:
        """Hands back jobs that were taken and cannot begin: all when draining, else all but the next few where one is a suspect."""
        strikes, self._others_wait = self._suspicion(), False
        if not strikes and not self._taking.cancel_called:
            return
        next_few = () if self._taking.cancel_called else self._alike(strikes)[: self._slots.most(strikes)]
        for hand in self._hands.values():
            if not hand.begun and hand not in next_few:
                hand.scope.cancel()
                self._others_wait = True

    async def _carry(self, hand: Hand) -> None:
        """Takes one job from its taking to its end."""
        try:
            with hand.scope:
                async with self._slots.one(hand.job.strikes):
                    # It was cancelled when the slot became free: not begun, so it is handed back.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    hand.begin(self._tracing)
                    self._vitals.started(hand.job)
                    await self._run(hand)
            if not hand.ended:
                await self._end_cancelled(hand)
        except RedisRefused as refused:
            self._let_go(hand, refused)
        finally:
            hand.tell()
            self._vitals.ended(hand.job)
            self._bus.release(hand.job)
            del self._hands[hand.job.entry_id]
            self._room.set()

    async def _end_cancelled(self, hand: Hand) -> None:
        """Ends a job whose run was cancelled: it was superseded, is handed back, or was lost."""
        if hand.broken_by is not None:
            with trio.CancelScope(shield=True):
                await self._fail_by(hand, hand.broken_by)
        elif hand.stopped:
            await self._end_stopped(hand)
        elif hand.superseded and not hand.job.continues:
            await self._end_superseded(hand)
        elif hand.gives_back and not self._stopping:
            wait = min(MOST_FULL_SECONDS, 2.0 ** min(hand.job.deliveries, 9))
            self._log.warning("job: Redis is full, given back", job=hand.job.job_id, again_in_seconds=wait)
            with trio.CancelScope(shield=True):
                await self._fail(hand, REDIS_FULL, wait)
        elif self._stopping or not hand.begun or hand.superseded:
            hand.ending = True
            with trio.move_on_after(LAST_WORD_SECONDS, shield=True):
                try:
                    is_dead = await self._bus.hand_back(hand.job, has_begun=hand.begun, apology=self._apology())
                except RedisFailed:
                    return  # its lease runs out
                hand.outcome = "dead" if is_dead else "handed_back"
                if is_dead:
                    self._vitals.count_failed()
                    self._log.error("job: dead letter", job=hand.job.job_id, reason="deliveries")
                else:
                    self.handed_back += 1

    async def _end_superseded(self, hand: Hand) -> None:
        hand.ending, hand.outcome = True, "superseded"
        with trio.CancelScope(shield=True):
            effects = self._keeping(hand).exchange()
            await until_redis_answers(lambda: self._end(hand.job, "superseded", effects))
        self._log.info("job: superseded by a later message", job=hand.job.job_id)

    async def _end_stopped(self, hand: Hand) -> None:
        """Ends a job whose person has said /stop: with what they were shown of an answer, and else with a word."""
        with trio.CancelScope(shield=True):
            last = () if hand.sending is None else await hand.sending.take_last()
            keeping = self._keeping(hand)
            if hand.sending is None or not hand.sending.says_that_it_stopped:
                reply = text_reply(self._run_environment.agent.words.stopped)
                keeping.said(STOPPED_PLACE, reply)
                last = (*last, (STOPPED_PLACE, reply))
            effects = (*keeping.exchange(), *dropped(hand.answers))
            await self._finish(hand, Ended(handled=True, last=last, effects=effects, outcome="stopped"))
        self._log.info("job: stopped by its person", job=hand.job.job_id)

    async def _run(self, hand: Hand) -> None:
        try:
            answer = None if hand.job.is_first_run else await self._bind_answer(hand)
        except (BadRecord, *UNREADABLE):  # of another version, say: it comes again, and then is a dead letter
            await self._fail_by(hand, HandlerGone("(of a question that this version cannot read)"))
            return
        if hand.ended:
            return
        hand.is_known = True
        job = hand.job
        started = await self._start(job, answer)
        if started.outcome == "fenced":
            hand.ended = True
            self._log.warning("job: lost to another worker", job=job.job_id)
            return
        if started.outcome == "superseded":
            hand.superseded = True
            return
        if started.outcome == "stopped":
            self._keeping(hand, started)
            hand.stop()
            return
        hand.began_ms = None if started.is_noted else int(time.time() * 1000)
        hand.task = trio.lowlevel.current_task()
        try:
            async with self._long_runs.run(partial(self._attend, hand), partial(self._fail_later, hand)):
                ended = await self._handle(hand, started, answer)
        except Retry as asked:
            await self._retry_as_asked(hand, asked)
        except Fail as refused:
            await self._fail(hand, refused.reason, None)
        except BaseException as error:
            if of_the_handler(error) is None:
                raise
            await self._fail_unless_stopped(hand, error)  # the rule of this room: a handler never ends the worker
        else:
            if not hand.stopped:
                await self._finish(hand, ended)

    async def _bind_answer(self, hand: Hand) -> Meaning | None:
        """Returns what a job means to the threads that wait in its conversation; None if none waits. The first job that answers counts."""
        job = hand.job
        waits = await until_redis_answers(lambda: self._bus.open_waits(job))
        if not waits:
            return None
        found: Answered | Refused | Postponed | None = answer_in(job, waits, await self._quoted(job, waits))
        gone = ""
        if found is None and (answered := answered_in_time(job, waits)) is not None:
            found, gone = await self._overdue(job, *answered)
        if isinstance(found, Answered):
            wait = found.wait
            with trio.CancelScope(shield=True):  # once it is bound it is known to be, however it ends
                bound = await until_redis_answers(lambda: self._bus.bind_wait(job, wait.id, instead_of=gone))
            if bound is Bound.FENCED:
                hand.ended = True
                self._log.warning("job: lost to another worker", job=job.job_id)
            elif bound is not Bound.BOUND:
                found = Refused("not_open")
            else:
                hand.job, hand.answers = continued(job, wait), wait
        return Meaning(found, len(waits) - isinstance(found, Answered), asked_for_a_text(waits))

    async def _overdue(self, job: Job, wait: Wait, answered_by: str) -> tuple[Answered | Postponed, str]:
        """Returns what a deadline means to a question that was answered in time: nothing as long as its answer may come back, as a dead letter may.
        Where that is gone from Redis nobody else could ever end the question: then it ends without an answer. Returns that job's id too.
        """
        if await until_redis_answers(lambda: self._bus.may_come_back(job, answered_by)):
            return Postponed(wait), ""
        self._log.error("job: the answer to a question is gone from Redis, it ends without one", job=answered_by)
        return Answered(wait, none_for("timeout", job)), answered_by

    async def _quoted(self, job: Job, waits: Sequence[OpenWait]) -> str:
        """Returns the id of the question that a text quotes, of several that it may answer; '' where it quotes none."""
        for wait in quotable(job, waits):
            said = partial(self._bus.message_id_of, wait.thread_id, wait.place or wait.entry, wait.asked_ms)
            if await until_redis_answers(said) == job.message.reply_to:
                return wait.id
        return ""

    async def _start(self, job: Job, answer: Meaning | None) -> Started:
        """Begins a job; returns what earlier runs have done.

        Redis is not asked about a first delivery under the default policy: that it began is noted when it sends something or takes long,
        else with its end.
        """
        if job.is_first_run and self._run_environment.agent.policies.busy == "queue":
            return Started("started", is_noted=False)
        if answer is None:
            return await until_redis_answers(lambda: self._bus.start(job))
        is_alone, asked = answer.found is not None, sorted(answer.asked)
        return await until_redis_answers(lambda: self._bus.start(job, is_alone=is_alone, asked=asked))

    async def _handle(self, hand: Hand, started: Started, answer: Meaning | None) -> Ended:
        found = None if answer is None else answer.found
        if started.is_answer and not isinstance(found, Answered):
            found = Refused("not_open")  # what it answered was forgotten meanwhile
        if isinstance(found, Refused):
            return Ended(handled=True, last=(("0", text_reply(self._run_environment.agent.words.why(found.why))),))
        if isinstance(found, Postponed):
            again_ms, name = hand.job.accepted_ms + ANSWER_LOOKED_FOR_MS, found.wait.id
            timer = timer_for(hand.job.message, hand.job, name, again_ms, kind="deadline", name=name)
            effect: Effect = ("timer", name, again_ms, self._bus.seal_timer(timer))
            return Ended(handled=True, effects=(effect,))
        messages = (hand.job.message, *started.together)
        if not isinstance(found, Answered):
            messages = tuple(one for one in messages if not one.is_overheard)
            if not messages:
                return Ended(handled=True)
        if not hand.job.continues and (beyond := await self._beyond_a_budget(hand, started, messages)) is not None:
            return beyond
        tell_start = partial(self._tell_start, hand)
        waited = partial(self._waited, hand)
        run = Run(
            hand.job,
            messages,
            started.places,
            tell_start=tell_start,
            waited=waited,
            cards=started.cards,
            journal=started.journal,
            begins=hand.speaks_by,
            keeping=self._keeping(hand, started) if answer is None else None,
        )
        if answer is not None:
            run = resumed(run, found) if isinstance(found, Answered) else run
            run = replace(run, open_waits=answer.others, keeping=self._keeping_of(hand, run))
        try:
            return await run_handler(self._run_environment, run, hand.scope.cancel, hand.give_back)
        finally:
            self._vitals.ended(hand.job)  # only Redis is waited for from here on

    async def _beyond_a_budget(self, hand: Hand, started: Started, messages: Sequence[InboundMessage]) -> Ended | None:
        """Returns how a job ends whose message is beyond a budget; None for one that is counted now, was before, or is about none."""
        job, message, agent = hand.job, messages[0], self._run_environment.agent
        limits = (
            agent.budgets.limits_of(message) if job.kind == "message" and not is_answer_to_card(message.payload) else []
        )
        if not limits or ADMITTED in started.journal or agent.has_built_in(message):
            return None
        told = message.sender_type != AGENT_SENDER
        entry = self._bus.seal_entry(job, ADMITTED, b"")

        async def admit() -> Admitted | None:
            try:
                return await self._bus.admit(job, [limit for _, limit in limits], entry, tells=told)
            except RedisFull:
                return None

        admitted = await until_redis_answers(admit)
        if admitted is None:
            hand.give_back()
            await trio.lowlevel.checkpoint()
        if admitted is not None and admitted.outcome == "fenced":
            hand.ended = True
            self._log.warning("job: lost to another worker", job=job.job_id)
            return Ended(handled=True)
        if admitted is None or admitted.beyond is None:
            return None
        budget, limit = limits[admitted.beyond]
        labels: dict[str, str] = {"per": budget.per, "limit": limit.kind}
        self._run_environment.observe(Observation(metric=BUDGET_METRIC, labels=labels, value=1))
        self._log.info("job: beyond a budget, not answered", job=job.job_id, per=budget.per, limit=limit.kind)
        last = (("0", text_reply(budget.reply)),) if admitted.is_told and budget.reply is not None else ()
        return Ended(handled=True, last=last, outcome="over_budget")

    async def _tell_start(self, hand: Hand) -> None:
        began_ms, hand.began_ms = hand.began_ms, None
        if began_ms is not None:
            await until_redis_answers(partial(self._bus.start, hand.job, began_ms=began_ms))

    async def _attend(self, hand: Hand, nursery: trio.Nursery) -> None:
        """Notes the start of a run that takes long, shows that it is worked on, and ends it at its time limit, whatever Redis does: cancels its
        handler, and ends its job in Redis as soon as possible. A handler in a thread cannot be cancelled and runs on.
        """
        limit = self._settings.job_seconds
        began = trio.current_time() - min(LONG_SECONDS, limit)
        nursery.start_soon(self._unless_refused, hand, self._tell_start)
        await trio.sleep_until(began + min(TYPING_AFTER_SECONDS, limit))
        if hand.sending is not None and hand.job.conversation_id != NOWHERE:
            nursery.start_soon(keep_typing, hand.sending)
        await trio.sleep_until(began + min(STILL_RUNS_SECONDS, limit))
        if limit > STILL_RUNS_SECONDS:
            at = "" if hand.task is None else where_it_stands(hand.task)
            self._log.info("job: still runs", job=hand.job.job_id, seconds=STILL_RUNS_SECONDS, at=at)
        await trio.sleep_until(began + limit)
        await self._unless_refused(hand, self._over_time)

    def _fail_later(self, hand: Hand, error: Exception) -> None:
        """Ends a run that could not be attended to: its job fails."""
        hand.broken_by = error
        hand.scope.cancel()

    async def _over_time(self, hand: Hand) -> None:
        given = 0.0
        while hand.waited_seconds > given:
            more, given = hand.waited_seconds - given, hand.waited_seconds
            await trio.sleep(more)
        self._log.error("job: over its time limit", job=hand.job.job_id, seconds=self._settings.job_seconds)
        hand.ending = True
        hand.scope.cancel()
        with trio.CancelScope(shield=True):
            wait = self._wait_after(hand.job) if self._settings.retries_timeouts else None
            await self._fail(hand, "timeout", wait)

    async def _unless_refused(self, hand: Hand, step: Callable[[Hand], Awaitable[None]]) -> None:
        try:
            await step(hand)
        except RedisRefused as refused:
            self._let_go(hand, refused)

    def _let_go(self, hand: Hand, refused: RedisRefused) -> None:
        """Lets go of a job whose step Redis refuses for good, without ending the worker.

        Its lease runs out and it is delivered again, as often as any job may be.
        """
        if not hand.ended:
            self._log.error("job: Redis refuses its step, it is let go", job=hand.job.job_id, reason=refused.reason)
        hand.ended = True
        hand.scope.cancel()

    async def _finish(self, hand: Hand, ended: Ended) -> None:
        if hand.ended:
            return
        job, began_ms = hand.job, hand.began_ms
        if not ended.handled:
            payload_type = str(job.message.payload.get("type", ""))[:32]
            if job.kind == "reminder":  # that a handler, or `send --reminder`, has set under another name than there is
                name = str(job.message.payload.get("name", ""))[:64]
                self._log.warning("job: no handler takes this reminder", job=job.job_id, name=name)
            else:
                self._log.info("job: no handler for this type", job=job.job_id, payload_type=payload_type)
        outcome: Settled = ended.outcome if ended.handled else "no_handler"
        hand.ending = True
        finished, effects, renewals = Finished.FULL, list(ended.effects), 0
        while finished is Finished.FULL:
            finished = await until_redis_answers(
                partial(self._end, job, outcome, effects, last=ended.last, began_ms=began_ms)
            )
            if finished is Finished.FULL:
                await trio.sleep(ROOM_SECONDS)
                self._waited(hand, ROOM_SECONDS)
            elif finished is Finished.CHANGED and renewals < MOST_RENEWALS and hand.keeping is not None:
                renewals += 1
                renewed = await hand.keeping.store.renewed()
                if renewed is not None:
                    finished, effects = Finished.FULL, [*renewed, *(one for one in effects if one[0] != "store")]
        if finished in (Finished.STORE_FULL, Finished.WAITS_FULL):
            await self._fail_by(hand, StoreFull() if finished is Finished.STORE_FULL else WaitsFull())
            return
        if finished is Finished.CHANGED:
            await self._fail(hand, "changed", CHANGED_AFTER_SECONDS)
            return
        hand.ended = True
        hand.outcome = "lost" if finished is Finished.FENCED else outcome
        if finished is Finished.FENCED:
            self._log.warning("job: lost to another worker", job=job.job_id)
        else:
            self._vitals.count_done()

    async def _end(
        self,
        job: Job,
        outcome: Settled,
        effects: Sequence[Effect],
        *,
        last: Sequence[Said] = (),
        began_ms: int | None = None,
    ) -> Finished:
        """Ends a job with what it leaves. An agent that leaves nothing but replies uses the step that knows of nothing else."""
        if effects:
            return await self._bus.settle(job, outcome, effects, last=last, began_ms=began_ms)
        return await self._bus.finish(job, outcome, last=last, began_ms=began_ms)

    def _keeping(self, hand: Hand, started: Started | None = None) -> Keeping:
        """Returns what this run keeps."""
        if hand.keeping is None:
            started = started or Started("superseded")
            messages = (hand.job.message, *started.together)
            if hand.answers is not None:
                messages = tuple(hand.answers.messages)
            run = Run(hand.job, messages, started.places, journal=started.journal)
            return self._keeping_of(hand, run)
        return hand.keeping

    def _keeping_of(self, hand: Hand, run: Run) -> Keeping:
        hand.keeping = keeping_of(self._run_environment, run)
        return hand.keeping

    def _tell_swallowed(self, job: Job, error: BaseException) -> None:
        """Says what a handler raised while it was unwound to wait for an answer: the wait stands."""
        self._log.warning(
            "job: it waits for an answer, and raised something on its way out",
            job=job.job_id,
            exception=kind(error),
            at=where(error),
        )

    def _tell_caught(self, job: Job, error: BaseException) -> None:
        """Says that a handler has caught what unwinds it while it waits for an answer: it says nothing more to anybody, and the wait stands."""
        self._log.error(
            "job: it waits for an answer, and its handler caught what ends it there and went on: let BaseException pass",
            job=job.job_id,
            at=where(error),
        )

    def _tell_tool_failed(self, job: Job, name: str, error: BaseException) -> None:
        """Says by which exception a tool has failed; the model hears its class, and goes on."""
        self._log.warning(
            "job: a tool has failed, the model is told and goes on",
            job=job.job_id,
            tool=name,
            exception=kind(error),
            at=where(error),
            **({"traceback": whole(error)} if self._settings.shows_errors else {}),
        )

    def _tell_forked(self, job: Job, error: BaseException | None) -> None:
        """Says, in a process that a handler has forked and that came back from it, that it ends."""
        self._log.error(
            "job: a process that its handler has forked came back from it, and is ended",
            job=job.job_id,
            **({} if error is None else {"exception": kind(error), "at": where(error)}),
            remedy="end it with os._exit, or use subprocess or multiprocessing",
        )

    async def _end_hanging(self, job: Job, ended: Ended, task: trio.lowlevel.Task) -> None:
        """Ends a job whose handler waits for an answer and does not end, and has the worker replaced: nothing else ends such a handler."""
        hand, at = self._hands[job.entry_id], where_it_stands(task)
        self._log.error("job: it waits for an answer, and its handler does not end", job=job.job_id, at=at)
        await self._unless_refused(hand, partial(self._finish, ended=ended))
        self._vitals.ended(job)
        self._replace_worker(at)

    @property
    def threads_at_work(self) -> int:
        """How many sync handlers run."""
        return self._threads.borrowed_tokens

    @property
    def running(self) -> int:
        """How many jobs it has that have not ended."""
        return sum(not hand.ended for hand in self._hands.values())

    def _waited(self, hand: Hand, seconds: float) -> None:
        hand.waited_seconds += seconds
        self._vitals.waited(hand.job, seconds)

    async def _retry_as_asked(self, hand: Hand, asked: Retry) -> None:
        await self._fail(hand, WAITS if isinstance(asked, WaitOutside) else "retry_asked", asked.after_seconds)

    async def _fail_unless_stopped(self, hand: Hand, error: BaseException) -> None:
        if not hand.stopped:
            await self._fail_by(hand, error)

    async def _fail_by(self, hand: Hand, error: BaseException) -> None:
        wait = None if isinstance(error, HandlerError) and error.is_final else self._wait_after(hand.job)
        if wait is None and isinstance(error, Diverged | HandlerGone) and await self._is_beside_another_version():
            tries = hand.job.attempt - len(self._settings.retry_after_seconds) - 1
            wait = min(ANOTHER_VERSION_SECONDS * 2 ** max(0, tries), MOST_ANOTHER_VERSION_SECONDS)
        reason = error.reason if isinstance(error, HandlerError) else HandlerError.reason
        hand.error, exhausted = kind(error), remedy_of_descriptors(error)
        self._tell_failed(hand.job, error)
        # without the exception's text, which may quote the conversation
        self._log.warning(
            "job: the handler failed",
            job=hand.job.job_id,
            attempt=hand.job.attempt,
            exception=kind(error),
            at=where(error),
            ends="dead letter" if wait is None else f"again in about {wait:.1f} s",
            **({"remedy": str(error)} if isinstance(error, HandlerError) else {}),  # ours quotes nobody
            **({} if exhausted is None else {"remedy": exhausted}),
            **({"traceback": whole(error)} if self._settings.shows_errors else {}),
        )
        await self._fail(hand, reason, wait)
        if exhausted is not None and not self._is_exhausted:
            self._is_exhausted = True
            self._leave_exhausted(where(error))

    async def _is_beside_another_version(self) -> bool:
        """Returns whether workers of another version are there, whose code may be the one that asked."""
        mine = self._vitals.presence(0.0)
        return mine is not None and await until_redis_answers(partial(self._bus.is_beside_another_version, mine))

    def _wait_after(self, job: Job) -> float | None:
        """Returns the wait until the next try, randomly spread so that not all come back at once; None if there is none."""
        waits = self._settings.retry_after_seconds
        spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
        return waits[job.attempt - 1] * spread if job.attempt <= len(waits) else None

    async def _fail(self, hand: Hand, reason: str, retry_after_seconds: float | None) -> None:
        if hand.ended:
            return
        job, apology = hand.job, self._apology()
        after_ms = None if retry_after_seconds is None else int(retry_after_seconds * 1000)
        hand.ending = True
        failed = await until_redis_answers(
            lambda: self._bus.fail(job, reason, after_ms, apology, takes=_taken_by(reason))
        )
        hand.ended = True
        hand.outcome = "lost" if failed is Failed.FENCED else failed.value.decode()
        hand.error = hand.error or ("" if reason in NO_FAILURES else reason)
        if failed is Failed.FENCED:
            self._log.warning("job: lost to another worker", job=job.job_id)
            return
        if failed is Failed.DEAD:
            self._log.error("job: dead letter", job=job.job_id, reason=reason)
        if reason not in NO_FAILURES:
            self._vitals.count_failed()

    def _apology(self) -> Reply | None:
        text = self._run_environment.agent.policies.apology
        return None if text is None else text_reply(text)

    def _lost(self, entry_id: str) -> None:
        """Notes that a job is no longer ours, unless its end is being written: then that itself may have removed it."""
        hand = self._hands.get(entry_id)
        if hand is not None and not hand.ending:
            self._log.warning("job: lost to another worker", job=hand.job.job_id)
            hand.ended = True
            hand.scope.cancel()

    def _superseded(self, entry_id: str) -> None:
        hand = self._hands.get(entry_id)
        if hand is not None and self._run_environment.agent.policies.stop and self._company is not None:
            self._company.start_soon(self._unless_refused, hand, self._hear_why)
        else:
            self._supersede(hand)

    async def _hear_why(self, hand: Hand) -> None:
        """Ends a run whose person has said /stop, or to which a later message has come."""
        why = await until_redis_answers(partial(self._bus.stopped, hand.job))
        if why != STOP_ALL:
            self._supersede(hand)
        elif not hand.ending and (hand.job.is_first_run or hand.is_known):  # else it is told when it begins
            hand.stop()

    def _supersede(self, hand: Hand | None) -> None:
        if hand is None or hand.job.continues:  # an answer that a thread goes on with is not interrupted
            return
        if hand.ending:  # what it has said last goes out with that, and is kept as said
            return
        if hand.job.is_first_run or hand.is_known:
            hand.superseded = True
            hand.scope.cancel()
        # else whether it is superseded is told when it begins, after it was bound to the question that it answers

    async def _be_seen(self) -> None:
        late_seconds = 0.0
        while True:
            try:
                await self._bus.seen(self._vitals.presence(late_seconds * 1000))
            except RedisFailed as error:
                self._log.info("worker: could not say that it lives", reason=error.reason)
            due = trio.current_time() + self._settings.seen_seconds
            await trio.sleep_until(due)
            late_seconds = trio.current_time() - due


def _taken_by(reason: str) -> Taken:
    """Returns what a run that ended for this reason takes from its job: what asks to be run again is bounded by deliveries, and has not failed."""
    if reason in (WAITS, REDIS_FULL):
        return "nothing"
    return "delivery" if reason in NO_FAILURES else "attempt"
