"""What the kernel says in /proc, of this host and of single processes, and a process' CPU clock. Nothing else of ours reads there.

A function raises OSError where there is no /proc, the process has ended or it may not be looked at, unless it says otherwise.
`pid` is a process' number or "self"; `proc` is another folder in tests.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
BOOT_ID = PROC / "sys/kernel/random/boot_id"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CPU_CLOCK_OF_A_PROCESS = 2
"""The last bits of the name of a process' clock, clock_getcpuclockid(3): /proc/PID/stat counts in ticks of 10 ms."""

_STATE, _PARENT, _GROUP, _START = 0, 1, 2, 19
"""Fields 3, 4, 5 and 22 of /proc/PID/stat (proc(5)), counted behind the name, which may hold blanks and brackets itself."""


def boot_id() -> str:
    """Returns the id of this boot of the host: another one after each start."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def pid_namespace() -> str:
    """Returns the name of the namespace in which this process' number counts; a container has one of its own."""
    return os.readlink(PROC / "self/ns/pid")  # noqa: PTH115 - the link names no file


def machine_bytes(proc: Path = PROC) -> int | None:
    """Returns the machine's memory; None where it is not told."""
    for line in _text(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024
    return None


def file_system_of(device: int) -> str:
    """Returns the type of the file system that is mounted as this device (`st_dev`), such as "tmpfs"; "" if it is not told."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _text(PROC / "self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[2:3] == [wanted]:
            return after.split(" ")[0]
    return ""


def pids(proc: Path = PROC) -> Iterator[int]:
    """Yields the numbers of all processes that this one sees; never raises."""
    yield from sorted(int(path.name) for path in proc.glob("[0-9]*"))


def children() -> Iterator[int]:
    """Yields the children of this process, those that have ended and were not reaped too."""
    for task in (PROC / "self/task").iterdir():
        with suppress(OSError):  # this thread has ended meanwhile
            yield from map(int, (task / "children").read_text(encoding="utf-8").split())


def start_ticks(pid: int) -> int | None:
    """Returns when the process was started, in clock ticks since the host's start; None if there is none, or only its zombie is left."""
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[_STATE] in ("Z", "X") else int(fields[_START])


def parent_of(pid: int, proc: Path = PROC) -> int:
    """Returns the number of the process' parent."""
    return int(_stat(pid, proc)[_PARENT])


def group_of(pid: int) -> int | None:
    """Returns the process group; None if the process is gone or cannot be looked at."""
    try:
        return int(_stat(pid)[_GROUP])
    except OSError:
        return None


def rss_bytes(pid: int | str = "self") -> int:
    """Returns the memory that the process holds now (not its peak); 0 if it is gone or no descriptor is left to look with."""
    try:
        return int((PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def cpu_seconds(pid: int) -> float:
    """Returns the user and system time that all threads of the process have taken; 0 if it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | CPU_CLOCK_OF_A_PROCESS)
    except OSError:
        return 0.0


def command_line(pid: int, proc: Path = PROC) -> bytes:
    """Returns the command line or the title that the process gave itself, with a NUL behind each word."""
    return (proc / str(pid) / "cmdline").read_bytes()


def environment(pid: int, proc: Path = PROC) -> bytes:
    """Returns the environment that the process was started with, with a NUL behind each variable."""
    return (proc / str(pid) / "environ").read_bytes()


def variable(pid: int, name: str) -> str | None:
    """Returns one variable of the environment that the process was started with; None if it has none, or cannot be looked at."""
    prefix = f"{name}=".encode()
    try:
        found = next((part for part in environment(pid).split(b"\0") if part.startswith(prefix)), None)
    except OSError:
        return None
    return None if found is None else found.removeprefix(prefix).decode("utf-8", "replace")


def open_descriptors(pid: int, proc: Path = PROC) -> int:
    """Returns how many descriptors the process has open."""
    return sum(1 for _ in (proc / str(pid) / "fd").iterdir())


def most_descriptors(pid: int, proc: Path = PROC) -> int | None:
    """Returns how many descriptors the process may have open; None if that has no limit."""
    limits = (proc / str(pid) / "limits").read_text(encoding="ascii")
    found = re.search(r"^Max open files +(\d+)", limits, re.MULTILINE)
    return None if found is None else int(found[1])


def descriptor(pid: int, number: int, proc: Path = PROC) -> Path:
    """Returns the path under which an open descriptor of the process can be read; its link says where it leads."""
    return proc / str(pid) / "fd" / str(number)


def control_groups(pid: int | str = "self", proc: Path = PROC) -> str:
    """Returns the lines of the control groups that the process is in; "" if they cannot be read."""
    return _text(proc / str(pid) / "cgroup")


def _stat(pid: int, proc: Path = PROC) -> list[str]:
    """Returns the fields of /proc/PID/stat behind the process' name."""
    return (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def open_again(descriptor: int) -> int:
    """Opens for writing, without waiting, the pipe or device that a descriptor of this process goes to. Raises OSError."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
