"""The plugin for pytest: `addopts = "-p workers.testing.plugin"` runs every `async def test_…` under trio, with a clock that nobody waits for.

Where pytest-trio runs the async tests this has nothing to do: ask for its fixture `mock_clock` there. pytest is no dependency of ours, and
nothing of it is imported.
"""

import inspect
import sys
from typing import Any

import trio
from trio.testing import MockClock

from host.entrance import PackageShadowed, refuse_shadows

OTHERS = ("trio", "anyio", "asyncio")
"""Markers of tests that another plugin runs."""


def pytest_configure(config: Any) -> None:
    """Ends the run with a line if a file beside the tests has the name of one of our packages, as every command does."""
    try:
        refuse_shadows(config.rootpath, remedy="run the tests from elsewhere")
    except PackageShadowed as problem:
        raise sys.modules["pytest"].UsageError(f"hashee-agent: {problem}") from None


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
