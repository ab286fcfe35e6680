"""Finds and ends the processes that a worker's handler started and left behind, even if they have a session of their own.

A process that starts workers is a subreaper: processes whose parent ended become its children. Each has the name of its worker in its
environment, which tells it apart from our own children and from those of living workers.
"""

import ctypes
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress

import trio

from host import proc

PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.01
COOKIE = "HASHEE_WORKER_NAME"


def become_subreaper() -> None:
    """Makes orphans below this process its children instead of init's. Does nothing on a kernel that cannot."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_strays(is_gone: Callable[[str], bool], group: int | None = None) -> list[int]:
    """Kills the orphans of workers whose name `is_gone`; returns their pids, to be reaped when they have ended.

    `group`: the process group of a worker that is gone; what was killed with it no longer has an environment to be known by.
    """
    strays = [
        pid
        for pid in list(proc.children())
        if ((name := proc.variable(pid, COOKIE)) is not None and is_gone(name))
        or (group is not None and proc.group_of(pid) == group)
    ]
    for pid in strays:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return strays


def reap(pids: Iterable[int]) -> list[int]:
    """Reaps those of these children that have ended; returns the others. Never waits."""
    return [pid for pid in pids if not _reap(pid)]


async def reap_soon(pids: list[int], within_seconds: float) -> None:
    """Reaps these children as they end, for at most so long."""
    with trio.move_on_after(within_seconds):
        while True:
            pids = reap(pids)
            if not pids:
                return
            await trio.sleep(POLL_SECONDS)


def reap_strays(is_ours: Callable[[int], bool]) -> None:
    """Reaps every child that has ended except those that are `is_ours`, which are reaped where they are waited for."""
    reap(pid for pid in list(proc.children()) if not is_ours(pid))


def _reap(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
