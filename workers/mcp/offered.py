"""From what a server lists to the tools of an agent: each under a name that endpoints take, within bounds, and of its sensitivity. Pure.

What a server says of itself is a stranger's word: neither a hint nor a description lifts the approval, only the owner's `allow`.
"""

import fnmatch
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import msgspec

from workers.mcp.named import NamedServer
from workers.mcp.schema import ArgumentsCheck, BadSchema
from workers.tools.tool import Arguments, Tool, canonical

MOST_TOOLS: Final = 128
"""Of one server: endpoints take no more, and each is paid for with every turn of the model."""

MOST_TITLE_CHARACTERS: Final = 128
"""Of a tool's name, as the protocol has it."""

MOST_DESCRIPTION_CHARACTERS: Final = 2_000
MOST_SCHEMA_BYTES: Final = 16_384
MOST_NAME_CHARACTERS: Final = 64
HASH_CHARACTERS: Final = 8

Run = Callable[[Tool, Arguments], Awaitable[object]]


class Listed(Protocol):
    """A tool as a server lists it."""

    name: str
    description: str | None
    input_schema: dict[str, object]


@dataclass
class Pins:
    """Which tools need no approval: as `allow` named them when the server was first seen, each by its fingerprint."""

    by_title: dict[str, str] | None = None
    told: set[str] = field(default_factory=set)


class Offer(msgspec.Struct, frozen=True):
    """What a server offers. `left_out`: how many tools are not offered, by why; `changed`: titles that `allow` names, and are not what was pinned."""

    tools: tuple[Tool, ...]
    left_out: Mapping[str, int]
    changed: tuple[str, ...]


def offer_of(listed: Iterable[Listed], server: NamedServer, pins: Pins, run: Run) -> Offer:
    """Returns what is offered of a server's list; the first one pins what is allowed."""
    left_out: Counter[str] = Counter()
    found: dict[str, Tool] = {}
    names: set[str] = set()
    for one in sorted(listed, key=lambda one: not _is_named(one.name, server)):
        if len(found) >= MOST_TOOLS:
            left_out[f"is one of more than {MOST_TOOLS}"] += 1
            continue
        tool = _tool_of(one, server, run)
        if isinstance(tool, str):
            left_out[tool] += 1
        elif tool.name in names:
            left_out["has the name of another one"] += 1
        else:
            found[tool.title] = tool
            names.add(tool.name)
    if pins.by_title is None:
        pins.by_title = _pinned(found, server)
    tools = [_with_its_sensitivity(tool, pins.by_title) for tool in found.values()]
    changed = [one.title for one in tools if one.sensitivity == "high" and _is_named(one.title, server)]
    return Offer(tuple(tools), dict(left_out), tuple(changed))


def _pinned(found: Mapping[str, Tool], server: NamedServer) -> dict[str, str]:
    if isinstance(server.allow, Mapping):
        return dict(server.allow)
    return {title: tool.fingerprint for title, tool in found.items() if _is_named(title, server)}


def _with_its_sensitivity(tool: Tool, pinned: Mapping[str, str]) -> Tool:
    is_allowed = pinned.get(tool.title) == tool.fingerprint
    return replace(tool, sensitivity="low") if is_allowed else tool


def _is_named(title: str, server: NamedServer) -> bool:
    return any(fnmatch.fnmatchcase(title, pattern) for pattern in server.allow)


def _tool_of(one: Listed, server: NamedServer, run: Run) -> Tool | str:
    """Returns the tool, or why it is none."""
    if not 1 <= len(one.name) <= MOST_TITLE_CHARACTERS or not one.name.isprintable():
        return f"has a name of more than {MOST_TITLE_CHARACTERS} characters, or of characters that nobody sees"
    try:
        if len(canonical(one.input_schema)) > MOST_SCHEMA_BYTES:
            return f"has a schema of more than {MOST_SCHEMA_BYTES // 1024} KiB"
        check = ArgumentsCheck(one.input_schema)
    except (BadSchema, ValueError, RecursionError):
        return "has a schema that is none of an object"
    described = f"[{server.name}] {one.description or one.name}"[:MOST_DESCRIPTION_CHARACTERS]

    async def call(arguments: Arguments) -> object:
        return await run(tool, arguments)

    tool = Tool(
        name=_name_of(one.name, server.name),
        description=described.encode(errors="replace").decode(),
        schema=one.input_schema,
        run=call,
        check=check,
        server=f"{server.name} ({server.place})",
        title=one.name,
        timeout_seconds=server.timeout_seconds,
        approvers=server.approvers,
    )
    return tool


def _name_of(title: str, server: str) -> str:
    """Returns a name that endpoints take; one that is not the server's own has a hash of that."""
    wished = f"{server}_{title}"
    clean = re.sub(r"[^A-Za-z0-9_-]", "_", wished)
    if clean == wished and len(clean) <= MOST_NAME_CHARACTERS:
        return clean
    digest = hashlib.sha256(wished.encode(errors="replace")).hexdigest()[:HASH_CHARACTERS]
    return f"{clean[: MOST_NAME_CHARACTERS - HASH_CHARACTERS - 1]}_{digest}"
