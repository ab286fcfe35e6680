"""The end of a child of ours, waited for without reaping it: by a pidfd, or by a thread where the system refuses one.

An old kernel has no `pidfd_open`, and an old seccomp profile of a container forbids it.
"""

import os

import trio


class ProcessEnd:
    """Of a child that nobody reaps before `wait` has returned, or who waits is gone. Closed once."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._descriptor: int | None = os.pidfd_open(pid)
        except OSError:
            self._descriptor = None

    async def wait(self) -> None:
        """Until it has ended. Cancelling stops the waiting, not the child."""
        if self._descriptor is not None:
            await trio.lowlevel.wait_readable(self._descriptor)
            return
        one_of_its_own = trio.CapacityLimiter(1)  # others' children end when they will
        await trio.to_thread.run_sync(_wait_in_thread, self._pid, abandon_on_cancel=True, limiter=one_of_its_own)

    def close(self) -> None:
        """Nobody waits any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _wait_in_thread(pid: int) -> None:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return  # it has been reaped
