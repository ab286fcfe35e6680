"""An event loop that a handler holds is told in the log, once, with the line that holds it."""

import io
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from workers.process.logs import Log
from workers.process.stalls import OPENING_SECONDS, STALLED_MS, WELL_MS, StallWatch, say_that_it_opens

pytestmark = pytest.mark.pure


def log_into(output: io.StringIO) -> Log:
    logger = logging.Logger("test")
    logger.addHandler(handler := logging.StreamHandler(output))
    handler.setFormatter(logging.Formatter("%(message)s %(values)s"))
    return Log(logger)


def beat(watch: StallWatch, *lags_ms: float | None) -> None:
    """The heartbeats' thread, for which this one waits here as a blocking call does."""

    def note_all() -> None:
        for lag_ms in lags_ms:
            watch.note(lag_ms)

    thread = threading.Thread(target=note_all)
    thread.start()
    thread.join()


def test_a_stall_is_said_once_with_the_line_that_holds_the_loop() -> None:
    watch = StallWatch(log_into(output := io.StringIO()))
    beat(watch, None, 0, STALLED_MS - 1)
    assert output.getvalue() == ""
    beat(watch, STALLED_MS, 2 * STALLED_MS)
    [line] = output.getvalue().splitlines()
    assert "holds the event loop" in line
    assert "'seconds': 10, 'at': 'test_stalls.py:" in line
    beat(watch, WELL_MS - 1, STALLED_MS)
    assert len(output.getvalue().splitlines()) == 2


def test_where_no_line_of_the_owners_holds_it_nothing_is_said() -> None:
    output = io.StringIO()
    with ThreadPoolExecutor(1) as loop:
        watch = loop.submit(StallWatch, log_into(output)).result()
        beat(watch, STALLED_MS)  # while that thread waits in Python's own code
    assert output.getvalue() == ""


@asynccontextmanager
async def lifespan(seconds: float) -> AsyncIterator[None]:
    await trio.sleep(seconds)
    yield


@pytest.mark.parametrize(("seconds", "is_said"), [(OPENING_SECONDS - 1, False), (2 * OPENING_SECONDS, True)])
def test_a_lifespan_that_takes_long_to_open_is_said_once_with_its_line(seconds: float, is_said: bool) -> None:
    output = io.StringIO()

    async def opens() -> None:
        opening = trio.CancelScope()
        trio.lowlevel.spawn_system_task(say_that_it_opens, log_into(output), trio.lowlevel.current_task(), opening)
        async with lifespan(seconds):
            opening.cancel()
            await trio.sleep(OPENING_SECONDS)

    trio.run(opens, clock=trio.testing.MockClock(autojump_threshold=0))
    lines = output.getvalue().splitlines()
    assert len(lines) == is_said
    assert all("lifespan has not yielded yet" in line and "'at': 'test_stalls.py:" in line for line in lines)
