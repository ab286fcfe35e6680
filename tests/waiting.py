"""How a test waits: for something that it names, so that a wait in vain says what did not come."""

import inspect
import linecache
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

PAUSE_SECONDS = 0.01


@contextmanager
def waiting_for(what: str, seconds: float, seen: Callable[[], object] | None = None) -> Iterator[None]:
    """Gives the block so many seconds of trio's clock; AssertionError says what did not come, and what was seen last."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        last = "" if seen is None else f"; seen last: {seen()!r}"
        raise AssertionError(f"waited {seconds:g} s in vain for {what}{last}")


async def until(
    condition: Callable[[], object],
    seconds: float,
    *,
    pause_seconds: float = PAUSE_SECONDS,
    seen: Callable[[], object] | None = None,
) -> None:
    """Asks the condition (or awaits its answer) until it holds; AssertionError shows the condition if it does not in time."""
    with waiting_for(said_of(condition), seconds, seen):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await trio.sleep(pause_seconds)


def said_of(condition: Callable[..., object]) -> str:
    """How a condition is named in a failure: where it is written, and the line that it begins with."""
    while isinstance(condition, partial):
        condition = condition.func
    code = getattr(condition, "__code__", None)
    if code is None:
        return repr(condition)
    line = linecache.getline(code.co_filename, code.co_firstlineno).strip()
    return f"`{line}` ({Path(code.co_filename).name}:{code.co_firstlineno})"
