"""What a function of the owner may ask for: by type, or unannotated by name. One table has a row for each thing.

What a function asks for is found out once, when it is registered (`bind`); a call only makes the values. A parameter that asks for nothing
in the table, and has no default, is refused then, with the list of what there is.
"""

import inspect
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias, Union, get_args, get_origin

import msgspec
import msgspec.inspect
import trio

from bus.records.events import Event, event_in
from bus.records.records import InboundMessage
from workers.errors import BadHandler
from workers.files.inbound import Message
from workers.handling.blocking import (
    BlockingChat,
    BlockingJob,
    BlockingLLM,
    BlockingMessage,
    BlockingStore,
    blocking_message,
)
from workers.handling.context import JobContext
from workers.kept.history import History
from workers.kept.keeping import Keeping
from workers.kept.state import StateShape
from workers.kept.store import Store
from workers.kept.words import Words
from workers.llm.model import LLM, OpenLLM
from workers.talk.answers import Answer, answer_of
from workers.talk.chat import Chat
from workers.talk.questions import is_from_a_text
from workers.tools.calls import TellFailed, ToolCalls, tell_nobody
from workers.tools.tool import Tool, ToolSource

OwnersFunction: TypeAlias = Callable[..., object] | Callable[..., Awaitable[object]]

Occasion: TypeAlias = Literal["message", "answer", "event", "reminder", "error", "around", "tool"]
"""Why a function is called: a message (of a command too), an answer to a card, an event, a reminder, another's exception, around another, by a model."""

EVERY: frozenset[Occasion] = frozenset({"message", "answer", "event", "reminder", "error", "around", "tool"})
STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
UNSAID: tuple[object, ...] = (inspect.Parameter.empty, Any, object)
"""Annotations that say nothing: the parameter's name counts."""

OF_OTHERS = frozenset({"update", "context", "ctx", "bot"})
"""What other libraries call what they give to handlers; a message in its place would be met much later, by an AttributeError."""

BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(eq=False, kw_only=True)
class Present:
    """All that is there for the functions that are called in one run of a job.

    `named`: values with a name of their own (groups of `when`, what stands behind a command). `shared`: what `lifespan` yielded.
    `keeping`: what is kept of the conversation. `loaded`: what rows have loaded for this run, by the row's name. `error`: what a handler
    raised, for the function that takes it. `has_words`: whether the run has said something. `tell_failed` hears which tool has failed, and how.
    """

    message: Message
    chat: Chat
    job: JobContext
    keeping: Keeping
    has_words: Callable[[], bool]
    named: Mapping[str, object] = field(default_factory=dict)
    shared: tuple[object, ...] = ()
    loaded: dict[str, object] = field(default_factory=dict)
    error: BaseException | None = None
    tell_failed: TellFailed = tell_nobody


Make: TypeAlias = Callable[[Present], object]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing to ask for: annotated with one of `kinds` (the first is its public name), or unannotated by `name`.

    `make` returns it, `make_blocking` what a sync function is given instead. `load`, where it has to be waited for, is awaited once before the function is called; `make` then finds what it
    returned in `present.loaded[name]`. `on`: the occasions on which it is there.
    """

    kinds: tuple[type, ...]
    name: str
    make: Make
    make_blocking: Make | None = None
    load: Callable[[Present], Awaitable[object]] | None = None
    on: frozenset[Occasion] = EVERY
    public: str = ""

    @property
    def shown(self) -> str:
        return f"{self.name}: {self.public or self.kinds[0].__name__}"

    def is_named_by(self, annotation: object) -> bool:
        """Returns whether an annotation, or the text of one that cannot be evaluated, names this row."""
        if isinstance(annotation, str):
            name = annotation.rpartition(".")[2]
            return name == self.public or any(name == kind.__name__ for kind in self.kinds)
        return annotation in self.kinds


MESSAGE = Row(
    kinds=(Message, InboundMessage, BlockingMessage),
    name="message",
    make=lambda at: at.message,
    make_blocking=lambda at: blocking_message(at.message),
    on=EVERY - {"event", "reminder"},
    public="Message",
)
CHAT = Row(
    kinds=(Chat, BlockingChat), name="chat", make=lambda at: at.chat, make_blocking=lambda at: BlockingChat(at.chat)
)
JOB = Row(
    kinds=(JobContext, BlockingJob),
    name="job",
    make=lambda at: at.job,
    make_blocking=lambda at: BlockingJob(at.job),
    public="Job",
)
BY_PLACE_EVER = (MESSAGE, CHAT)
"""What the first two parameters of a handler are, whatever they are called, where they ask for nothing else."""

HISTORY = Row(
    kinds=(History,), name="history", make=lambda at: at.loaded["history"], load=lambda at: at.keeping.history()
)
ANSWER = Row(kinds=(Answer,), name="answer", make=lambda at: answer_of(at.message), on=frozenset({"answer"}))
EVENT = Row(kinds=(Event,), name="event", make=lambda at: event_in(at.message), on=frozenset({"event"}))


def _store_of(at: Present) -> Store:
    """Returns the store of a run."""
    return Store(at.keeping.store, at.job.thread, at.has_words)


STORE = Row(
    kinds=(Store, BlockingStore),
    name="store",
    make=_store_of,
    make_blocking=lambda at: BlockingStore(_store_of(at)),
)
ROWS: tuple[Row, ...] = (MESSAGE, CHAT, JOB, HISTORY, STORE, ANSWER, EVENT)
"""What every agent has. What an agent itself brings (its state, what its lifespan yields) is added by `Table`."""


def _llm_of(at: Present) -> LLM:
    """Returns the LLM of a run: that which was opened with the agent's lifespan, bound to it."""
    opened = next(one for one in at.shared if isinstance(one, OpenLLM))
    return opened.for_run(at.chat, at.job.thread, at.job.messages, at.job.observe, _calls_of(at, opened.words))


class BoundLater(Protocol):
    """A function as a tool, for all runs (workers/handling/tooling.py)."""

    def for_run(self, present: Present, threads: trio.CapacityLimiter) -> Tool: ...


@dataclass(frozen=True)
class OpenTools:
    """All tools of an agent in a worker: its functions, and what servers have. `threads`: for functions that are not async."""

    functions: Sequence[BoundLater]
    sources: Sequence[ToolSource]
    threads: trio.CapacityLimiter

    def for_run(self, present: Present) -> Callable[[], Sequence[Tool]]:
        """Returns what says which tools one run has now."""
        functions = [one.for_run(present, self.threads) for one in self.functions]
        return lambda: [*functions, *(tool for source in self.sources for tool in source.tools())]


def _calls_of(at: Present, words: Words) -> ToolCalls:
    """Returns what runs the tools that a run's model calls."""
    tools = next((one for one in at.shared if isinstance(one, OpenTools)), None)
    return ToolCalls(
        thread=at.job.thread,
        chat=at.chat,
        message=at.message,
        observe=at.job.observe,
        tools=_no_tools if tools is None else tools.for_run(at),
        tell_failed=at.tell_failed,
        words=words,
    )


def _no_tools() -> Sequence[Tool]:
    return ()


LLM_ROW = Row(kinds=(LLM, BlockingLLM), name="llm", make=_llm_of, make_blocking=lambda at: BlockingLLM(_llm_of(at)))
"""What an agent with a language model has besides."""


def state_row(shape: StateShape) -> Row:
    """Returns the row of an agent's state class."""
    return Row(
        kinds=(shape.shape,), name="state", make=lambda at: at.loaded["state"], load=lambda at: at.keeping.state(shape)
    )


@dataclass(frozen=True, kw_only=True)
class Table:
    """What the functions of one agent may ask for.

    `shared`: the types that `lifespan` is annotated to yield; None where its annotation does not say, so that any class may be one of them
    (`Agent.lifespan` looks when it has begun).
    """

    rows: tuple[Row, ...] = ROWS
    shared: tuple[type, ...] | None = ()

    def row_of(self, annotation: object, on: Occasion) -> Row | None:
        """Returns the row that an annotation names, also as one of a union (`Chat | BlockingChat`)."""
        for one in _alternatives(annotation):
            for row in self.rows:
                if on in row.on and row.is_named_by(one):
                    return row
        return None

    def row_named(self, name: str, on: Occasion) -> Row | None:
        """Returns the row that an unannotated parameter names."""
        return next((row for row in self.rows if on in row.on and row.name == name), None)

    def has_shared(self, annotation: object) -> bool:
        """Returns whether `lifespan` yields a value of this type, or may do so."""
        if not isinstance(annotation, type) or annotation.__module__ == "builtins" or _is_a_protocol(annotation):
            return False
        if self.shared is None:
            return True
        return any(issubclass(kind, annotation) for kind in self.shared)

    def told(self, on: Occasion, named: Iterable[str] = ()) -> str:
        """Returns the list of what there is."""
        shared = () if self.shared is None else self.shared
        found = [row.shown for row in self.rows if on in row.on]
        return ", ".join([*found, *named, *(f"{kind.__name__} (of lifespan)" for kind in shared)])


@dataclass(frozen=True, eq=False)
class Binding:
    """How a function is called: what is made for its parameters, in their order, and by their names.

    `asks`: the rows that it asks for; `shared`: the types of `lifespan` that it asks for; `named`: how values with a name are converted.
    """

    function: OwnersFunction
    name: str
    is_async: bool
    by_place: tuple[Make, ...]
    by_name: tuple[tuple[str, Make], ...]
    asks: tuple[Row, ...]
    shared: tuple[type, ...] = ()
    named: tuple["Conversion", ...] = ()

    @cached_property
    def loads(self) -> frozenset[str]:
        """The names of what has to be waited for."""
        return frozenset(row.name for row in self.asks if row.load is not None)

    async def load(self, present: Present) -> None:
        """Loads what has to be waited for."""
        if self.loads:
            present.keeping.expect(self.loads)
        for row in self.asks:
            if row.load is not None and row.name not in present.loaded:
                present.loaded[row.name] = await row.load(present)

    def call(self, present: Present) -> object:
        """Calls the function; an async one returns what is to be awaited."""
        arguments = [make(present) for make in self.by_place]
        if not self.by_name:
            return self.function(*arguments)
        return self.function(*arguments, **{name: make(present) for name, make in self.by_name})

    def converted(self, texts: Mapping[str, object]) -> Mapping[str, object] | None:
        """Returns the values with a name as they are asked for; None if one cannot be converted."""
        found = dict(texts)
        for conversion in self.named:
            value = found.get(conversion.name)
            if value is None:  # a group that took no part
                if not conversion.is_optional:
                    return None
                continue
            try:
                found[conversion.name] = msgspec.convert(value, type=conversion.kind, strict=False)
            except msgspec.ValidationError:
                return None
        return found


@dataclass(frozen=True)
class Conversion:
    """A named value that is asked for as `kind`. `is_optional`: its parameter has a default, or may be None."""

    name: str
    kind: Any
    is_optional: bool


@dataclass
class _Asking:
    """What is found out of a function: a maker for each parameter that asks for something."""

    name: str
    is_async: bool
    table: Table
    on: Occasion
    named: Sequence[str]
    makers: dict[str, Make] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    shared: list[type] = field(default_factory=list)
    conversions: list[Conversion] = field(default_factory=list)

    def ask(self, parameter: inspect.Parameter) -> bool:
        """Finds what a parameter asks for; returns False for nothing."""
        annotation = parameter.annotation
        says_nothing = annotation in UNSAID
        if not says_nothing and (row := self.table.row_of(annotation, self.on)):
            self.take(parameter, row)
        elif parameter.name in self.named:
            self._take_named(parameter)
        elif says_nothing and (row := self.table.row_named(parameter.name, self.on)):
            self.take(parameter, row)
        elif self.table.has_shared(annotation) and parameter.default is parameter.empty:
            self.shared.append(annotation)
            self.makers[parameter.name] = shared_of(annotation)
        else:
            return False
        return True

    def take(self, parameter: inspect.Parameter, row: Row) -> None:
        self.makers[parameter.name] = self.maker_of(row)
        self.rows.append(row)

    def maker_of(self, row: Row) -> Make:
        return row.make if self.is_async or row.make_blocking is None else row.make_blocking

    def _take_named(self, parameter: inspect.Parameter) -> None:
        annotation, has_default = parameter.annotation, parameter.default is not parameter.empty
        self.makers[parameter.name] = _named(parameter.name, parameter.default if has_default else None)
        if annotation in UNSAID or (annotation is str and self.on in MESSAGE.on):
            return
        if isinstance(annotation, str) or not _is_convertible(annotation, from_a_text=self.on in MESSAGE.on):
            what = "a text" if self.on in MESSAGE.on else "data"
            raise BadHandler(f"{self.name}: {what} cannot be converted to what `{parameter}` asks for")
        is_optional = has_default or type(None) in _alternatives(annotation)
        self.conversions.append(Conversion(parameter.name, annotation, is_optional))

    def take_by_place(self, signature: inspect.Signature, left: list[inspect.Parameter]) -> list[inspect.Parameter]:
        """Gives message and chat to the first two parameters, whatever they are called; returns those that are left."""
        if any(one.name in OF_OTHERS for one in left):
            return left
        first = [one for one in signature.parameters.values() if one.kind in BY_PLACE][:2]
        if len(first) < len(BY_PLACE_EVER):
            return left
        for parameter, row in zip(first, BY_PLACE_EVER, strict=True):
            is_it = self.makers.get(parameter.name) is self.maker_of(row)
            if not is_it and (parameter not in left or _is_a_class(parameter.annotation)):
                return left
        for parameter, row in zip(first, BY_PLACE_EVER, strict=True):
            if parameter in left:
                self.take(parameter, row)
        return [one for one in left if one not in first]

    def in_order(self, signature: inspect.Signature) -> tuple[tuple[Make, ...], tuple[tuple[str, Make], ...]]:
        """Returns what is given by place (up to the first parameter that is left out), and the rest by name."""
        by_place, by_name, is_whole = list[Make](), list[tuple[str, Make]](), True
        for parameter in signature.parameters.values():
            make = self.makers.get(parameter.name)
            if parameter.kind is parameter.VAR_POSITIONAL and is_whole:
                by_place += map(self.maker_of, BY_PLACE_EVER[len(by_place) :])  # `*rest` has what is left of the two
            elif make is None:
                is_whole = False
            elif parameter.kind in BY_PLACE and is_whole:
                by_place.append(make)
            else:
                by_name.append((parameter.name, make))
        return tuple(by_place), tuple(by_name)


def bind(
    function: OwnersFunction, table: Table, on: Occasion, *, groups: Sequence[str] = (), offered: Sequence[str] = ()
) -> Binding:
    """Finds out what a function asks for on an occasion. Raises BadHandler.

    `groups`: the names of values that it has to ask for, `offered`: of those that it may.
    """
    name = name_of(function)
    signature = signature_of(function, name)
    asking = _Asking(name, is_async(function), table, on, (*groups, *offered))
    parameters = signature.parameters.values()
    left = [one for one in parameters if one.kind not in STARRED and not asking.ask(one)]
    if left and on in MESSAGE.on:
        left = asking.take_by_place(signature, left)
    for parameter in left:
        if parameter.default is parameter.empty:
            raise BadHandler(
                f"{name}{signature}: nothing is known that `{parameter}` could be given; "
                f"what there is: {table.told(on, asking.named)}{_hint(left)}"
            )
    unused = [one for one in groups if one not in asking.makers]
    by_place, by_name = asking.in_order(signature)
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        by_name += tuple((one, _named(one, None)) for one in unused)
    elif unused:
        raise BadHandler(f"{name}{signature} has no parameter `{unused[0]}`, which `when` has a group for")
    return Binding(
        function,
        name,
        asking.is_async,
        by_place,
        by_name,
        tuple(asking.rows),
        tuple(asking.shared),
        tuple(asking.conversions),
    )


def _hint(left: Sequence[inspect.Parameter]) -> str:
    """Returns a sentence for who writes handlers as for another library; '' for anybody else."""
    if not any(one.name in OF_OTHERS for one in left):
        return ""
    return (
        "; `update` and `context` are of another library: here it is `async def start(message, chat)` and "
        "`await chat.reply(…)` (docs/handlers.md, Coming from python-telegram-bot)"
    )


def name_of(function: object) -> str:
    """Returns what a function is called in errors."""
    return str(getattr(function, "__qualname__", repr(type(function))))


def is_async(function: object) -> bool:
    """Returns whether a call gives something to be awaited; an object with an async `__call__` is no coroutine function itself."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )


def _is_a_class(annotation: object) -> bool:
    """Returns whether a parameter asks for a class that nobody knows here; a protocol, say, may describe a message."""
    if annotation in UNSAID:
        return False
    return isinstance(annotation, str) or (isinstance(annotation, type) and not _is_a_protocol(annotation))


def _is_a_protocol(annotation: object) -> bool:
    return bool(getattr(annotation, "_is_protocol", False))


def _named(name: str, default: object) -> Make:
    def make(at: Present) -> object:
        value = at.named.get(name)
        return default if value is None else value

    return make


def shared_of(kind: type) -> Make:
    """Returns what finds a value that `lifespan` has yielded."""
    return lambda at: next(value for value in at.shared if isinstance(value, kind))


def _is_convertible(annotation: Any, *, from_a_text: bool) -> bool:
    """Returns whether something can become one of these; a text: a number, a date, one of some words, … or one of several such."""
    try:
        info = msgspec.inspect.type_info(annotation)
    except TypeError:
        return False
    if not from_a_text:
        return not isinstance(info, msgspec.inspect.CustomType)
    return is_from_a_text(info)


def _alternatives(annotation: object) -> tuple[object, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def signature_of(function: OwnersFunction, name: str) -> inspect.Signature:
    """Returns the signature with evaluated annotations; what cannot be evaluated stays a text. Raises BadHandler."""
    if not callable(function):
        raise BadHandler(f"{name} cannot be called")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise BadHandler(f"{name} does not say which parameters it has; wrap it in a function that does") from None
    inner = inspect.unwrap(function)
    names = getattr(inner, "__globals__", None) or getattr(getattr(inner, "__call__", None), "__globals__", {})  # noqa: B004
    return signature.replace(
        parameters=[one.replace(annotation=_evaluated(one.annotation, names)) for one in signature.parameters.values()]
    )


def _evaluated(annotation: object, names: dict[str, Any]) -> object:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)  # noqa: S307 - the owner's own annotation, as Python evaluates it
    except Exception:  # noqa: BLE001 - imported for type checkers only, say: its text may name a row all the same
        return annotation
