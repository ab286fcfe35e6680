"""Who a process is, so that another on the same host can tell whether it still lives.

A supervisor's name carries its host (boot id and pid namespace), pid and start time: a pid alone is used again. Its workers'
consumer names begin with it: they die with it. About processes on other hosts nothing is said; their leases run out.
"""

import hashlib
import os
from pathlib import Path
from typing import Self

import msgspec

from host.boot import boot_id


class Instance(msgspec.Struct, frozen=True):
    """One supervisor process: `host` is 8 hex digits, `started` the kernel's start time in clock ticks."""

    host: str
    pid: int
    started: int

    @classmethod
    def of_this_process(cls) -> Self:
        """The calling process."""
        pid = os.getpid()
        return cls(_host(), pid, _start_ticks(pid) or 0)

    @classmethod
    def identity_of(cls, pid: int) -> str:
        """Pid and start time, as they stand in a name; a pid alone is used again."""
        return f"{pid}-{_start_ticks(pid) or 0}"

    @staticmethod
    def identity_in(consumer: str) -> str:
        """The same of the supervisor that this name, or the one of its worker, belongs to."""
        return consumer.partition("/")[0].partition("-")[2]

    @property
    def name(self) -> str:
        """Its consumer name in `replies`."""
        return f"{self.host}-{self.pid}-{self.started}"

    def worker_name(self, number: int) -> str:
        """The consumer name in `jobs` of its worker start number `number`."""
        return f"{self.name}/{number}"

    def knows_dead(self, consumer: str) -> bool:
        """Whether that supervisor, or that worker's supervisor, was a process of this host and is gone."""
        host, _, rest = consumer.partition("/")[0].partition("-")
        pid, _, started = rest.partition("-")
        if host != self.host or not (pid.isdecimal() and started.isdecimal()):
            return False
        return _start_ticks(int(pid)) != int(started)


def _host() -> str:
    namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the link names no file
    return hashlib.sha256(f"{boot_id()}\n{namespace}".encode()).hexdigest()[:8]


def _start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None when there is no such process, or only its zombie is left."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
