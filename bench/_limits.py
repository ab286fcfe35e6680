"""A CPU and memory limit for the processes of a benchmark, by a cgroup of the first version (docs/benchmarks.md)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench._children import BenchmarkFailed

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Limits:
    """A group under `cpu` and one under `memory`, which the processes share."""

    folders: tuple[Path, ...]

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv`, begun inside of the groups, so that everything it takes is counted there."""
        enter = "; ".join(f"echo $$ >{shlex.quote(str(folder / 'cgroup.procs'))}" for folder in self.folders)
        return ["sh", "-c", f'{enter}; exec "$@"', "-", *argv]

    def pids(self) -> list[int]:
        """Whatever runs in it now."""
        return [int(pid) for pid in self._read("cgroup.procs").split()]

    def cpu_seconds(self) -> float:
        """User and system time of all processes that were ever in it."""
        return int(self._read("cpuacct.usage")) / NANOSECONDS

    def throttled_seconds(self) -> float:
        """How long they wanted to run and had used up their share."""
        facts = dict(line.split() for line in self._read("cpu.stat").splitlines())
        return int(facts["throttled_time"]) / NANOSECONDS

    def memory_mib(self) -> int:
        """What they hold now, without the page cache."""
        facts = dict(line.split() for line in self._read("memory.stat").splitlines())
        return int(facts["total_rss"]) >> 20

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for memory."""
        facts = dict(line.split() for line in self._read("memory.oom_control").splitlines())
        return int(facts["oom_kill"])

    def peak_mib(self) -> int:
        """The most that was charged, the page cache too."""
        return int(self._read("memory.max_usage_in_bytes")) >> 20

    def _read(self, name: str) -> str:
        for folder in self.folders:
            with suppress(FileNotFoundError):
                return (folder / name).read_text(encoding="utf-8")
        raise BenchmarkFailed(f"this kernel does not tell {name}")


@contextmanager
def limits(name: str, *, cpus: float, memory_mib: int) -> Iterator[Limits]:
    """Made for the block. Raises BenchmarkFailed where this machine has no such groups or we may not make them."""
    wanted = {
        "cpu": {"cpu.cfs_period_us": PERIOD_US, "cpu.cfs_quota_us": int(cpus * PERIOD_US)},
        "cpuacct": {},
        "memory": {"memory.limit_in_bytes": memory_mib << 20},
    }
    made: list[Path] = []
    try:
        for controller, settings in wanted.items():
            folder = ROOT / controller / f"{name}-{os.getpid()}"
            try:
                folder.mkdir()
                made.append(folder)
                for file, value in settings.items():
                    (folder / file).write_text(str(value), encoding="utf-8")
            except OSError as problem:
                raise BenchmarkFailed(
                    f"no limit of {controller} can be set here ({problem.strerror}): it needs root and cgroup v1"
                ) from None
        yield Limits(tuple(made))
    finally:
        for folder in made:
            with suppress(OSError):  # something still runs there, and says so by staying
                folder.rmdir()
