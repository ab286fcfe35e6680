"""What a handler gets to know of its job besides the message, and how it does what must not be done twice."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeAlias, TypeVar, overload

import trio

from bus.records.control import Observation
from workers.errors import BadStep, ChatClosed
from workers.files.inbound import Message
from workers.kept.thread import LAST_NOTE_SECONDS, Step, ThreadRun

Observe: TypeAlias = Callable[[Observation], None]
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


def observe_nothing(_observation: Observation) -> None:
    """Drops the observation; for a worker without a supervisor."""


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The present run of a job.

    `idempotency_key` is the same in every run of the job and in no other job: pass it to the services that the handler calls, so that
    a second run does not order twice. `attempt` counts the tries from 1, of which the next one comes after a
    failure, `deliveries` all runs; `emitted` has the places that an earlier run has sent.
    `messages`: the one that the handler is given last, after those that are handled together with it (`when_busy="coalesce"`);
    the same in every run. `now`: when the message was taken in, the same in every run too. `lateness`: how much later than that a reminder
    was due its job was made: seconds, or days while the agent was down.
    """

    idempotency_key: str
    attempt: int
    deliveries: int = 1
    emitted: frozenset[str] = frozenset()
    messages: tuple[Message, ...] = field(default=(), repr=False)
    _observe: Observe = field(default=observe_nothing, repr=False)
    lateness: timedelta = timedelta(0)
    _accepted_ms: int = field(default=0, repr=False)
    _thread: ThreadRun | None = field(default=None, repr=False)

    def observe(self, metric: str, value: float, **labels: str) -> None:
        """Adds `value` to one of the supervisor's histograms; the supervisor counts and drops an unknown one."""
        self._observe(Observation(metric=metric, labels=labels, value=value))

    @property
    def now(self) -> datetime:
        """Returns when the message was taken in, in UTC."""
        return datetime.fromtimestamp(self._accepted_ms / 1000, UTC)

    @property
    def thread(self) -> ThreadRun:
        """Returns the thread that this run is a part of. Raises ChatClosed outside of a run."""
        if self._thread is None:
            raise ChatClosed("this job is not run by a worker")
        return self._thread

    @overload
    async def step(
        self,
        name: str,
        function: Callable[Parameters, Awaitable[Result]],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result: ...

    @overload
    async def step(
        self, name: str, function: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result: ...

    async def step(self, name: str, function: Callable[..., object], *arguments: object, **named: object) -> object:
        """Calls the function and returns its result, which is noted: a later run of this job returns it without calling the function again.

        A worker that dies within the function has it called again. The name, and how often it was used before in the handler, is what a
        later run knows the step by. Raises BadStep, JournalFull, and what the function raises, which is not noted.
        """
        check_function(name, function)
        await self.thread.until_a_step_may_begin()
        step = self.thread.begin(name, once=False)
        if step.is_done:
            return step.result(function)
        with self.thread.stepping():
            value = function(*arguments, **named)
            return await self.keep(step, function, await value if inspect.isawaitable(value) else value)

    async def keep(self, step: Step, function: Callable[..., object], value: object) -> object:
        """Notes the result of a step, also when the handler is cancelled meanwhile; returns it as every later run gets it."""
        with trio.move_on_after(LAST_NOTE_SECONDS, shield=True):
            return await self.thread.keep(step, function, value, once=False)
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self.thread.keep(step, function, value, once=False)

    @overload
    async def once(
        self,
        name: str,
        function: Callable[Parameters, Awaitable[Result]],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result: ...

    @overload
    async def once(
        self, name: str, function: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result: ...

    async def once(self, name: str, function: Callable[..., object], *arguments: object, **named: object) -> object:
        """As `step`, and the function is called at most once: that it begins is noted before.

        Where its worker died meanwhile a later run raises OutcomeUnknown. No interruption and no drain cancels it.
        """
        check_function(name, function)
        step = await self.begin_once(name)
        if step.is_done:
            return step.result(function)
        try:
            with trio.CancelScope(shield=True), self.thread.stepping():
                value = function(*arguments, **named)
                result = await self.keep_once(step, function, await value if inspect.isawaitable(value) else value)
        finally:
            self.thread.has_ended()
        return result

    async def begin_once(self, name: str) -> Step:
        """Returns the next step of this name; that it begins is noted, unless it is done."""
        await self.thread.until_a_step_may_begin()
        step = self.thread.begin(name, once=True)
        if not step.is_done:
            await self.thread.note_begun(step)
        return step

    async def keep_once(self, step: Step, function: Callable[..., object], value: object) -> object:
        """Notes the result of a step that may be done once, whatever cancels the handler meanwhile."""
        with trio.CancelScope(shield=True):
            kept = await self.thread.keep(step, function, value, once=True)
        return kept


def check_function(name: str, function: object) -> None:
    """Raises BadStep for what cannot be called, before anything is noted of the step."""
    if callable(function):
        return
    if inspect.iscoroutine(function):
        function.close()
    raise BadStep(
        f"step {name!r} takes a function and its arguments, as in job.step('order', order, 'bread'), and not what the function returns"
    )
