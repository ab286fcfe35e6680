"""Processes that a benchmark starts and measures: each dies with the benchmark, is ended by its id, and says what CPU it took."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from host import parent_death, proc

END_SECONDS = 5.0
LAST_LINES = 12


class BenchmarkFailed(Exception):
    """A process did not do its part; carries the last lines of its log."""


@contextmanager
def child(argv: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes for its input and output and a process group of its own, ended with the block."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            parent_death.command(os.getpid(), list(argv)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=dict(environment),
            process_group=0,
            encoding="utf-8",
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Close its pipes and ask it; after a while its group is killed, for a master may leave workers behind."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    processes = family(process.pid)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in processes[1:]:
        try:
            if os.getpgid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # ended with its master, as it should


def last_lines(log: Path) -> str:
    """The end of a log."""
    return (
        "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]) if log.exists() else ""
    )


def family(pid: int) -> list[int]:
    """The process, the children of all its threads, and theirs."""
    found = [pid]
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(text) for text in listed.read_text(encoding="utf-8").split()]
        except OSError:
            continue  # it has just ended
        for child_pid in children:
            found += family(child_pid)
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes, by their own CPU clocks; those that are gone count nothing."""
    return sum(proc.cpu_seconds(pid) for pid in pids)
