"""Ends a worker without a supervisor when a job hangs it; with one, supervisor/pool/process.py does that from outside.

When a job exceeds its time limit it is ended in Redis and its handler cancelled. A handler that still runs is a thread, or blocks the event
loop: its slot, or the whole worker, is lost until the process ends. The platform then starts another.

A call into C that lets no other thread run (a regular expression that takes years) stops the thread that looks for this as well. faulthandler's own
needs no interpreter: unless it is put off again and again, it writes where all threads stand, without values, and ends the process with 1.
"""

import faulthandler
import threading
from collections.abc import Callable

from host import stacks
from host.log_stream import opened_again
from workers.process.logs import Log
from workers.process.vitals import Vitals

# Twice as long as a supervisor waits: if there is one it acts first.
GRACE_SECONDS = 20.0
LOOK_SECONDS = 1.0
STDERR = 2


class OverrunWatch:
    """Calls `leave` once, in a thread of its own, when a job has run for `job_seconds` and the grace after it; ends the process if none has its turn."""

    def __init__(
        self,
        vitals: Vitals,
        log: Log,
        job_seconds: float,
        leave: Callable[[], None],
        *,
        look_seconds: float = LOOK_SECONDS,
        held_seconds: float = GRACE_SECONDS,
    ) -> None:
        """`held_seconds`: how long the interpreter may let no thread run once jobs are taken."""
        self._vitals = vitals
        self._log = log
        self._most_seconds = job_seconds + GRACE_SECONDS
        self._leave = leave
        self._look_seconds = look_seconds
        self._held_seconds = held_seconds
        self._stacks_go_to: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overrun-watch", daemon=True)

    @property
    def dead_threads(self) -> list[str]:
        """Returns its thread's name if that has ended without having been told to."""
        return [] if self._stop.is_set() or self._thread.is_alive() else [self._thread.name]

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def jobs_are_taken(self) -> None:
        """Has the process end from now on when its interpreter is held. Before, a lifespan may hold it for as long as a model loads."""
        again = opened_again(STDERR)
        self._stacks_go_to = STDERR if again is None else again  # None: the journal's socket, which is not opened again
        self._put_off_the_end()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def _put_off_the_end(self) -> None:
        if self._stacks_go_to is not None:
            faulthandler.dump_traceback_later(self._held_seconds, exit=True, file=self._stacks_go_to)

    def _run(self) -> None:
        try:
            self._look()
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _look(self) -> None:
        while not self._stop.wait(self._look_seconds):
            self._put_off_the_end()
            seconds = self._vitals.longest_run_seconds()
            if seconds > self._most_seconds:
                self._log.error("worker: a job hangs it, it leaves for another", seconds=round(seconds))
                self._log.error("worker: stacks", stacks=stacks.dump(None))
                self._stop.set()
                self._leave()
