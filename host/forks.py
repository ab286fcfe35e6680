"""What becomes of a process that was forked from ours without exec, as by `os.fork()` or multiprocessing, and comes back into code of ours.

It has our descriptors and none of our threads. Went it on, two processes would speak on one connection and take each other's answers, so it is
ended. What it does before, in the code that has forked it, is nobody's concern.
"""

import os
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import NoReturn

from host.log_stream import drain_streams

_home: ContextVar[int] = ContextVar("home")

Tell = Callable[[BaseException | None], None]
"""Hears what a process raised that came back."""


class ForksStay:
    """A block, around foreign code, that no process leaves which was forked in it."""

    __slots__ = ("_pid", "_tell")

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        self._pid = os.getpid()
        _home.set(self._pid)

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            end_this_fork(self._tell, error)


def is_forked() -> bool:
    """Returns whether this process was forked within the block that this code runs in."""
    return _home.get(os.getpid()) != os.getpid()


def end_this_fork(tell: Tell, error: BaseException | None) -> NoReturn:
    """Ends this process, with the status that Python would end it with."""
    try:
        tell(error)
        drain_streams()
    finally:
        os._exit(_status(error))


def _status(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        return 1
    if isinstance(error.code, int):
        return error.code & 0xFF
    return 0 if error.code is None else 1
