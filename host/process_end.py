"""Waits for the end of a child without reaping it: by a pidfd, or in a thread where the system refuses one.

An old kernel has no `pidfd_open`, and an old seccomp profile of a container forbids it.
"""

import os

import trio


class ProcessEnd:
    """The end of one child. Nobody may reap the child before `wait` has returned or was cancelled; `close` it once."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._descriptor: int | None = os.pidfd_open(pid)
        except OSError:
            self._descriptor = None

    async def wait(self) -> None:
        """Returns when the child has ended. Cancelling stops the waiting, not the child."""
        if self._descriptor is not None:
            await trio.lowlevel.wait_readable(self._descriptor)
            return
        one_of_its_own = trio.CapacityLimiter(1)  # the shared limit would be used up by children that run for long
        await trio.to_thread.run_sync(_wait_in_thread, self._pid, abandon_on_cancel=True, limiter=one_of_its_own)

    def close(self) -> None:
        """Gives the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _wait_in_thread(pid: int) -> None:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return  # it has been reaped
