"""Functions of the owner as tools of a language model: `@agent.tool`. What a model may give stands in the signature.

What a function asks for by type (Chat, Job, Store, the state, what `lifespan` yields) it is given as in a handler, and the model hears nothing
of it. All other parameters are the schema. A function that cannot be a tool is refused when it is registered.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, cast, get_args

import msgspec
import trio

from workers.errors import BadHandler, StoreInTool
from workers.handling.asking import (
    STARRED,
    STORE,
    UNSAID,
    Make,
    OwnersFunction,
    Present,
    Row,
    Table,
    is_async,
    name_of,
    shared_of,
    signature_of,
)
from workers.handling.blocking import BlockingStore
from workers.kept.store import Store
from workers.kept.within import within
from workers.tools.tool import (
    NAME,
    TIMEOUT_SECONDS,
    Arguments,
    BadArguments,
    Sensitivity,
    Tool,
    canonical,
)

MOST_DESCRIPTION_CHARACTERS: Final = 4096
LONGEST: Final = timedelta(minutes=9)
"""A job may take ten."""

NO_TOOL_OF: Final = "a tool is called by a language model: write Agent(llm=LLM())"


@dataclass(frozen=True, kw_only=True)
class ToolSettings:
    """What `@agent.tool(…)` says of a function."""

    name: str | None = None
    description: str | None = None
    sensitivity: Sensitivity = "low"
    timeout: timedelta = timedelta(seconds=TIMEOUT_SECONDS)
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FunctionTool:
    """A function as a tool, for all runs. `shape`: its parameters that the model gives; `given`: what makes the others."""

    function: OwnersFunction
    shape: type[msgspec.Struct]
    given: tuple[tuple[str, Make], ...]
    rows: tuple[Row, ...]
    shared: tuple[type, ...]
    tool: Tool

    def for_run(self, present: Present, threads: trio.CapacityLimiter) -> Tool:
        """Returns the tool of one run."""
        return replace(self.tool, run=partial(self._run, present, threads))

    async def _run(self, present: Present, threads: trio.CapacityLimiter, arguments: Arguments) -> object:
        call, names = within(), frozenset(row.name for row in self.rows if row.load is not None)
        if names:
            present.keeping.expect(names)
        for row in self.rows:
            if row.load is not None and row.name not in present.loaded:
                present.loaded[row.name] = await row.load(present)
        if call is not None:  # each call is another thing to do
            key = f"{present.job.idempotency_key}:{call.name}"
            present = replace(present, job=replace(present.job, idempotency_key=key))
        value = msgspec.convert(arguments, self.shape)
        named = {one: getattr(value, one) for one in self.shape.__struct_fields__}
        named |= {name: make(present) for name, make in self.given}
        if is_async(self.function):
            return await cast("Any", self.function)(**named)
        # abandoned on cancel: a thread cannot be stopped, and the model has to be told; its place is free only after its end
        found = await trio.to_thread.run_sync(partial(self.function, **named), limiter=threads, abandon_on_cancel=True)
        return await found if inspect.isawaitable(found) else found


class ToolStore(Store):
    """The store as a tool is given it: what is written with the job's end would be lost where a later run does not run the tool again."""

    async def set(self, key: str, value: object) -> None:  # noqa: ARG002 - as Store.set
        """Raises StoreInTool."""
        raise StoreInTool("set")

    async def add(self, key: str, by: float = 1) -> None:  # noqa: ARG002 - as Store.add
        """Raises StoreInTool."""
        raise StoreInTool("add")


def _store_of(at: Present) -> Store:
    """Returns the store that a tool is given."""
    return ToolStore(at.keeping.store, at.job.thread, at.has_words)


TOOL_STORE: Final = replace(STORE, make=_store_of, make_blocking=lambda at: BlockingStore(_store_of(at)))


def function_tool(function: OwnersFunction, settings: ToolSettings, table: Table) -> FunctionTool:
    """Finds out what a function takes. Raises BadHandler."""
    name = name_of(function)
    _check(function, name, settings)
    signature, is_sync = signature_of(function, name), not is_async(function)
    given, rows, shared, fields = list[tuple[str, Make]](), list[Row](), list[type](), list[Any]()
    for parameter in signature.parameters.values():
        if parameter.kind in STARRED or parameter.kind is parameter.POSITIONAL_ONLY:
            raise BadHandler(f"{name}: a tool's parameters have names, which the model gives, so not `{parameter}`")
        row = _row_of(table, parameter)
        if row is not None:
            given.append((parameter.name, row.make_blocking if is_sync and row.make_blocking else row.make))
            rows.append(row)
        elif table.has_shared(parameter.annotation) and not _is_for_a_model(table, parameter.annotation):
            given.append((parameter.name, shared_of(parameter.annotation)))
            shared.append(parameter.annotation)
        else:
            fields.append(_field(name, parameter))
    shape, schema = _shape(name, fields)
    called = settings.name or name.rpartition(".")[2]
    if not NAME.fullmatch(called):
        raise BadHandler(f"{name}: a tool's name has 1 to 64 characters of A-Z, a-z, 0-9, '_', '-': tool(name=…)")
    said = settings.description if settings.description is not None else inspect.getdoc(function)
    description = (said or called.replace("_", " ")).strip()
    if len(description) > MOST_DESCRIPTION_CHARACTERS:
        raise BadHandler(f"{name}: a tool's description has at most {MOST_DESCRIPTION_CHARACTERS} characters")
    tool = Tool(
        name=called,
        description=description,
        schema=schema,
        run=_unbound,
        check=partial(_checked, shape),
        sensitivity=settings.sensitivity,
        timeout_seconds=settings.timeout.total_seconds(),
        approvers=settings.approvers,
    )
    return FunctionTool(function, shape, tuple(given), tuple(rows), tuple(shared), tool)


def _check(function: OwnersFunction, name: str, settings: ToolSettings) -> None:
    if not callable(function):
        raise BadHandler(f"{name} cannot be called")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise BadHandler(f"{name} contains a yield; a tool returns what the model is told")
    if settings.sensitivity not in get_args(Sensitivity):
        raise BadHandler(f"sensitivity is one of {', '.join(get_args(Sensitivity))}, not {settings.sensitivity!r}")
    if not timedelta(0) < settings.timeout <= LONGEST:
        raise BadHandler(f"{name}: tool(timeout=timedelta(…)) takes more than nothing and at most {LONGEST}")
    if isinstance(settings.approvers, str) or not all(isinstance(one, str) and one for one in settings.approvers):
        raise BadHandler(f"{name}: tool(approvers=[…]) takes the ids of users")
    if settings.approvers and settings.sensitivity == "low":
        raise BadHandler(f"{name}: nobody is asked about a tool that is `low`: tool(sensitivity='high', approvers=[…])")


def _row_of(table: Table, parameter: inspect.Parameter) -> Row | None:
    says_nothing = parameter.annotation in UNSAID
    row = table.row_named(parameter.name, "tool") if says_nothing else table.row_of(parameter.annotation, "tool")
    return TOOL_STORE if row is STORE else row


def _is_for_a_model(table: Table, annotation: object) -> bool:
    """Returns whether a class is what a model gives, where `lifespan` does not say what it yields."""
    return table.shared is None and isinstance(annotation, type) and _is_known(annotation)


def _is_known(annotation: Any) -> bool:
    try:
        return not isinstance(msgspec.inspect.type_info(annotation), msgspec.inspect.CustomType)
    except TypeError:
        return False


def _field(name: str, parameter: inspect.Parameter) -> Any:
    annotation = parameter.annotation
    if annotation in UNSAID or isinstance(annotation, str):
        raise BadHandler(f"{name}: say what `{parameter}` is, so that the model can be told: `{parameter.name}: str`")
    if parameter.name.startswith("_"):
        raise BadHandler(f"{name}: the model gives `{parameter.name}`: a name that does not begin with '_'")
    if parameter.default is parameter.empty:
        return (parameter.name, annotation)
    default = parameter.default
    if isinstance(default, list | dict | set):
        return (parameter.name, annotation, msgspec.field(default_factory=lambda: type(default)(default)))
    return (parameter.name, annotation, default)


def _shape(name: str, fields: Sequence[Any]) -> tuple[type[msgspec.Struct], Mapping[str, object]]:
    """Returns the struct of a tool's arguments, and its JSON Schema."""
    try:
        shape = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        (_top,), components = msgspec.json.schema_components([shape], ref_template="#/$defs/{name}")
        canonical(components)
    except (TypeError, ValueError, NameError) as error:
        raise BadHandler(
            f"{name}: what a model gives is JSON: texts, numbers, dates, Literals, enums, lists, dicts, Structs; "
            f"what is no such thing is asked for by type (Chat, Job, Store, what lifespan yields): {error}"
        ) from None
    schema = dict(components.pop("Arguments"))
    schema.pop("title", None)
    return shape, {**schema, "$defs": components} if components else schema


def _checked(shape: type[msgspec.Struct], arguments: Arguments) -> Arguments:
    """Returns the arguments as the function will get them, with its defaults, as JSON has them. Raises BadArguments."""
    try:
        value = msgspec.convert(dict(arguments), shape)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadArguments(f"The arguments do not fit: {error}") from None
    return cast("Arguments", msgspec.to_builtins(value, str_keys=True))


async def _unbound(_arguments: Arguments) -> object:
    raise BadHandler("this tool is of no run")
