"""Starts children that end when their parent does, even when the parent is killed with SIGKILL.

The kernel's parent-death signal is tied to the thread that forked, and a parent may die before the child asks for it:
fork from the main thread, and compare the parent afterwards. Run as a program (`python -c SOURCE PARENT_PID PROGRAM
ARGUMENTS`) it arms itself and becomes the program, so that no Python runs between fork and exec in a process with
threads. It imports the standard library only and stays cheap.
"""

import ctypes
import os
import resource
import signal
import sys
from functools import cache

PR_SET_PDEATHSIG = 1
PARENT_IS_GONE = 70  # EX_SOFTWARE of sysexits.h; nobody is left to read it


def die_with_parent(parent_pid: int) -> None:
    """Has the kernel send SIGKILL to this process when its parent ends; exits at once if the parent has ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent_pid:
        os._exit(PARENT_IS_GONE)


def command(parent_pid: int, argv: list[str], python: str = sys.executable) -> list[str]:
    """Returns the argument list that starts `argv` as a child that dies with `parent_pid`; `python` runs in between."""
    return [python, "-I", "-S", "-c", _source(), str(parent_pid), *argv]


@cache
def _source() -> str:
    """Returns this file's source, read at the first child's start and kept: its release may be deleted later.

    It is ASCII, since it becomes an argument, which not every locale can encode otherwise.
    """
    with open(__file__, encoding="ascii") as file:  # noqa: PTH123 - pathlib would be imported before every child
        return file.read()


def main() -> None:
    parent_pid, *argv = sys.argv[1:]
    die_with_parent(int(parent_pid))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold what may stand nowhere
    os.execvp(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main()
