"""Tells where the owner's code stands that holds the event loop, so that every other job of the worker waits for it.

A call that blocks in an `async def` handler is the usual cause: a client that is no trio one, time.sleep, a long calculation. Its job's time limit
ends it, after ten minutes unless HASHEE_JOB_SECONDS says otherwise; until then nothing else shows whose it is.
"""

import sys
import threading
import traceback
from typing import Final

import trio

from workers.process.logs import Log, owners_place, where_it_stands

STALLED_MS: Final = 10_000.0
"""As long as a worker may say nothing at all: a machine that is short of processors is late by less."""

WELL_MS: Final = 1_000.0


OPENING_SECONDS: Final = 30.0
"""After so long it is said that `lifespan` has not opened what it opens: a service that never answers shows nowhere else."""


async def say_that_it_opens(log: Log, task: trio.lowlevel.Task, opening: trio.CancelScope) -> None:
    """Says once where a task stands in the owner's lifespan that takes long to open. `opening` is cancelled when it has opened."""
    with opening:
        await trio.sleep(OPENING_SECONDS)
        log.warning(
            "worker: lifespan has not yielded yet, no message is taken before",
            seconds=round(OPENING_SECONDS),
            at=where_it_stands(task),
            remedy="give what it waits for a time limit: with trio.fail_after(10)",
        )


class StallWatch:
    """Of one worker's event loop, which runs in the thread that this is made in. Says each stall once."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loop_thread = threading.get_ident()
        self._is_told = False

    def note(self, lag_ms: float | None) -> None:
        """Takes a reading, in the thread that makes heartbeats."""
        if lag_ms is None or lag_ms < WELL_MS:
            self._is_told = False
        elif lag_ms >= STALLED_MS and not self._is_told and (at := self._where_it_stands()):
            self._is_told = True
            self._log.warning(
                "worker: a handler holds the event loop, all its other jobs wait",
                seconds=round(lag_ms / 1000),
                at=at,
                remedy="make it a plain `def`, or call what blocks by trio.to_thread.run_sync",
            )

    def _where_it_stands(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        stack = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False) if frame else []
        return owners_place(stack[::-1])
