"""Ends a worker without a supervisor when a job hangs it; with one, supervisor/pool/process.py does that from outside.

When a job exceeds its time limit it is ended in Redis and its handler cancelled. A handler that still runs is a thread, or blocks the event
loop: its slot, or the whole worker, is lost until the process ends. The platform then starts another.
"""

import threading
from collections.abc import Callable

from host import stacks
from workers.process.logs import Log
from workers.process.vitals import Vitals

# Twice as long as a supervisor waits: if there is one it acts first.
GRACE_SECONDS = 20.0
LOOK_SECONDS = 1.0


class OverrunWatch:
    """Calls `leave` once, in a thread of its own, when a job has run for `job_seconds` and the grace after it."""

    def __init__(
        self,
        vitals: Vitals,
        log: Log,
        job_seconds: float,
        leave: Callable[[], None],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._vitals = vitals
        self._log = log
        self._most_seconds = job_seconds + GRACE_SECONDS
        self._leave = leave
        self._look_seconds = look_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overrun-watch", daemon=True)

    @property
    def dead_threads(self) -> list[str]:
        """Returns its thread's name if that has ended without having been told to."""
        return [] if self._stop.is_set() or self._thread.is_alive() else [self._thread.name]

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._look_seconds):
            seconds = self._vitals.longest_run_seconds()
            if seconds > self._most_seconds:
                self._log.error("worker: a job hangs it, it leaves for another", seconds=round(seconds))
                self._log.error("worker: stacks", stacks=stacks.dump(None))
                self._stop.set()
                self._leave()
