"""The object that an owner's code registers its handlers with. It holds functions and nothing else.

A handler with a fault is refused when it is registered, not when the first message comes.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, get_args

from bus.records.records import InboundMessage
from bus.steps.policies import APOLOGY, MOST_WAITING, REFUSAL, Busy, Full, Policies
from workers.context import JobContext
from workers.errors import BadHandler

HandlerFunction: TypeAlias = Callable[..., object] | Callable[..., Awaitable[object]]
Function = TypeVar("Function", bound=HandlerFunction)
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]

MOST_WAITING_EVER = 10_000
MOST_POLICY_CHARACTERS = 2000
# Of PROTOCOL §4. A filter by another name would never match.
PAYLOAD_TYPES = ("text", "image", "video", "audio", "file", "artifact", "system")


@dataclass(frozen=True)
class Handler:
    """A registered function, how it is called, and for which payload types (none: all that no other handler names).

    `job_parameter`: the name of the parameter that takes the JobContext, None without one.
    """

    function: HandlerFunction
    is_async: bool
    job_parameter: str | None
    payload_types: tuple[str, ...]

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__qualname__)

    async def call(self, message: InboundMessage, chat: object, job: object) -> None:
        """Awaits an async handler."""
        result = self._call(message, chat, job)
        if inspect.isawaitable(result):
            await result

    def call_blocking(self, message: InboundMessage, chat: object, job: object) -> None:
        """Calls a sync handler, in the thread of the caller."""
        self._call(message, chat, job)

    def _call(self, message: InboundMessage, chat: object, job: object) -> object:
        if self.job_parameter is None:
            return self.function(message, chat)
        return self.function(message, chat, **{self.job_parameter: job})


class Agent:
    """An agent's handlers, and what is done with messages that come faster than they are answered.

    `lifespan` is a function that gives an async context manager: entered before the first job and left after the last one,
    in each worker process, for connections that all jobs share.
    `when_busy`: a message that comes while another of its conversation is handled waits for it (`queue`), cancels it
    (`interrupt`), or is handled together with all that wait when the next run starts (`coalesce`: see `job.messages`).
    `most_waiting`: so many messages of one conversation may wait; what comes then is answered with the text `refusal` (`refuse`) or
    waits outside (`park`).
    `apology`: what the sender of a message hears that was given up for good (a dead letter), once; with None they hear nothing. A group
    hears it if the message mentioned this agent, another agent if the message was no answer to one of ours.
    """

    def __init__(
        self,
        *,
        lifespan: Lifespan | None = None,
        when_busy: Busy = "queue",
        most_waiting: int = MOST_WAITING,
        when_full: Full = "refuse",
        refusal: str = REFUSAL,
        apology: str | None = APOLOGY,
    ) -> None:
        self._handlers: list[Handler] = []
        self._lifespan = lifespan
        _check_policies(when_busy, most_waiting, when_full, (refusal, apology))
        self.policies = Policies(
            busy=when_busy, most_waiting=most_waiting, full=when_full, refusal=refusal, apology=apology
        )

    def on_message(self, *payload_types: str) -> Callable[[Function], Function]:
        """Registers a function `(message, chat)` or `(message, chat, job)`, sync or async, for messages.

        With payload types it gets only these; without any it gets what no other function takes. Raises BadHandler.
        """
        if payload_types and callable(payload_types[0]):
            raise BadHandler("write @agent.on_message() with the parentheses")
        if unknown := [name for name in payload_types if name not in PAYLOAD_TYPES]:
            raise BadHandler(f"payload types are {', '.join(PAYLOAD_TYPES)}, not {', '.join(map(str, unknown))}")

        def register(function: Function) -> Function:
            handler = _handler(function, payload_types)
            self._refuse_a_second(handler)
            self._handlers.append(handler)
            return function

        return register

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return tuple(self._handlers)

    def handler_for(self, payload_type: str) -> Handler | None:
        """Returns the function that names the type, else the one that names none, else None."""
        for handler in self._handlers:
            if payload_type in handler.payload_types:
                return handler
        return next((handler for handler in self._handlers if not handler.payload_types), None)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Enters and leaves the owner's `lifespan` around all jobs."""
        if self._lifespan is None:
            yield
            return
        async with self._lifespan():
            yield

    def _refuse_a_second(self, new: Handler) -> None:
        for known in self._handlers:
            if not known.payload_types and not new.payload_types:
                raise BadHandler(f"{new.name}: {known.name} already takes all messages that no other handler takes")
            if both := set(known.payload_types) & set(new.payload_types):
                raise BadHandler(f"{new.name}: {known.name} already takes {', '.join(sorted(both))}")


def _check_policies(when_busy: str, most_waiting: int, when_full: str, texts: Iterable[str | None]) -> None:
    if when_busy not in get_args(Busy):
        raise BadHandler(f"when_busy is one of {', '.join(get_args(Busy))}, not {when_busy!r}")
    if when_full not in get_args(Full):
        raise BadHandler(f"when_full is one of {', '.join(get_args(Full))}, not {when_full!r}")
    if not 1 <= most_waiting <= MOST_WAITING_EVER:
        raise BadHandler(f"most_waiting is a number from 1 to {MOST_WAITING_EVER}, not {most_waiting!r}")
    for text in texts:
        if text is not None and not 1 <= len(text) <= MOST_POLICY_CHARACTERS:
            raise BadHandler(f"refusal and apology have 1 to {MOST_POLICY_CHARACTERS} characters")


def _handler(function: HandlerFunction, payload_types: tuple[str, ...]) -> Handler:
    name = getattr(function, "__qualname__", repr(type(function)))
    if not callable(function):
        raise BadHandler(f"{name} cannot be called")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise BadHandler(f"{name} contains a yield; send with chat.reply() or chat.stream() instead")
    return Handler(
        function=function,
        is_async=_is_async(function),
        job_parameter=_job_parameter(function, name),
        payload_types=payload_types,
    )


def _is_async(function: HandlerFunction) -> bool:
    # An object with an async __call__ is not a coroutine function itself.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )


def _job_parameter(function: HandlerFunction, name: str) -> str | None:
    """The parameter that is called `job` or annotated with JobContext. Raises BadHandler, also for a third one that is neither."""
    signature = inspect.signature(function)
    named = [one.name for one in signature.parameters.values() if one.name == "job" or _is_job(one.annotation)][:1]
    if _accepts(signature, 2, named):
        return named[0] if named else None
    if not named and _accepts(signature, 3, []):
        raise BadHandler(
            f"{name}{signature}: a third parameter is the job; call it `job`, or annotate it with JobContext"
        )
    raise BadHandler(f"{name}{signature} must take (message, chat) or (message, chat, job)")


def _is_job(annotation: object) -> bool:
    """Where annotations are not evaluated (`from __future__ import annotations`) they are texts."""
    return annotation is JobContext or (isinstance(annotation, str) and annotation.rpartition(".")[2] == "JobContext")


def _accepts(signature: inspect.Signature, count: int, named: Iterable[str]) -> bool:
    """Whether it can be called with so many values, and these by name."""
    try:
        signature.bind(*range(count), **dict.fromkeys(named))
    except TypeError:
        return False
    return True
