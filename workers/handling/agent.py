"""The object that an owner's code registers its handlers with. It holds functions and nothing else.

A handler with a fault is refused when it is registered, not when the first message comes.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeAlias, get_args, get_origin, get_type_hints

import msgspec
import trio

from bus.records.records import InboundMessage, JobKind
from bus.steps.policies import APOLOGY, MOST_WAITING, REFUSAL, Busy, Full, InGroups, Policies
from workers.errors import BadHandler, CannotStart
from workers.handling.asking import HISTORY, LLM_ROW, ROWS, Binding, OpenTools, Row, Table, bind, state_row
from workers.handling.budget import Budget, Budgets
from workers.handling.commands import commands_of, help_on
from workers.handling.outside_questions import is_ours, outside_questions
from workers.handling.routing import (
    Course,
    Handler,
    OfCommand,
    OfEvent,
    OfEvery,
    OfReminder,
    Registration,
    Router,
    Routes,
)
from workers.handling.tooling import NO_TOOL_OF, FunctionTool, ToolSettings, function_tool
from workers.kept.state import StateShape
from workers.kept.words import Words
from workers.llm.endpoint import ModelEndpoint
from workers.llm.model import LLM, STOP
from workers.tools.tool import Observe, OpensTools, Tool, observe_nothing

Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]

MOST_WAITING_EVER = 10_000
MOST_POLICY_CHARACTERS = 2000
MOST_THREADS = 32
"""In which tools run at once that are not async; one that hangs keeps its thread."""


class Agent(Router):
    """An agent's handlers, and what is done with messages that come faster than they are answered.

    `lifespan` is a function that gives an async context manager: entered before the first job and left after the last one,
    in each worker process, for connections that all jobs share. What it yields handlers ask for by type.
    `llm`: the language model; handlers ask for `llm: LLM`, and what is said is kept for it. `mcp`: servers whose tools it may call.
    `state`: a msgspec.Struct class of which each conversation has a value; handlers ask for it by its type, and what they change in it is
    written with the job's end. `history`: what is said is kept for `chat.history()`, also where no handler asks for `history: History`.
    `when_busy`: a message that comes while another of its conversation is handled waits for it (`queue`), cancels it
    (`interrupt`), or is handled together with all that wait when the next run starts (`coalesce`: see `job.messages`). Commands and
    answers are handled by themselves, and answers cancel nothing.
    `most_waiting`: so many messages of one conversation may wait; what comes then is answered with the text `refusal` (`refuse`) or
    waits outside (`park`).
    `apology`: what the sender of a message hears that was given up for good (a dead letter), once; with None they hear nothing. A group
    hears it if the message mentioned this agent, another agent if the message was no answer to one of ours.
    `budget`: how much people, or agents, may write, and use of the model (Budget); one or several, all of which count. What is beyond one reaches no
    handler. Without any, only agents that write very much are not answered.
    `words`: what the runtime says by itself, in words of the owner's (Words).
    `groups`: of a group's messages handlers get those that mention the agent (`mentioned`), or all (`all`). Answers to its cards they
    always get.
    """

    is_agent = True

    def __init__(
        self,
        *,
        lifespan: Lifespan | None = None,
        llm: LLM | None = None,
        mcp: Sequence[OpensTools] = (),
        state: type[msgspec.Struct] | None = None,
        history: bool = False,
        when_busy: Busy = "queue",
        most_waiting: int = MOST_WAITING,
        when_full: Full = "refuse",
        refusal: str = REFUSAL,
        apology: str | None = APOLOGY,
        groups: InGroups = "mentioned",
        budget: Budget | Sequence[Budget] | None = None,
        words: Words | None = None,
    ) -> None:
        super().__init__()
        self._lifespan = lifespan
        self.words = words or Words()
        self.budgets = Budgets(budget)
        self.state = None if state is None else StateShape(state)
        rows = ROWS if self.state is None else (*ROWS, state_row(self.state))
        self.llm = llm
        rows = rows if llm is None else (*rows, LLM_ROW)
        if mcp and llm is None:
            raise BadHandler(NO_TOOL_OF)
        self._mcp = tuple(mcp)
        self._tools: list[FunctionTool] = []
        self._table = Table(rows=rows, shared=_yielded_by(lifespan))
        self._has_history = history
        self._routes = Routes()
        self._built_in = Routes()
        """What it has by itself: its owner's commands come first."""

        self._of_runtime = Routes()
        """What the runtime asks and does on behalf of others than who writes."""

        self._bindings: list[Binding] = []
        _check_policies(when_busy, most_waiting, when_full, (refusal, apology))
        if groups not in get_args(InGroups):
            raise BadHandler(f"groups is one of {', '.join(get_args(InGroups))}, not {groups!r}")
        self.policies = Policies(
            busy=when_busy,
            most_waiting=most_waiting,
            full=when_full,
            refusal=refusal,
            apology=apology,
            groups=groups,
        )
        for registration in outside_questions()._all():
            self._of_runtime.add(self._handler_of(registration))
        if llm is not None:
            for registration in commands_of(llm.commands, self.words, self._help)._all():
                self._built_in.add(self._handler_of(registration))
            self.policies = msgspec.structs.replace(self.policies, stop=STOP in llm.commands)

    def _help(self) -> str:
        """Returns what /help says."""
        if self.llm is not None and self.llm.help is not None:
            return self.llm.help
        of_owner = [name for one in self.handlers if isinstance(one.match, OfCommand) for name in one.match.names]
        return help_on([] if self.llm is None else self.llm.commands, of_owner)

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return tuple(self._routes.handlers)

    @property
    def has_history(self) -> bool:
        """Whether what is said is kept: a function asks for it, or the agent says so."""
        return self._has_history or any(
            HISTORY in binding.asks or LLM_ROW in binding.asks for binding in self._bindings
        )

    def course_of(self, message: InboundMessage, kind: JobKind = "message") -> Course | None:
        """Returns the handler that takes a message, or a job of another kind, and what is called around it; None if none does.

        Raises BadReminder for data that is not what the handler asks for.
        """
        if kind != "message":
            return self._of_runtime.course_of_placed(message, kind) or self._routes.course_of_placed(message, kind)
        course = self._routes.course_of(message)
        if not self._built_in.handlers or (course is not None and isinstance(course.handler.match, OfCommand)):
            return course
        return self._built_in.course_of(message) or course

    def has_built_in(self, message: InboundMessage) -> bool:
        """Returns whether a message is a command that the agent has by itself: those cost nothing, and no budget counts them."""
        if not self._built_in.handlers or self._built_in.course_of(message) is None:
            return False
        course = self._routes.course_of(message)
        return course is None or not isinstance(course.handler.match, OfCommand)

    def course_named(self, name: str, message: InboundMessage) -> Course | None:
        """Returns what is called when the handler with this name goes on with a message; None if it is gone."""
        return self._of_runtime.course_named(name, message) or self._routes.course_named(name, message)

    @asynccontextmanager
    async def lifespan(
        self, endpoint: ModelEndpoint | None = None, observe: Observe = observe_nothing
    ) -> AsyncIterator[tuple[object, ...]]:
        """Enters and leaves the owner's `lifespan` around all jobs; gives what it yielded, a tuple taken apart, and the LLM that was opened.

        `endpoint`: a test's, which answers in the model's place. `observe` hears what becomes of connections to MCP servers. Raises CannotStart.
        """
        if self.llm is None:
            async with self._owners_lifespan() as shared:
                yield shared
            return
        async with (
            self.llm.opened(endpoint=endpoint, words=self.words) as opened,
            self._owners_lifespan() as shared,
            AsyncExitStack() as stack,
        ):
            sources = [await stack.enter_async_context(one.opened(observe)) for one in self._mcp]
            yield (*shared, opened, OpenTools(self._tools, sources, trio.CapacityLimiter(MOST_THREADS)))

    @asynccontextmanager
    async def _owners_lifespan(self) -> AsyncIterator[tuple[object, ...]]:
        if self._lifespan is None:
            yield ()
            return
        async with self._lifespan() as yielded:
            shared = yielded if type(yielded) is tuple else () if yielded is None else (yielded,)
            self._check_shared(shared)
            yield shared

    def _check_shared(self, shared: tuple[object, ...]) -> None:
        asks = [(one.name, kind) for one in self._bindings for kind in one.shared]
        asks += [(one.tool.name, kind) for one in self._tools for kind in one.shared]
        for name, kind in asks:
            if not any(isinstance(value, kind) for value in shared):
                found = ", ".join(type(value).__name__ for value in shared) or "nothing"
                raise CannotStart(f"{name} asks for {kind.__name__}, and lifespan yields {found}")

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The functions that the language model may call, in the order in which they were registered."""
        return tuple(one.tool for one in self._tools)

    def _bind_tool(self, registration: Registration) -> None:
        if self.llm is None:
            raise BadHandler(f"{registration.name}: {NO_TOOL_OF}")
        tool = function_tool(registration.function, registration.tool or ToolSettings(), self._table)
        if any(one.tool.name == tool.tool.name for one in self._tools):
            raise BadHandler(f"{registration.name}: there is a tool {tool.tool.name!r} already: tool(name=…)")
        self._tools.append(tool)

    def _bind(self, registration: Registration) -> None:
        if registration.kind == "tool":
            self._bind_tool(registration)
            return
        match = registration.match
        if isinstance(match, OfReminder) and (taken := [name for name in match.names if is_ours(name)]):
            raise BadHandler(f"a reminder called {taken[0]} is the runtime's own: take another name")
        handler = self._handler_of(registration)
        self._routes.add(handler)
        self._bindings.append(handler.binding)
        if isinstance(match, OfCommand) and STOP in match.names:
            self.policies = msgspec.structs.replace(self.policies, stop=False)
        if isinstance(match, OfEvery):
            every = {**self.policies.every, **dict.fromkeys(match.names, match.seconds)}
            self.policies = msgspec.structs.replace(self.policies, every=every)
        if isinstance(match, OfEvent):
            names = {*self.policies.events, *match.names}
            self.policies = msgspec.structs.replace(self.policies, events=tuple(sorted(names)))

    def _handler_of(self, registration: Registration) -> Handler:
        """Finds out what a function asks for. Raises BadHandler."""
        table, match = self._table, registration.match
        if registration.kind == "error":
            error = Row(kinds=(*registration.errors, Exception), name="error", make=lambda at: at.error)
            table = replace(table, rows=(*table.rows, error))
        groups, offered = ((), ()) if match is None else (match.groups, match.offered)
        binding = bind(registration.function, table, registration.on, groups=groups, offered=offered)
        return Handler(registration, binding)


def _yielded_by(lifespan: Lifespan | None) -> tuple[type, ...] | None:
    """Returns the types that `lifespan` is annotated to yield; None if its annotation does not say."""
    if lifespan is None:
        return ()
    try:
        returned = get_type_hints(inspect.unwrap(lifespan)).get("return")
    except (NameError, TypeError, AttributeError):  # imported for type checkers only, say
        return None
    inside = get_args(returned)[:1]
    if not inside:
        return None
    kinds = get_args(inside[0]) if get_origin(inside[0]) is tuple else inside
    kinds = tuple(kind for kind in kinds if kind is not type(None) and kind is not None)
    return kinds if all(isinstance(kind, type) and kind is not object for kind in kinds) else None


def _check_policies(when_busy: str, most_waiting: int, when_full: str, texts: Iterable[str | None]) -> None:
    if when_busy not in get_args(Busy):
        raise BadHandler(f"when_busy is one of {', '.join(get_args(Busy))}, not {when_busy!r}")
    if when_full not in get_args(Full):
        raise BadHandler(f"when_full is one of {', '.join(get_args(Full))}, not {when_full!r}")
    if not 1 <= most_waiting <= MOST_WAITING_EVER:
        raise BadHandler(f"most_waiting is a number from 1 to {MOST_WAITING_EVER}, not {most_waiting!r}")
    for text in texts:
        if text is not None and not 1 <= len(text.strip()) <= len(text) <= MOST_POLICY_CHARACTERS:
            raise BadHandler(f"refusal and apology have 1 to {MOST_POLICY_CHARACTERS} characters")
