"""Runs the handler of one job: finds it, gives it its chat, and waits until everything that it started has ended.

Both the runner and the test harness use this, so a handler behaves in a test as it does in a worker.
"""

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import cast

import msgspec
import trio

from bus.records.cards import CardKept, encode_card
from bus.records.journal import READ_ENTRY
from bus.records.records import InboundMessage, Job, Payload, is_answer_to_card
from bus.steps.job_steps import Said, Settled
from bus.steps.thread_steps import Effect
from host.forks import ForksStay
from workers.errors import HandlerGone, NoAnswer, Outcome, Suspended, WrongLoop
from workers.files.files import FileWay
from workers.files.inbound import messages_in
from workers.handling.agent import Agent
from workers.handling.asking import Binding, Present
from workers.handling.context import JobContext, Observe
from workers.handling.routing import Course
from workers.kept.history import History
from workers.kept.keeping import Keeping
from workers.kept.outlet import Outlet, until_redis_answers
from workers.kept.thread import Draft, ThreadRun
from workers.kept.waits import QUESTION, Answered, Wait, card_named_in
from workers.talk.chat import Chat
from workers.talk.payloads import text_reply
from workers.talk.reminding import Reminding, timer_for
from workers.talk.sending import Sending, SendSoon

# What a run said right before it was cancelled may still be sent, for so long.
LAST_WORDS_SECONDS = 1.0
# A handler that waits for an answer ends as an interrupted one does; longer clean-up is a defect, and holds up the answer.
UNWIND_SECONDS = 5.0


@dataclass(frozen=True)
class RunEnvironment:
    """What all runs of a worker share. `threads` bounds the sync handlers that run at once; `soon`: see Sending.

    `shared`: what the agent's lifespan yielded. `tell_swallowed` hears what a handler that waits raised while it was unwound, `tell_caught` by which
    exception one was unwound that caught it and went on, `hangs` what a run leaves whose handler does not end although it waits, and in which task.
    `deadline`: when all of them end (trio's clock); a handler's own deadline is earlier. `tell_tool_failed` hears by which exception which tool of
    a job's model has failed, `tell_forked` that a process came back which its handler has forked, and what that raised. `files`: the way to files.
    """

    agent: Agent
    outlet: Outlet
    threads: trio.CapacityLimiter
    observe: Observe
    soon: SendSoon | None = None
    shared: tuple[object, ...] = ()
    tell_swallowed: Callable[[Job, BaseException], None] = lambda _job, _error: None
    tell_caught: Callable[[Job, BaseException], None] = lambda _job, _error: None
    hangs: "Callable[[Job, Ended, trio.lowlevel.Task], Awaitable[None]] | None" = None
    deadline: float = math.inf
    tell_tool_failed: Callable[[Job, str, BaseException], None] = lambda _job, _name, _error: None
    tell_forked: Callable[[Job, BaseException | None], None] = lambda _job, _error: None
    files: FileWay | None = None


async def _nothing_to_tell() -> None:
    """Does nothing: the start is noted already, or there is nobody to tell."""


@dataclass(frozen=True)
class Run:
    """One run of a job. `messages`: all that are handled in it, oldest first; `emitted`: places that earlier runs have sent, `cards`: the
    ids of the cards at some of them, `journal`: what they have noted.

    `keeping`: what is kept of the conversation. `begins` is called with the replies of the run, before its handler.
    `resumed`: the wait whose answer it goes on with; `open_waits`: how many the conversation has besides.
    `tell_start` is called before the first reply is sent; `waited` is called with the seconds for which a reply had no room.
    """

    job: Job
    messages: tuple[InboundMessage, ...]
    emitted: frozenset[str] = frozenset()
    tell_start: Callable[[], Awaitable[None]] = _nothing_to_tell
    waited: Callable[[float], None] = lambda _: None
    cards: Mapping[str, str] = field(default_factory=dict)
    begins: Callable[[Sending], None] = lambda _: None
    journal: Mapping[str, bytes | None] = field(default_factory=dict)
    keeping: Keeping | None = None
    resumed: Wait | None = None
    open_waits: int = 0

    @property
    def message(self) -> InboundMessage:
        """The message that the handler gets: the newest."""
        return self.messages[-1]


def resumed(run: Run, answered: Answered) -> Run:
    """Returns a run as it goes on with an answer: with the messages, places and journal of its thread."""
    wait = answered.wait
    read = {name: value for name, value in wait.journal.items() if name == READ_ENTRY}
    return replace(
        run,
        messages=tuple(wait.messages),
        emitted=run.emitted | frozenset(wait.places),
        cards={**wait.cards, **run.cards},
        journal={**wait.journal, **run.journal, **read, wait.entry: answered.entry},
        resumed=wait,
    )


@dataclass(frozen=True)
class Ended:
    """The end of a run. `handled`: the agent has a handler for this payload type. `last`: replies that are still to be sent.

    `effects`: what is to be written with the job's end.
    """

    handled: bool
    last: tuple[Said, ...] = ()
    effects: tuple[Effect, ...] = ()
    outcome: Settled = "done"


def keeping_of(environment: RunEnvironment, run: Run) -> Keeping:
    """Returns what a run keeps of its conversation."""
    return Keeping(
        run.job,
        environment.outlet,
        run.messages,
        has_history=environment.agent.has_history,
        journal=run.journal,
        emitted=run.emitted,
    )


async def run_handler(
    environment: RunEnvironment, run: Run, lost: Callable[[], None], give_back: Callable[[], None] | None = None
) -> Ended:
    """Runs the job's handler to its end. `lost`, `give_back`: see ThreadRun; both cancel it.

    Raises what the handler raised; from a group of exceptions that holds a Retry or Fail, that one.
    """
    run, course = await _course_of(environment, run)
    keeping = keeping_of(environment, run) if run.keeping is None else run.keeping
    if course is None and is_answer_to_card(run.message.payload):
        # Of what answers nothing (any more) nothing is kept: a model that reads of a yes would take it for one.
        return Ended(handled=True, last=(("0", text_reply(environment.agent.words.not_open)),))
    if course is None:
        return Ended(handled=False, effects=tuple(keeping.exchange()))
    async with trio.open_nursery() as helpers:
        begun = _begin(environment, course, run, keeping, helpers=helpers, lost=lost, give_back=give_back)
        raised = await begun.to_its_end()
        helpers.cancel_scope.cancel()
    if raised is None:
        return begun.ended()
    raised = _plain(raised)
    if isinstance(raised, NoAnswer):
        return Ended(
            handled=True, effects=dropped(run.resumed), outcome="no_answer"
        )  # what it said stays said, nothing else of it is kept
    try:
        raise raised
    finally:
        del raised  # its traceback has this frame: in a circle the message would stay until circles are looked for


async def _course_of(environment: RunEnvironment, run: Run) -> tuple[Run, Course | None]:
    """Returns what is called for the message of a run, and the run as its handler sees it; None if no handler takes it. Raises HandlerGone."""
    agent = environment.agent
    if run.resumed is not None:
        course = agent.course_named(run.resumed.handler, run.message)
        if course is None:
            raise HandlerGone(run.resumed.handler)
        return run, course
    kept = await _card_answered(environment.outlet, run)
    if kept is not None:
        run = _with_what_is_answered(run, kept)
    course = agent.course_of(run.message, run.job.kind)
    return run, None if is_answer_to_card(run.message.payload) and not _may_be_answered(kept, course) else course


async def _card_answered(outlet: Outlet, run: Run) -> CardKept | None:
    """Returns what is kept of the card that the message of a run answers; None if it answers none, or one that was never shown here."""
    artifact = run.message.payload.get("artifact")
    card_id = card_named_in(artifact) if isinstance(artifact, dict) and is_answer_to_card(run.message.payload) else ""
    return await until_redis_answers(partial(outlet.card, run.job, card_id)) if card_id else None


def _may_be_answered(kept: CardKept | None, course: Course | None) -> bool:
    """Returns whether an answer to a card goes to the handler that takes it: neither to a question that is no longer open, nor to a card that
    was never shown here, unless the handler takes all artifacts, also of `chat.send`.
    """
    if kept is not None:
        return not kept.place.startswith(QUESTION)
    return course is not None and course.handler.registration.on == "message" and bool(course.handler.payload_types)


def _with_what_is_answered(run: Run, kept: CardKept) -> Run:
    """Returns the run of an answer to a card with what that card is, in `ui`: the renderer of an app, else the subtype."""
    artifact = cast("Payload", run.message.payload["artifact"])
    known = {**artifact, "ui": kept.kind.rpartition(" ")[2]}
    payload = {**run.message.payload, "artifact": known}
    message = msgspec.structs.replace(run.message, payload=payload)
    return replace(run, messages=(*run.messages[:-1], message))


def _begin(
    environment: RunEnvironment,
    course: Course,
    run: Run,
    keeping: Keeping,
    *,
    helpers: trio.Nursery,
    lost: Callable[[], None],
    give_back: Callable[[], None] | None,
) -> "_Begun":
    """Puts together by what a run says something, and by what it notes something."""
    sending = Sending(
        run.job,
        environment.outlet,
        emitted=run.emitted,
        helpers=helpers,
        lost=lost,
        soon=environment.soon,
        tell_start=run.tell_start,
        waited=run.waited,
        hops=max([message.answering_hops for message in run.messages]),
        cards=run.cards,
        keeping=keeping,
        words=environment.agent.words,
    )
    thread = ThreadRun(
        run.job,
        environment.outlet,
        run.journal,
        lost=lost,
        check_open=sending.check_open,
        keeping=keeping,
        carried=run.resumed.journal if run.resumed is not None else None,
        answers=(run.resumed.entry, *run.resumed.left) if run.resumed is not None else (),
        deadline=environment.deadline,
        give_back=give_back,
        close=sending.suspend,
        charged=environment.agent.budgets.charged_for(run.messages[0]),
    )
    thread.open_waits = run.open_waits
    run.begins(sending)
    return _Begun(environment, course, run, sending, thread)


@dataclass(slots=True, eq=False)
class _Begun:
    """A run that has begun. `last`: its replies that are still to be sent, once its handler has ended."""

    environment: RunEnvironment
    course: Course
    run: Run
    sending: Sending
    thread: ThreadRun
    last: tuple[Said, ...] = ()

    async def to_its_end(self) -> BaseException | None:
        """Calls the handler until it ends or waits for an answer. Returns what it raised, after what it said before was sent."""
        sending = self.sending
        try:
            try:
                await self._call_until_it_waits()
            finally:
                sending.close()
                self.thread.on_suspended = None  # it holds this run, and its message until cycles are looked for
            self._leave_what_is_kept()
            self.last = await sending.take_last()
        except BaseException as error:  # noqa: BLE001 - raised again
            raised = of_the_handler(error)
            try:
                if raised is None:
                    raise
                await sending.flush()
                return raised  # raised again outside of the helpers' nursery
            finally:
                del raised  # as below
        finally:
            if sending.is_holding:  # nothing is left unless we were cancelled
                with trio.move_on_after(LAST_WORDS_SECONDS, shield=True):
                    await sending.flush()
        return None

    async def _call_until_it_waits(self) -> None:
        """Calls the handler. Where it asks for something this run is unwound as by an interruption, and `thread.draft` says what it waits for."""
        thread, task = self.thread, trio.lowlevel.current_task()
        thread.on_suspended = lambda: self.sending.helpers.start_soon(self._end_if_it_hangs, task)
        is_unwound = False
        try:
            with thread.scope:
                try:
                    await self._call()
                except BaseException as error:
                    is_unwound = any(one is thread.suspended or isinstance(one, Exception) for one in _leaves(error))
                    raise
        except BaseException as error:
            if not (self.thread.is_left or self.thread.draft) or not _is_left_by_a_wait(error):
                raise
            for other in _leaves(error):
                if not isinstance(other, Suspended):
                    self.environment.tell_swallowed(self.run.job, other)
        if thread.is_left:
            await trio.lowlevel.checkpoint()  # whoever was told has cancelled it
        elif thread.draft and not is_unwound:
            self.environment.tell_caught(self.run.job, thread.suspended)

    async def _end_if_it_hangs(self, task: trio.lowlevel.Task) -> None:
        """Ends the run in the place of a handler that waits for an answer and is not unwound: then its answer finds it waiting."""
        await trio.sleep(UNWIND_SECONDS)
        if self.environment.hangs is not None:
            with trio.CancelScope(shield=True):
                self.last = await self.sending.take_last()
                await self.environment.hangs(self.run.job, self.ended(), task)

    async def _call(self) -> None:
        """Calls the handler within what stands around it; an error goes to the function that takes it, if there is one."""
        course, present = self.course, self._present(await self._said_before())
        if not course.around and not course.errors:
            await self._invoke(course.handler.binding, present)
            return
        try:
            async with AsyncExitStack() as stack:
                for around in course.around:
                    await around.load(present)
                    await stack.enter_async_context(cast("AbstractAsyncContextManager[object]", around.call(present)))
                await self._invoke(course.handler.binding, present)
        except Exception as error:
            present.error = _plain(error)
            taker = None if isinstance(present.error, Outcome) else course.taker_of(present.error)
            if taker is None:
                raise
            self.thread.keeping.undo()  # a handler that failed leaves nothing
            self.thread.effects.undo()
            present.loaded.pop("state", None)
            await self._invoke(taker, present)

    async def _said_before(self) -> History | None:
        """Returns what was said before, in which a message that quotes another one is looked for; None where it is not kept, or not needed."""
        quoted = {message.reply_to for message in self.run.messages if message.reply_to is not None}
        if not quoted or not self.thread.keeping.has_history:
            return None
        if quoted <= {message.message_id for message in self.run.messages}:
            return None
        return await self.thread.keeping.history()

    def _present(self, said_before: History | None) -> Present:
        """Returns what the functions of this run may ask for."""
        run, thread, sending, way = self.run, self.thread, self.sending, self.environment.files
        job = run.job
        files = None if way is None else way.for_run(thread, sending.helpers, sending.check_open)
        messages = messages_in(run.messages, files, said_before)
        context = JobContext(
            idempotency_key=job.thread_id,
            attempt=job.attempt,
            deliveries=job.deliveries,
            emitted=run.emitted,
            messages=messages,
            lateness=_lateness(job),
            _observe=self.environment.observe,
            _accepted_ms=job.accepted_ms,
            _thread=thread,
        )
        reminding = Reminding(thread, self.environment.outlet, run.message)
        return Present(
            message=messages[-1],
            chat=Chat(sending, messages[-1], reminding, thread, files=files),
            job=context,
            keeping=thread.keeping,
            has_words=lambda: sending.has_words,
            named=self.course.named,
            shared=self.environment.shared,
            tell_failed=partial(self.environment.tell_tool_failed, job),
        )

    async def _invoke(self, binding: Binding, present: Present) -> None:
        """Calls a function of the owner: an async one here, another in a thread."""
        await binding.load(present)
        tell_forked = partial(self.environment.tell_forked, self.run.job)
        if binding.is_async:
            with ForksStay(tell_forked):
                result = binding.call(present)
                if inspect.isawaitable(result):
                    await result
            return

        def call() -> None:
            with ForksStay(tell_forked):
                binding.call(present)

        # Not abandoned on cancel: a thread cannot be stopped, so its slot is free only after its end.
        await trio.to_thread.run_sync(call, limiter=self.environment.threads)

    def _leave_what_is_kept(self) -> None:
        """Has the state, the store's changes and what was said written with the job's end; a run that waits leaves that to the one that goes on."""
        thread = self.thread
        if thread.draft is None:
            thread.check_answer_used()
            for effect in thread.keeping.effects():
                thread.effects.add(*effect)

    def ended(self) -> Ended:
        """Returns the end of a run whose handler raised nothing: it is done, or it waits."""
        effects = (*self.thread.effects.taken(), *dropped(self.run.resumed))
        if self.thread.draft is None:
            return Ended(handled=True, last=self.last, effects=effects)
        return Ended(
            handled=True, last=self.last, effects=(*effects, *self._waiting(self.thread.draft)), outcome="waiting"
        )

    def _waiting(self, draft: Draft) -> tuple[Effect, ...]:
        """Returns the effects by which the thread waits, with all that it needs to go on, and by which it goes on without an answer."""
        run, sending, outlet = self.run, self.sending, self.environment.outlet
        wait = Wait(
            id=draft.id,
            thread_id=run.job.thread_id,
            handler=self.course.handler.full_name,
            messages=list(run.messages),
            message_ms=run.job.message_ms,
            accepted_ms=run.job.accepted_ms,
            epoch=run.job.epoch,
            journal={**self.thread.journal, **self.thread.keeping.noted()},
            places=sorted(sending.places),
            cards=sending.cards,
            entry=draft.entry,
            kind=draft.kind,
            who=draft.who,
            due_ms=draft.due_ms,
            question_hash=draft.question_hash,
            asked_ms=draft.asked_ms,
            left=self.thread.left,
            place=draft.place,
        )
        deadline = timer_for(run.message, run.job, wait.id, wait.due_ms, kind="deadline", name=wait.id)
        card = CardKept(0, run.job.thread_id, draft.place, draft.kind)
        shows: tuple[Effect, ...] = () if draft.kind == "text" else (("card", wait.id, encode_card(card), ""),)
        return (
            *shows,
            ("wait", wait.id, outlet.seal_wait(run.job, wait.id, wait.encoded()), ""),
            ("timer", wait.id, wait.due_ms, outlet.seal_timer(deadline)),
        )


def dropped(wait: Wait | None) -> tuple[Effect, ...]:
    """Returns the effects by which the wait that was answered is gone, and its deadline."""
    if wait is None:
        return ()
    return ("drop_wait", wait.id, "", ""), ("drop_timer", wait.id, "", "")


def of_the_handler(error: BaseException) -> BaseException | None:
    """Returns what a handler has raised, to be called in the task that it ran in; None where that is nothing of its own: the task is cancelled, or
    somebody interrupts at the keyboard.

    What is no Exception is a handler's too: asyncio's CancelledError, the panic of a library in Rust, a time limit of gevent's.
    """
    if isinstance(error, Exception | SystemExit):
        return error
    if any(isinstance(one, KeyboardInterrupt) for one in _leaves(error)):
        return None
    if trio.current_effective_deadline() > -math.inf:
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    # what was raised on the way out, beside what ended it
    return error.split(lambda one: not isinstance(one, Exception | BaseExceptionGroup))[1]


def _is_left_by_a_wait(error: BaseException) -> bool:
    """Returns whether nothing else ends the worker's task: no cancellation from outside, no interrupt from the keyboard."""
    return all(isinstance(one, Suspended | Exception) for one in _leaves(error))


def _lateness(job: Job) -> timedelta:
    if job.kind == "message":
        return timedelta(0)
    due_ms = job.message.payload.get("due_ms")
    return timedelta(milliseconds=max(0, job.accepted_ms - due_ms)) if isinstance(due_ms, int) else timedelta(0)


def _plain(error: BaseException) -> BaseException:
    """What the handler raised: of a group with one Retry or Fail in it that, of a group of one that one, and of asyncio's words ours."""
    leaves = _leaves(error)
    for leaf in leaves:
        if isinstance(leaf, Outcome):
            return leaf
    if len(leaves) != 1:
        return error
    [error] = leaves
    return WrongLoop().with_traceback(error.__traceback__) if _is_of_asyncio(error) else error


def _is_of_asyncio(error: BaseException) -> bool:
    """asyncio finds no loop of its own, or trio is handed something to wait for that is asyncio's."""
    is_without_loop = isinstance(error, RuntimeError) and str(error) == "no running event loop"
    return is_without_loop or (
        isinstance(error, TypeError) and str(error).startswith("trio.run received unrecognized yield message")
    )


def _leaves(error: BaseException) -> list[BaseException]:
    """Returns the exceptions of a group and of the groups in it; of another exception itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in _leaves(part)]
