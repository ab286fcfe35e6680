"""A worker dies with its supervisor, even when that is killed: the kernel's signal first, the end of the pipe second.

The signal is tied to the parent's thread that forked (TRAPS, Processes), so the parent forks from its main thread, and the
child asks for the signal itself and then looks whether it came too late.
"""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
EXIT_ORPHANED = 74


def die_with_parent(parent_pid: int) -> None:
    """From now on SIGKILL when the parent ends; ends at once if it has ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(EXIT_ORPHANED)
