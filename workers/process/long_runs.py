"""Attends to runs of handlers that take long: nearly all are short, and cost no task and no nursery of their own.

One task looks at the oldest of the short ones. What it begins for a run ends with that run, at its end.
"""

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from types import TracebackType

import trio

Attend = Callable[[trio.Nursery], Awaitable[None]]


class LongRun:
    """One run, for the block of its handler. A class and no generator, which costs several times as much: each job has one."""

    def __init__(self, runs: "LongRuns", attend: Attend, failed: Callable[[Exception], None]) -> None:
        self._runs = runs
        self._attend = attend
        self._failed = failed
        self._scope = trio.CancelScope()
        self._end: trio.Event | None = None
        self._context = copy_context()
        self.due = 0.0

    async def __aenter__(self) -> None:
        self.due = self._runs.begin(self)

    async def __aexit__(
        self, _kind: type[BaseException] | None, _raised: BaseException | None, _at: TracebackType | None
    ) -> None:
        """Waits until nothing is done for the run any more."""
        self._runs.end(self)
        if self._end is not None:
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._end.wait()

    def attend(self, nursery: trio.Nursery) -> None:
        """Begins what is to be done, in the context of the run."""
        self._end = trio.Event()
        self._context.run(nursery.start_soon, self._work, self._end)

    async def _work(self, end: trio.Event) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await self._attend(nursery)
        except Exception as error:  # noqa: BLE001 - it fails this run, and no other
            self._failed(error)
        finally:
            end.set()


class LongRuns:
    """The runs of one worker. One is attended to when it has taken `after_seconds`."""

    def __init__(self, after_seconds: float) -> None:
        self._after_seconds = after_seconds
        self._short: dict[LongRun, None] = {}
        self._has_begun = trio.Event()

    def run(self, attend: Attend, failed: Callable[[Exception], None]) -> LongRun:
        """Returns a context manager for one run. `attend` is cancelled at its end; `failed` is told what it raised before."""
        return LongRun(self, attend, failed)

    def begin(self, run: LongRun) -> float:
        """Called when a run begins. Returns when it is attended to."""
        self._short[run] = None
        self._has_begun.set()
        return trio.current_time() + self._after_seconds

    def end(self, run: LongRun) -> None:
        """Called when a run ends."""
        self._short.pop(run, None)

    async def watch(self, nursery: trio.Nursery) -> None:
        """Attends to runs until cancelled, in that nursery."""
        while True:
            for run in list(self._short):  # in the order in which they have begun
                if run.due > trio.current_time():
                    await trio.sleep_until(run.due)
                if run in self._short:
                    del self._short[run]
                    run.attend(nursery)
            if not self._short:
                self._has_begun = trio.Event()
                await self._has_begun.wait()
