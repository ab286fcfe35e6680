"""The floor: what Redis streams cost with nothing on top. No order, no leases, nothing sealed, nothing remembered, no trio.

One thread a process, commands pipelined: XADD there, XREADGROUP, XADD back, XREADGROUP, each with its XACK and XDEL.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import cast

from bench.peers.driver import PAYLOAD, answer, check, orders
from bus.transport.lua import Scripts
from bus.transport.readers import StreamEntry, decode_entries
from bus.transport.wire import Command, Value, Wire

JOBS, RESULTS, GROUP = "jobs", "results", "group"
BLOCK_MS = 2000
MOST_AT_ONCE = 64


class Ends:
    """Reads one stream and writes another."""

    def __init__(self, reads: str, writes: str, consumer: str) -> None:
        self._wire = Wire(os.environ["BENCH_REDIS_URL"], Scripts({}), answer_timeout_seconds=None)
        self._reads, self._writes, self._consumer = reads, writes, consumer
        self._wire.call([("XGROUP", "CREATE", reads, GROUP, "0", "MKSTREAM")])

    def read(self) -> list[StreamEntry]:
        command = ("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", MOST_AT_ONCE)
        answered = self._wire.call([(*command, "BLOCK", BLOCK_MS, "STREAMS", self._reads, ">")])[0]
        return decode_entries(cast(Value, answered))

    def write(self, bodies: list[tuple[bytes, bytes | str]], done: list[StreamEntry]) -> None:
        commands: list[Command] = [("XADD", self._writes, "*", "at", at, "r", body) for at, body in bodies]
        if done:
            ids = [entry.id for entry in done]
            commands += [("XACK", self._reads, GROUP, *ids), ("XDEL", self._reads, *ids)]
        self._wire.call(commands)


def work(consumer: str) -> None:
    ends = Ends(JOBS, RESULTS, consumer)
    while True:
        entries = ends.read()
        ends.write([(entry.fields["at"], entry.fields["r"]) for entry in entries], entries)


def produce() -> None:
    ends = Ends(RESULTS, JOBS, "producer")
    list(_round(ends, 1, 0.0))
    for in_flight, seconds in orders():
        began = time.perf_counter_ns()
        latencies = list(_round(ends, in_flight, seconds))
        answer((time.perf_counter_ns() - began) / 1e9, latencies)


def _round(ends: Ends, in_flight: int, seconds: float) -> Iterator[int]:
    end = time.perf_counter_ns() + int(seconds * 1e9)
    ends.write([_job()] * in_flight, [])
    under_way = in_flight
    while under_way:
        entries = ends.read()
        now = time.perf_counter_ns()
        for entry in entries:
            check(entry.fields["r"].decode())
            yield now - int(entry.fields["at"])
        under_way -= len(entries)
        again = 0 if now > end else in_flight - under_way
        ends.write([_job()] * again, entries)
        under_way += again


def _job() -> tuple[bytes, str]:
    return str(time.perf_counter_ns()).encode(), PAYLOAD


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(sys.argv[2])
    else:
        produce()
