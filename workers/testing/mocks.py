"""Tools in a test: what stands in a tool's place is called with its arguments; who is asked before it, and how often it runs, is as always."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import trio

from workers.handling.asking import OpenTools, Present
from workers.tools.tool import Arguments, Tool, ToolSource

Mocks: TypeAlias = Mapping[str, object]
"""By the name of each tool what stands in its place: a function of its arguments, async or not, or what it returns."""


def with_mocks(shared: tuple[object, ...], mocks: Mocks) -> tuple[object, ...]:
    """Returns what an agent's lifespan yields, with these in the place of its tools."""
    return tuple(_mocked(one, mocks) if isinstance(one, OpenTools) else one for one in shared)


def _mocked(tools: OpenTools, mocks: Mocks) -> OpenTools:
    functions = [_BoundLater(one, mocks) for one in tools.functions]
    return replace(tools, functions=functions, sources=[_Source(one, mocks) for one in tools.sources])


@dataclass(frozen=True)
class _BoundLater:
    """A function of the agent."""

    function: Any
    mocks: Mocks

    def for_run(self, present: Present, threads: trio.CapacityLimiter) -> Tool:
        """Returns the tool of one run."""
        return _instead(self.function.for_run(present, threads), self.mocks)


@dataclass(frozen=True)
class _Source:
    """The tools of a server."""

    source: ToolSource
    mocks: Mocks

    def tools(self) -> Sequence[Tool]:
        """Returns those that it has now."""
        return [_instead(one, self.mocks) for one in self.source.tools()]


def _instead(tool: Tool, mocks: Mocks) -> Tool:
    if tool.name not in mocks:
        return tool
    mock = mocks[tool.name]

    async def run(arguments: Arguments) -> object:
        await trio.lowlevel.checkpoint()
        if not callable(mock):
            return mock
        call: Callable[..., object] = mock
        found = call(**arguments)
        return await found if inspect.isawaitable(found) else found

    return replace(tool, run=run)
