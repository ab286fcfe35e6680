"""What every producer of `bench hop` speaks with its benchmark: orders come in on standard input, figures go out.

An order is one JSON line, `{"in_flight": 64, "seconds": 2.0}`; the answer to it is another. Peers run in environments of their
own, so this file knows the standard library only.
"""

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

JOB_BYTES = 1024
PAYLOAD = "x" * JOB_BYTES
WARM_UP_SECONDS = 20.0
FIRST_ANSWER_SECONDS = 2.0

Ask = Callable[[str, int], Awaitable[object]]
"""Payload and how many are in flight (for those that must poll) → the result."""


def orders() -> Iterator[tuple[int, float]]:
    """Says that we are ready, then every order (jobs in flight, seconds), until the benchmark closes the pipe."""
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        yield order["in_flight"], order["seconds"]


def answer(seconds: float, latencies_ns: list[int], **more: float) -> None:
    """What was done in the time: jobs, and how long each was on its way."""
    print(json.dumps({"jobs": len(latencies_ns), "seconds": seconds, **percentiles(latencies_ns), **more}), flush=True)


def percentiles(latencies_ns: list[int]) -> dict[str, float]:
    """p50 and p99 in ms."""
    ordered = sorted(latencies_ns)
    return {f"p{part}_ms": round(ordered[len(ordered) * part // 100] / 1e6, 3) for part in (50, 99)}


def check(result: object) -> None:
    """A peer that gives something else back did not do the work."""
    if result != PAYLOAD:
        raise SystemExit("the result is not the job's payload")


async def drive(ask: Ask) -> None:
    """Closed loop for a peer under asyncio: so many lanes, each with one job at a time."""
    await _first(ask)
    for in_flight, seconds in orders():
        latencies: list[int] = []
        began = time.perf_counter_ns()

        end = began + int(seconds * 1e9)
        await asyncio.gather(*(_lane(ask, in_flight, end, latencies) for _ in range(in_flight)))
        answer((time.perf_counter_ns() - began) / 1e9, latencies)


async def _first(ask: Ask) -> None:
    """Until the workers listen: what is sent before, some peers lose."""
    tries = int(WARM_UP_SECONDS / FIRST_ANSWER_SECONDS)
    for tries_left in reversed(range(tries)):
        try:
            check(await asyncio.wait_for(ask(PAYLOAD, 1), FIRST_ANSWER_SECONDS))
        except TimeoutError:
            if not tries_left:
                raise
        else:
            return


async def _lane(ask: Ask, in_flight: int, end: int, latencies: list[int]) -> None:
    while (sent := time.perf_counter_ns()) < end:
        check(await ask(PAYLOAD, in_flight))
        latencies.append(time.perf_counter_ns() - sent)


def drive_window(send: Callable[[str], object], wait: Callable[[object], object]) -> None:
    """Closed loop for a peer that blocks: so many sent ahead, the oldest is waited for (threads were slower)."""
    check(wait(send(PAYLOAD)))
    for in_flight, seconds in orders():
        latencies: list[int] = []
        window: deque[tuple[int, object]] = deque()
        began = time.perf_counter_ns()
        end = began + int(seconds * 1e9)
        while window or time.perf_counter_ns() < end:
            while len(window) < in_flight and time.perf_counter_ns() < end:
                window.append((time.perf_counter_ns(), send(PAYLOAD)))
            sent, job = window.popleft()
            check(wait(job))
            latencies.append(time.perf_counter_ns() - sent)
        answer((time.perf_counter_ns() - began) / 1e9, latencies)
