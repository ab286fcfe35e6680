"""The plugin for pytest: `addopts = "-p workers.testing.plugin"` runs every `async def test_…` under trio, with a clock that nobody waits for.

Where pytest-trio runs the async tests this has nothing to do: ask for its fixture `mock_clock` there. pytest is no dependency of ours, and
nothing of it is imported.
"""

import inspect
from typing import Any

import trio
from trio.testing import MockClock

OTHERS = ("trio", "anyio", "asyncio")
"""Markers of tests that another plugin runs."""


def pytest_pyfunc_call(pyfuncitem: Any) -> object:
    """Runs an async test; anything else is left to others."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function) or any(pyfuncitem.get_closest_marker(name) for name in OTHERS):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters}

    async def run() -> None:
        await function(**arguments)

    trio.run(run, clock=MockClock(), strict_exception_groups=True)
    return True
