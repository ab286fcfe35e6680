"""Routes a worker's output: logs and the owner's prints to the supervisor's stderr, tracebacks to the supervisor alone.

A traceback may quote what a person wrote. So the log gets only an exception's type and place, and the traceback goes to descriptor 2, a
pipe whose last lines the supervisor shows only to its owner. A worker without a supervisor shows no traceback at all.
"""

import faulthandler
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType

from bus.records.control import Crashed
from host.log_stream import divert_stderr, divert_stdout, opened_again, pipe_to_stderr
from host.reasons import remedy_of_threads
from workers.process.logs import Log, kind, where

STDERR = 2


def divert_streams(log_fd: int | None) -> None:
    """Sends `sys.stdout` and `sys.stderr` through a queue, so that no `print` of the owner's waits for the log's reader or fails with it.

    `log_fd`: where `sys.stderr` goes; descriptor 2 stays as the parent made it. None for a worker without a supervisor.
    """
    if log_fd is not None:
        os.set_inheritable(log_fd, False)
    divert_stderr(STDERR if log_fd is None else log_fd)
    divert_stdout()


def dump_on_signals(log_fd: int | None) -> None:
    """Has SIGQUIT, and a crash in C, write stacks to where descriptor 2 goes: file, line and function, no values. A full pipe loses them.

    `log_fd`: as for `divert_streams`; with it descriptor 2 makes nobody wait as it is. SIGQUIT is the only way to see the stack of a thread that
    never releases the interpreter.
    """
    place = STDERR if log_fd is not None else opened_again(STDERR)
    faulthandler.register(signal.SIGQUIT, file=pipe_to_stderr() if place is None else place, all_threads=True)
    faulthandler.enable(file=STDERR if place is None else place, all_threads=False)


class LastWords:
    """Reports uncaught exceptions. `is_heard`: a supervisor reads descriptor 2."""

    def __init__(self, log: Log, *, is_heard: bool) -> None:
        self._log = log
        self._is_heard = is_heard

    def install(self) -> None:
        """Takes over the hooks for exceptions in the owner's threads and finalizers, which do not end the process."""
        threading.excepthook = self._of_thread
        sys.unraisablehook = self._unraisable
        # trio's, of async generators that nobody has closed; it would print their exceptions with what these quote.
        generators = logging.getLogger("trio.async_generator_errors")
        generators.handlers, generators.propagate = [_Hears(self._of_generator)], False

    def of_the_end(self, error: BaseException) -> Crashed:
        """Writes the exception that ends the worker, and returns the message for its supervisor."""
        last = alone(error)
        remedy = remedy_of_threads(last)
        crashed = Crashed(exception=f"{kind(last)} ({remedy})" if remedy else kind(last), at=where(last))
        self._log.warning("worker: crashed", exception=crashed.exception, at=crashed.at)
        self._whisper(error, error.__traceback__)
        return crashed

    def _of_thread(self, uncaught: threading.ExceptHookArgs) -> None:
        if uncaught.exc_value is None:
            return
        name = uncaught.thread.name if uncaught.thread is not None else "unknown"
        error = uncaught.exc_value
        self._log.warning("worker: a thread ended", thread=name, exception=kind(error), at=where(error))
        self._whisper(error, uncaught.exc_traceback)

    def _of_generator(self, error: BaseException) -> None:
        self._log.warning(
            "worker: an async generator that was not closed has raised",
            exception=kind(error),
            at=where(error),
            remedy="use it within contextlib.aclosing(…), where a loop over it may be left",
        )
        self._whisper(error, error.__traceback__)

    def _unraisable(self, uncaught: "sys.UnraisableHookArgs") -> None:
        if uncaught.exc_value is None:
            return
        error = uncaught.exc_value
        self._log.warning("worker: an exception nobody could catch", exception=kind(error), at=where(error))
        self._whisper(error, uncaught.exc_traceback)

    def _whisper(self, error: BaseException, place: TracebackType | None) -> None:
        if not self._is_heard:
            return
        text = "".join(traceback.format_exception(type(error), error, place))
        try:
            os.write(STDERR, text.encode("utf-8", "replace"))
        except OSError:
            return  # the pipe is full or its reader gone: nobody would see it


class _Hears(logging.Handler):
    """Gives the exceptions that are logged to a function, and nothing to anybody else."""

    def __init__(self, hear: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._hear(record.exc_info[1])


def alone(error: BaseException) -> BaseException:
    """Returns the exception inside of the groups that trio wraps around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
