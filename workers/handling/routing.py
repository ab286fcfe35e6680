"""Which function gets which message. A `Router` holds functions, and is included into an agent, which binds them (workers/handling/asking.py).

The first match wins, in this order: commands and answers to cards that are named, answers to any card, messages of named payload types,
all other messages.
"""

import inspect
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, TypeVar, overload

import msgspec

from bus.records.events import EVENTS
from bus.records.records import InboundMessage, JobKind
from bus.records.timers import EVERY
from workers.errors import BadHandler, BadReminder
from workers.files.inbound import Message, message_in
from workers.handling.asking import Binding, Occasion, OwnersFunction, is_async, name_of
from workers.handling.tooling import ToolSettings
from workers.talk.payloads import ANSWERS
from workers.talk.reminding import check_name
from workers.tools.tool import TIMEOUT_SECONDS, Sensitivity

Function = TypeVar("Function", bound=OwnersFunction)
Around = TypeVar("Around", bound=Callable[..., AsyncIterator[None] | AbstractAsyncContextManager[object]])
When: TypeAlias = str | re.Pattern[str] | Callable[[Message], object] | None
Named: TypeAlias = Mapping[str, object]

# Of PROTOCOL §4. A filter by another name would never match.
PAYLOAD_TYPES = ("text", "image", "video", "audio", "file", "artifact", "system")
COMMAND = re.compile(r"\w[\w-]{0,31}")
BEHIND_A_COMMAND = "args"
SHORTEST, LONGEST = timedelta(seconds=10), timedelta(days=366)
DATA = "data"
DEFAULT_TIMEOUT: Final = timedelta(seconds=TIMEOUT_SECONDS)
OF_MESSAGES: frozenset[Occasion] = frozenset({"message", "answer"})
"""On these occasions a function takes what people send. The others are no payload type: nobody can send a reminder."""

NOTHING: Named = {}


class Match:
    """Decides about a message beside its payload type."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of values that a function must ask for."""
        return ()

    @property
    def offered(self) -> tuple[str, ...]:
        """The names of values that it may ask for."""
        return ()

    def __call__(self, message: InboundMessage) -> Named | None:
        """Returns the values with a name; None if it does not match."""
        raise NotImplementedError


@dataclass(frozen=True)
class OfPattern(Match):
    """The whole text, without the white space around it, matches."""

    pattern: re.Pattern[str]

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.pattern.groupindex)

    def __call__(self, message: InboundMessage) -> Named | None:
        found = self.pattern.fullmatch(message.text.strip())
        return None if found is None else found.groupdict()


@dataclass(frozen=True)
class OfFunction(Match):
    """A function of the owner says yes to the message."""

    function: Callable[[Message], object]

    def __call__(self, message: InboundMessage) -> Named | None:
        return NOTHING if self.function(message_in(message, None)) else None


@dataclass(frozen=True)
class _Named(Match):
    """Goes by names; none stands for all."""

    names: tuple[str, ...]

    def shared_with(self, other: Match | None) -> str | None:
        """Returns the names that both take, '' if both stand for all; None for none."""
        if not isinstance(other, _Named) or type(other) is not type(self):
            return None
        if not self.names and not other.names:
            return ""
        return ", ".join(sorted(set(self.names) & set(other.names))) or None


@dataclass(frozen=True)
class OfCommand(_Named):
    """The text is `/name`, with something behind it or not."""

    @property
    def offered(self) -> tuple[str, ...]:
        return (BEHIND_A_COMMAND,)

    def __call__(self, message: InboundMessage) -> Named | None:
        words = message.text.split(maxsplit=1)
        if not words or words[0][:1] != "/" or words[0][1:].lower() not in self.names:
            return None
        return {BEHIND_A_COMMAND: words[1].rstrip() if words[1:] else ""}


@dataclass(frozen=True)
class OfAnswer(_Named):
    """An artifact that answers another one; with `names` one that says of itself, by its subtype or its `ui`, that it is one of them."""

    def __call__(self, message: InboundMessage) -> Named | None:
        artifact = message.payload.get("artifact")
        if not isinstance(artifact, dict) or artifact.get("subtype") not in ANSWERS:
            return None
        if not self.names or artifact["subtype"] in self.names:
            return NOTHING
        inside = artifact.get("payload")
        ui = artifact.get("ui") or (inside.get("ui") if isinstance(inside, dict) else None)
        return NOTHING if ui in self.names else None


@dataclass(frozen=True)
class OfReminder(_Named):
    """A reminder of one of these names."""

    @property
    def offered(self) -> tuple[str, ...]:
        return (DATA,)

    def __call__(self, message: InboundMessage) -> Named | None:
        if message.payload.get("name") not in self.names:
            return None
        data = message.payload.get("data")
        return {DATA: msgspec.msgpack.decode(data) if isinstance(data, bytes) and data else None}


@dataclass(frozen=True)
class OfEvery(_Named):
    """What runs by itself each so many `seconds`, under its function's name."""

    seconds: int

    def __call__(self, message: InboundMessage) -> Named | None:
        return NOTHING if message.payload.get("name") in {EVERY + name for name in self.names} else None


@dataclass(frozen=True)
class OfEvent(_Named):
    """An event of one of these names."""

    def __call__(self, message: InboundMessage) -> Named | None:
        event = message.payload.get("event")
        return NOTHING if isinstance(event, dict) and event.get("name") in self.names else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Registration:
    """A function as it was registered. `rank`: those of a lower one are asked first. `payload_types`: none stands for all."""

    function: OwnersFunction
    kind: Literal["handler", "error", "around", "tool"]
    router: "Router"
    on: Occasion
    rank: int = 0
    payload_types: tuple[str, ...] = ()
    match: Match | None = None
    errors: tuple[type[Exception], ...] = ()
    tool: ToolSettings | None = None

    @property
    def name(self) -> str:
        return name_of(self.function)


@dataclass(frozen=True, eq=False)
class Handler:
    """A registered function, how it is called, and for what."""

    registration: Registration
    binding: Binding

    @property
    def name(self) -> str:
        return self.binding.name

    @property
    def full_name(self) -> str:
        """Returns the name by which a later process finds it: its module, a colon, and what it is called there."""
        return f"{getattr(self.function, '__module__', '')}:{self.name}"

    @property
    def match(self) -> Match | None:
        return self.registration.match

    @property
    def function(self) -> OwnersFunction:
        return self.binding.function

    @property
    def is_async(self) -> bool:
        return self.binding.is_async

    @property
    def payload_types(self) -> tuple[str, ...]:
        return self.registration.payload_types

    def takes(self, message: InboundMessage) -> Named | None:
        """Returns the values with a name if it takes a message of one of its payload types, else None."""
        match = self.registration.match
        if match is None:
            return NOTHING
        found = match(message)
        return self.binding.converted(found) if found and self.binding.named else found


@dataclass(frozen=True, eq=False)
class Course:
    """What is called for a message: `around`, from the outermost, then the handler. `errors`: who takes which exception, the nearest first."""

    handler: Handler
    named: Named
    around: tuple[Binding, ...] = ()
    errors: tuple[tuple[tuple[type[Exception], ...], Binding], ...] = ()

    def taker_of(self, error: BaseException) -> Binding | None:
        """Returns the function that takes an exception, else None."""
        return next((binding for kinds, binding in self.errors if isinstance(error, kinds)), None)


class Router:
    """Functions for messages that are kept together, in a module of their own, say; `agent.include(router)` gives them to an agent."""

    is_agent = False

    def __init__(self) -> None:
        self._registrations: list[Registration] = []
        self._included: list[Router] = []
        self._parent: Router | None = None

    def on_message(self, *payload_types: str, when: When = None) -> Callable[[Function], Function]:
        """Registers a function, sync or async, for messages. It asks for what it needs (docs/handlers.md). Raises BadHandler.

        With payload types it gets only these; without any it gets what no function with types takes.
        `when`: a regular expression for the whole text (capitals are the same as small letters, unless it is compiled), whose named groups
        become parameters and are converted by their annotations; or a function that says yes to a message. Groups that cannot be
        converted are no match.
        """
        if payload_types and callable(payload_types[0]):
            raise BadHandler("write @agent.on_message() with the parentheses")
        if unknown := [name for name in payload_types if name not in PAYLOAD_TYPES]:
            raise BadHandler(f"payload types are {', '.join(PAYLOAD_TYPES)}, not {', '.join(map(str, unknown))}")
        return self._registering("message", 2 if payload_types else 3, payload_types, _match_of(when))

    def on_command(self, *names: str) -> Callable[[Function], Function]:
        """Registers a function for texts that are `/name`; what stands behind it is the parameter `args`. Raises BadHandler."""
        if not names or callable(names[0]):
            raise BadHandler('name the command: @agent.on_command("help")')
        for name in names:
            if not COMMAND.fullmatch(name):
                raise BadHandler(f"a command is a word of at most 32 letters, without its slash, not {name!r}")
        return self._registering("message", 0, ("text",), OfCommand(tuple(name.lower() for name in names)))

    def on_artifact_response(self, *names: str) -> Callable[[Function], Function]:
        """Registers a function for answers to cards: with names to cards of these subtypes or renderers (`ui`). Raises BadHandler."""
        if names and callable(names[0]):
            raise BadHandler("write @agent.on_artifact_response() with the parentheses")
        return self._registering("answer", 0 if names else 1, ("artifact",), OfAnswer(names))

    def on_reminder(self, *names: str) -> Callable[[Function], Function]:
        """Registers a function for reminders of these names (`chat.remind`). It may ask for `data`, converted by its annotation. Raises BadHandler."""
        if not names or callable(names[0]):
            raise BadHandler('name the reminder: @agent.on_reminder("digest")')
        for name in names:
            try:
                check_name(name)
            except BadReminder as error:
                raise BadHandler(str(error)) from None
        return self._registering("reminder", 0, (), OfReminder(names))

    def every(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> Callable[[Function], Function]:
        """Registers a function that runs by itself so often, in one worker of all, in no conversation. Raises BadHandler.

        What was missed while the agent was down runs once. It may ask for the chat, to say something by `chat.to(conversation_id)`.
        """
        period = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if not SHORTEST <= period <= LONGEST:
            raise BadHandler(
                "every(hours=1) takes 10 seconds to 366 days; what runs more often belongs into `lifespan`"
            )

        def register(function: Function) -> Function:
            match = OfEvery((name_of(function),), round(period.total_seconds()))
            return self._registering("reminder", 0, (), match)(function)

        return register

    def on_event(self, *names: str) -> Callable[[Function], Function]:
        """Registers a function for what the relay tells beside messages (bus/records/events.py), such as `relation.established`.

        It may ask for the Event. The relay keeps none: what it tells while nobody is connected is lost. Raises BadHandler.
        """
        if not names or callable(names[0]):
            raise BadHandler('name the event: @agent.on_event("relation.established")')
        if unknown := [name for name in names if name not in EVENTS]:
            raise BadHandler(f"events are {', '.join(sorted(EVENTS))}, not {', '.join(map(str, unknown))}")
        return self._registering("event", 0, (), OfEvent(names))

    def on_error(self, *errors: type[Exception]) -> Callable[[Function], Function]:
        """Registers a function for exceptions of handlers: where it returns, the message is done; what it raises counts instead.

        It asks for what handlers ask for, and for the exception by its type. Retry and Fail are no errors. Raises BadHandler.
        """
        if not errors or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in errors):
            raise BadHandler("name the exceptions: @agent.on_error(TimeoutError)")

        def register(function: Function) -> Function:
            self._add(Registration(function=function, kind="error", router=self, on="error", errors=errors))
            return function

        return register

    @overload
    def tool(self, function: Function) -> Function: ...

    @overload
    def tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        sensitivity: Sensitivity = "low",
        timeout: timedelta = DEFAULT_TIMEOUT,
        approvers: Sequence[str] = (),
    ) -> Callable[[Function], Function]: ...

    def tool(
        self,
        function: Any = None,
        *,
        name: str | None = None,
        description: str | None = None,
        sensitivity: Sensitivity = "low",
        timeout: timedelta = DEFAULT_TIMEOUT,
        approvers: Sequence[str] = (),
    ) -> Any:
        """Registers a function that the language model may call: with the docstring for a description, and a schema of what it takes.

        What it asks for by type it is given as a handler. It returns what the model is told: a text, or what becomes JSON; `ToolError("…")` tells it why
        there is nothing. `sensitivity`: `low` nobody is asked; `medium` a person approves it once in 24 hours; `high` each time, and it runs at
        most once for a call. `approvers`: the ids of who may approve, else who wrote. `timeout`: it is ended then. Raises BadHandler.
        """
        if isinstance(approvers, str):
            raise BadHandler("tool(approvers=[…]) takes the ids of users")
        settings = ToolSettings(
            name=name,
            description=description,
            sensitivity=sensitivity,
            timeout=timeout,
            approvers=tuple(approvers),
        )

        def register(function: Function) -> Function:
            self._add(Registration(function=function, kind="tool", router=self, on="tool", tool=settings))
            return function

        return register if function is None else register(function)

    def around(self, function: Around) -> Around:
        """Registers an async generator with one `yield` (or what gives an async context manager) that is entered around each handler."""
        if any(one.kind == "around" for one in self._registrations):
            raise BadHandler(f"{name_of(function)}: there is one `around` already; enter both in one")
        manager = asynccontextmanager(function) if inspect.isasyncgenfunction(function) else function
        if is_async(function) or inspect.isgeneratorfunction(function):
            raise BadHandler(f"{name_of(function)}: around is an async generator with one yield")
        self._add(Registration(function=manager, kind="around", router=self, on="around"))
        return function

    def include(self, router: "Router") -> None:
        """Takes over all functions of a router, also those that it gets later. Raises BadHandler."""
        if not isinstance(router, Router) or router.is_agent:
            raise BadHandler(
                f"include takes a Router, not {type(router).__name__}: an agent's functions are put into a Router"
            )
        if router in self._upwards():
            raise BadHandler("a router cannot be included in itself")
        if router._parent is not None:
            raise BadHandler("this router is included already")
        for registration in router._all():
            self._bind(registration)
        router._parent = self
        self._included.append(router)

    def _registering(
        self, on: Occasion, rank: int, payload_types: tuple[str, ...], match: Match | None
    ) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            _check(function)
            self._add(
                Registration(
                    function=function,
                    kind="handler",
                    router=self,
                    on=on,
                    rank=rank,
                    payload_types=payload_types,
                    match=match,
                )
            )
            return function

        return register

    def _add(self, registration: Registration) -> None:
        self._bind(registration)
        self._registrations.append(registration)

    def _bind(self, registration: Registration) -> None:
        """Has the agent that this belongs to, if there is one yet, find out what the function asks for. Raises BadHandler."""
        if self._parent is not None:
            self._parent._bind(registration)

    def _all(self) -> list[Registration]:
        return [*self._registrations, *(one for router in self._included for one in router._all())]

    def _upwards(self) -> "list[Router]":
        return [self, *([] if self._parent is None else self._parent._upwards())]


@dataclass
class Routes:
    """The functions of one agent in the order in which they are asked."""

    handlers: list[Handler] = field(default_factory=list)
    _errors: list[Handler] = field(default_factory=list)
    _arounds: list[Handler] = field(default_factory=list)
    _by_type: dict[str, tuple[Course, ...]] = field(default_factory=dict)

    def add(self, handler: Handler) -> None:
        """Adds a function. Raises BadHandler for one that would never be called."""
        into = {"handler": self.handlers, "error": self._errors, "around": self._arounds}[handler.registration.kind]
        if into is self.handlers:
            for known in self.handlers:
                _refuse_a_second(known.registration, handler.registration)
        into.append(handler)
        self._by_type.clear()

    def course_of(self, message: InboundMessage) -> Course | None:
        """Returns what is called for a message; None if nobody takes it."""
        payload_type = str(message.payload.get("type", ""))
        courses = self._by_type.get(payload_type)
        if courses is None:
            courses = self._courses(payload_type)
            if payload_type in PAYLOAD_TYPES:  # whatever else a sender writes there is not remembered
                self._by_type[payload_type] = courses
        for course in courses:
            named = course.handler.takes(message)
            if named is not None:
                return course if not named else Course(course.handler, named, course.around, course.errors)
        return None

    def course_of_placed(self, message: InboundMessage, kind: JobKind) -> Course | None:
        """Returns what is called for a job that no message began; None if nobody takes it. Raises BadReminder."""
        for handler in self.handlers:
            match = handler.registration.match
            if handler.registration.on != kind or match is None or (named := match(message)) is None:
                continue
            converted = handler.binding.converted(named)
            if converted is None:
                raise BadReminder(
                    f"{handler.name} asks for other data than this {kind} has: it was set with another type, or with none"
                )
            course = self._course(handler)
            return Course(handler, converted, course.around, course.errors)
        return None

    def course_named(self, name: str, message: InboundMessage) -> Course | None:
        """Returns the course of the handler with this name (`full_name`) for a message that it took before; None if it is gone."""
        for handler in self.handlers:
            if handler.full_name == name and (named := handler.takes(message)) is not None:
                course = self._course(handler)
                return Course(course.handler, named, course.around, course.errors)
        return None

    def _courses(self, payload_type: str) -> tuple[Course, ...]:
        takers = [
            one
            for one in self.handlers
            if one.registration.on in OF_MESSAGES and (not one.payload_types or payload_type in one.payload_types)
        ]
        return tuple(self._course(one) for one in sorted(takers, key=lambda one: one.registration.rank))

    def _course(self, handler: Handler) -> Course:
        routers = handler.registration.router._upwards()
        around = [one.binding for router in routers for one in self._arounds if one.registration.router is router]
        errors = [
            (one.registration.errors, one.binding)
            for router in routers
            for one in self._errors
            if one.registration.router is router
        ]
        return Course(handler, NOTHING, tuple(reversed(around)), tuple(errors))


def _match_of(when: When) -> Match | None:
    if when is None:
        return None
    if isinstance(when, re.Pattern):
        return OfPattern(when)
    if callable(when):
        if is_async(when):
            raise BadHandler(f"when={name_of(when)} is async; it says yes or no at once")
        return OfFunction(when)
    try:
        return OfPattern(re.compile(when, re.IGNORECASE))
    except (re.error, TypeError) as error:
        raise BadHandler(f"when={when!r} is no regular expression: {error}") from None


def _check(function: OwnersFunction) -> None:
    if not callable(function):
        raise BadHandler(f"{name_of(function)} cannot be called")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise BadHandler(f"{name_of(function)} contains a yield; send with chat.reply() or chat.stream() instead")


def _refuse_a_second(known: Registration, new: Registration) -> None:
    """Refuses a handler that would never be called, since a known one takes all that it takes."""
    if known.rank != new.rank:
        return
    if isinstance(new.match, _Named):
        if (both := new.match.shared_with(known.match)) is not None:
            raise BadHandler(f"{new.name}: {known.name} already takes {both or 'all answers to cards'}")
        return
    if known.match is not None:
        return
    if not known.payload_types and not new.payload_types:
        what = "all messages that no other handler takes"
    elif shared := set(known.payload_types) & set(new.payload_types):
        what = ", ".join(sorted(shared))
    else:
        return
    before = "; register this one, with its `when`, before it" if new.match is not None else ""
    raise BadHandler(f"{new.name}: {known.name} already takes {what}{before}")
