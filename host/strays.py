"""What a worker's handler started and left behind, also where it made itself a session of its own: found and ended.

Whoever starts workers is a subreaper: processes whose parent ended become its children. Each carries in its environment the name of
the worker that it came from. So they can be told apart from children of our own, and from those of workers that live.
"""

import ctypes
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import trio

PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.01
COOKIE = "HASHEE_WORKER_NAME"


def become_subreaper() -> None:
    """Orphans below this process become its children, not init's. A kernel that cannot leaves them there."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_strays(is_gone: Callable[[str], bool], group: int | None = None) -> list[int]:
    """Kill the orphans of workers whose name `is_gone`: those that were killed, to be reaped when they have ended.

    `group`: of a worker that is gone; what was killed with its group has no environment to be known by any more.
    """
    strays = [
        pid
        for pid in list(_children())
        if ((name := _worker_of(pid)) is not None and is_gone(name)) or (group is not None and _group_of(pid) == group)
    ]
    for pid in strays:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return strays


def reap(pids: Iterable[int]) -> list[int]:
    """Those of these children that have not ended yet. Never waits."""
    return [pid for pid in pids if not _reap(pid)]


async def reap_soon(pids: list[int], within_seconds: float) -> None:
    """Reap these children as they end."""
    with trio.move_on_after(within_seconds):
        while True:
            pids = reap(pids)
            if not pids:
                return
            await trio.sleep(POLL_SECONDS)


def reap_strays(is_ours: Callable[[int], bool]) -> None:
    """Reap whatever orphan has ended; children of our own are reaped by who waits for them."""
    reap(pid for pid in list(_children()) if not is_ours(pid))


def _children() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            yield from map(int, (task / "children").read_text(encoding="utf-8").split())


def _worker_of(pid: int) -> str | None:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    prefix = f"{COOKIE}=".encode()
    found = next((part for part in environ.split(b"\0") if part.startswith(prefix)), None)
    return None if found is None else found.removeprefix(prefix).decode("utf-8", "replace")


def _group_of(pid: int) -> int | None:
    try:
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[2]
        )
    except OSError:
        return None


def _reap(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
