"""A tool as a model's turn sees it, and where tools come from.

What is shown of a tool and what is run is one value: `fingerprint` is made of all by which a person and a model know it, and a tool
whose description or schema has changed is another one.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Protocol, TypeAlias

Sensitivity: TypeAlias = Literal["low", "medium", "high"]
"""When a person is asked: never, once in 24 h, each time. A `high` tool runs at most once for a call."""

Arguments: TypeAlias = Mapping[str, object]
"""JSON values by name."""

TIMEOUT_SECONDS: Final = 60.0
FUNCTION: Final = "function"
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What endpoints take as the name of a tool."""


class BadArguments(Exception):
    """Arguments that a tool does not take. Its text is for the model."""


def as_they_are(arguments: Arguments) -> Arguments:
    """Returns arguments that are checked elsewhere."""
    return arguments


@dataclass(frozen=True, kw_only=True)
class Tool:
    """Something that a model may call.

    `name`: as the model calls it, unique among the tools of an agent. `schema`: the JSON Schema of its arguments, an object. `check` returns the
    arguments as they will be run, with every default, or raises BadArguments; what it returns is what people are shown, and what `run` is given.
    `run` returns what the model is told: a text, or what becomes JSON. It raises ToolError with words for the model; OutcomeUnknown where nobody
    knows whether it was done. Of any other exception the model hears its class alone.
    `server`: where it comes from, '' for a function of the agent; `title`: what it is called there. `approvers`: the ids of who may approve a
    call; else who wrote may.
    """

    name: str
    description: str
    schema: Mapping[str, object]
    run: Callable[[Arguments], Awaitable[object]]
    check: Callable[[Arguments], Arguments] = as_they_are
    sensitivity: Sensitivity = "high"
    server: str = ""
    title: str = ""
    timeout_seconds: float = TIMEOUT_SECONDS
    approvers: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Returns the SHA-256 (hex) of server, name, description and schema."""
        shown = [self.server, self.name, self.title, self.description, self.schema]
        return hashlib.sha256(canonical(shown)).hexdigest()

    def as_offered(self) -> dict[str, object]:
        """Returns it as endpoints take it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.schema)}
        return {"type": FUNCTION, FUNCTION: function}


Observe: TypeAlias = Callable[..., None]


def observe_nothing(_metric: str, _value: float, **_labels: str) -> None:
    """Does nothing: there is no supervisor."""


class ToolSource(Protocol):
    """Where tools come from in a worker. Asked before each turn of the model, so they may change; it answers at once, and does no IO."""

    def tools(self) -> Sequence[Tool]: ...


class OpensTools(Protocol):
    """What an agent is given that has tools, such as an MCP server: opened before a worker's first job, closed behind its last one."""

    def opened(self, observe: Observe = observe_nothing) -> AbstractAsyncContextManager[ToolSource]:
        """`observe` hears what becomes of the connection: a metric, a number, labels."""


def canonical(value: object) -> bytes:
    """Returns JSON that is the same for the same value. Raises ValueError for what is none."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
