"""One contender's turn: a Redis of its own, two workers, a producer; measured, and gone afterwards.

Every contender has the server as the product starts it: append-only file, no eviction, the file synced by us once a second. What
differs is only what the contender does with it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import redis

from bench._children import END_SECONDS, BenchmarkFailed, child, cpu_seconds, family, last_lines
from host import embedded

READY_SECONDS = 30.0
ANSWER_SECONDS = 60.0
ROOT = Path(__file__).parents[1]

Figures = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """Command lines; `workers` holds one a process, or one of a master that starts both."""

    name: str
    workers: tuple[tuple[str, ...], ...]
    producer: tuple[str, ...]


@dataclass(frozen=True)
class Load:
    """How much in flight, and for how long."""

    in_flight: int
    seconds: float

    @property
    def name(self) -> str:
        return "one_at_a_time" if self.in_flight == 1 else f"in_flight_{self.in_flight}"


def ours(name: str, module: str, *agent: str) -> Contender:
    """A contender in this environment: `python -m MODULE worker NAME [AGENT]`, `python -m MODULE producer`."""
    command = (sys.executable, "-m", module)
    return Contender(name, tuple((*command, "worker", f"worker-{n}", *agent) for n in (1, 2)), (*command, "producer"))


def turn(contender: Contender, loads: Sequence[Load], fsync: str) -> dict[str, Figures]:
    """Figures by load. Raises `BenchmarkFailed`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        directory = Path(folder)
        url, redis_pid = stack.enter_context(server(directory, fsync))
        environment = {**os.environ, "BENCH_REDIS_URL": url, "PYTHONPATH": str(ROOT)}
        log = directory / "log"
        workers = [stack.enter_context(child(argv, log=log, environment=environment)) for argv in contender.workers]
        producer = stack.enter_context(child(contender.producer, log=log, environment=environment))
        try:
            _line(producer, READY_SECONDS)  # it has got a first result
            pids = {
                "producer": family(producer.pid),
                "workers": [pid for worker in workers for pid in family(worker.pid)],
                "redis": [redis_pid],
            }
            return {load.name: _measure(producer, load, pids) for load in loads}
        except (BenchmarkFailed, OSError, ValueError) as error:
            raise BenchmarkFailed(f"{contender.name}: {error}\n{last_lines(log)}") from None


def _measure(producer: subprocess.Popen[str], load: Load, pids: dict[str, list[int]]) -> Figures:
    before = {part: cpu_seconds(those) for part, those in pids.items()}
    assert producer.stdin is not None
    producer.stdin.write(json.dumps({"in_flight": load.in_flight, "seconds": load.seconds}) + "\n")
    producer.stdin.flush()
    answer = cast(Figures, json.loads(_line(producer, load.seconds + ANSWER_SECONDS)))
    jobs, seconds = answer.pop("jobs"), answer.pop("seconds")
    if not jobs:
        raise BenchmarkFailed("no job came back")
    figures: Figures = {"rate_per_second": round(jobs / seconds, 1), **answer}
    for part, those in pids.items():
        figures[f"{part}_cpu_us"] = round((cpu_seconds(those) - before[part]) / jobs * 1e6, 1)
    return figures


def _line(process: subprocess.Popen[str], seconds: float) -> str:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise BenchmarkFailed(f"no answer in {seconds:.0f} s")
    line = process.stdout.readline().strip()
    if not line:
        raise BenchmarkFailed("it ended")
    return line


@contextmanager
def server(directory: Path, fsync: str) -> Iterator[tuple[str, int]]:
    """A server as the product starts it; yields its URL and process id."""
    layout = embedded.prepare(directory, directory)
    process = embedded.start(embedded.find_server(), layout, fsync, None)
    sync = embedded.FileSync(layout)
    try:
        _until_it_answers(layout)
        if fsync != "always":
            sync.start()
        yield layout.url, process.pid
    finally:
        sync.stop()
        process.terminate()  # it ends the child that rewrites its file too, which would go on writing into the folder
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_it_answers(layout: embedded.Layout) -> None:
    client = redis.Redis.from_url(layout.url)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise BenchmarkFailed("the Redis server does not answer") from None
            time.sleep(0.01)
        else:
            client.close()
            return
