"""Names a process so that another one on the same host can tell whether it still lives.

A supervisor's name carries its host (boot id and pid namespace), pid and start time, since a pid alone is used again. Its workers'
consumer names begin with it, since they die with it. Of processes on other hosts nothing is known; their leases run out.
"""

import hashlib
import os
from typing import Self

import msgspec

from host import proc


class Instance(msgspec.Struct, frozen=True):
    """One supervisor process: `host` is 8 hex digits, `started` the kernel's start time in clock ticks."""

    host: str
    pid: int
    started: int

    @classmethod
    def of_this_process(cls) -> Self:
        """Returns the calling process."""
        pid = os.getpid()
        return cls(_host(), pid, proc.start_ticks(pid) or 0)

    @classmethod
    def identity_of(cls, pid: int) -> str:
        """Returns pid and start time as they stand in a name."""
        return f"{pid}-{proc.start_ticks(pid) or 0}"

    @staticmethod
    def identity_in(consumer: str) -> str:
        """Returns pid and start time of the supervisor in its consumer name or in the one of its worker."""
        return consumer.partition("/")[0].partition("-")[2]

    @property
    def name(self) -> str:
        """The supervisor's consumer name in the stream `replies`."""
        return f"{self.host}-{self.pid}-{self.started}"

    def worker_name(self, number: int) -> str:
        """Returns the consumer name in the stream `jobs` of the worker that it started as its `number`-th."""
        return f"{self.name}/{number}"

    def knows_dead(self, consumer: str) -> bool:
        """Returns True if the named supervisor, or the named worker's, was a process of this host and is gone."""
        host, _, rest = consumer.partition("/")[0].partition("-")
        pid, _, started = rest.partition("-")
        if host != self.host or not (pid.isdecimal() and started.isdecimal()):
            return False
        return proc.start_ticks(int(pid)) != int(started)


def _host() -> str:
    return hashlib.sha256(f"{proc.boot_id()}\n{proc.pid_namespace()}".encode()).hexdigest()[:8]
