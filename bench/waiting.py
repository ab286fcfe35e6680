"""What open questions and reminders cost those who do not wait: a message taken in with 10,000 of them beside without, in turns.

Two servers, one with as many waits (or reminders) as are asked for, each in a conversation of its own, one with none. Messages come in conversations
without any, and in those that have one. Also what each takes of memory, and what one look for what is due costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import trio

from bench._hop_turn import server
from bus.records.records import InboundMessage, Job, Reply, pack_job
from bus.records.sealing import StoreKeys
from bus.steps.jobs import Finished, JobStore
from bus.steps.store import Arrival, InboundStore, Intake, Source
from bus.steps.thread_steps import Effect
from bus.steps.timers import Timers
from bus.transport.client import RedisClient, open_redis
from workers.kept.waits import Wait
from workers.talk.reminding import timer_for

AGENT = "01906abc-0000-7000-8000-000000000001"
PERSON = "01906abc-0000-7000-8000-000000000002"
KEYS = StoreKeys.derive(bytes(32))
KINDS = ("waits", "reminders")
A_DAY_MS = 86_400_000
AT_ONCE = 32
LOOKS = 10
WANTED_RATIO = 1.1


class Side:
    """One server with what the steps need, and what it cost."""

    def __init__(self, client: RedisClient, jobs: JobStore, pid: int) -> None:
        self.client, self.jobs, self._pid = client, jobs, pid
        self.store = InboundStore(client, AGENT, "supervisor-1")
        self.timers = Timers(client, self.store.keys, KEYS.bus)
        self.figures: dict[str, list[float]] = {}
        self._seqs: dict[str, int] = {}

    async def accept(self, conversation: str) -> None:
        now_ms, seq = time.time_ns() // 1_000_000, self._seqs.get(conversation, 0) + 1
        self._seqs[conversation] = seq
        message = InboundMessage(
            message_id=os.urandom(16).hex(),
            conversation_id=conversation,
            conversation_type="h2a",
            sender_id=PERSON,
            sender_type="human",
            payload={"type": "text", "text": "x" * 200},
        )
        job = pack_job(message, seq=seq, accepted_ms=now_ms, message_ms=now_ms, key=KEYS.bus, agent_id=AGENT)
        arrival = Arrival(
            conversation_id=conversation,
            source=Source.PUSH,
            seq=seq,
            signed_id=os.urandom(8),
            message_ms=now_ms,
            person=PERSON,
        )
        assert await self.store.accept(arrival, job) is Intake.ACCEPTED

    async def end(self, effects: Callable[[JobStore, Job], Sequence[Effect]]) -> None:
        """Ends the next job, with these effects."""
        [job] = await self.jobs.take(1)
        outcome = "waiting" if (made := effects(self.jobs, job)) else "done"
        said = [("0", Reply(kind="message", content_type="text", payload={"type": "text", "text": "Your name?"}))]
        assert await self.jobs.settle(job, cast("Any", outcome), made, last=said) is Finished.DONE
        self.jobs.release(job)

    async def measured(self, step: Callable[[], Awaitable[object]], times: int) -> tuple[float, float]:
        """Returns ms by the clock and µs of Redis' CPU, each of one step."""
        began, before = time.perf_counter(), self._cpu_seconds()
        for _ in range(times):
            await step()
        return (time.perf_counter() - began) * 1e3 / times, (self._cpu_seconds() - before) * 1e6 / times

    async def memory_bytes(self) -> int:
        text = cast("bytes", await self.client.command("INFO", "memory")).decode()
        return int(text.partition("used_memory:")[2].partition("\r")[0])

    def _cpu_seconds(self) -> float:
        return time.clock_gettime(
            (~self._pid << 3) | 2
        )  # CPU-time clock of a process (clock_getcpuclockid), to the nanosecond


def run(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """All figures: times in ms, CPU in µs, memory in bytes."""
    parser = argparse.ArgumentParser(prog="python -m bench waiting")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--messages", type=int, default=100, help="of a round")
    options = parser.parse_args(arguments)
    return {kind: trio.run(_compare, kind, options) for kind in KINDS} | {"wanted_ratio": WANTED_RATIO}


async def _compare(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        sides = [await _side(stack) for _ in range(2)]
        without, beside = sides
        names = [f"{kind}-{number}" for number in range(options.count)]
        for side, effects in ((without, _nothing), (beside, partial(_opened, kind))):
            for at in range(0, len(names), AT_ONCE):
                for name in names[at : at + AT_ONCE]:
                    await side.accept(name)
                for _ in names[at : at + AT_ONCE]:
                    await side.end(effects)
        taken = await beside.memory_bytes() - await without.memory_bytes()
        others = [f"other-{number}" for number in range(options.messages)]
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                await _round(side, "elsewhere", others)
                at = number * options.messages
                await _round(side, "there", [names[(at + n) % len(names)] for n in range(options.messages)])
        return {
            "count": options.count,
            "bytes_each": round(taken / options.count),
            **{name: _beside(beside.figures[name], without.figures[name]) for name in without.figures},
        }


def _beside(beside: Sequence[float], without: Sequence[float]) -> dict[str, float]:
    ratios = [one / other for one, other in zip(beside, without, strict=True)]
    return {"without": _middle(without), "beside": _middle(beside), "ratio": _middle(ratios)}


async def _side(stack: AsyncExitStack) -> Side:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    url, pid = stack.enter_context(server(folder, "second"))
    client = await stack.enter_async_context(open_redis(url))
    jobs = JobStore(url, AGENT, KEYS.bus, "worker-1")
    await jobs.open()
    stack.push_async_callback(jobs.close)
    return Side(client, jobs, pid)


async def _round(side: Side, where: str, conversations: Sequence[str]) -> None:
    """A message in each of these conversations; then each is answered."""
    names = iter(conversations)
    ms, cpu_us = await side.measured(lambda: side.accept(next(names)), len(conversations))
    for _ in conversations:
        await side.end(_nothing)
    now_ms = await side.timers.now_ms()
    _, look_us = await side.measured(lambda: side.timers.due(now_ms), LOOKS)
    for name, value in ((f"{where}_ms", ms), (f"{where}_redis_cpu_us", cpu_us), ("look_redis_cpu_us", look_us)):
        side.figures.setdefault(name, []).append(value)


def _nothing(_jobs: JobStore, _job: Job) -> Sequence[Effect]:
    return ()


def _opened(kind: str, jobs: JobStore, job: Job) -> Sequence[Effect]:
    """What the end of a handler that asks, or reminds, writes."""
    name, due_ms = os.urandom(13).hex(), time.time_ns() // 1_000_000 + A_DAY_MS
    if kind == "reminders":
        reminder = timer_for(job.message, job, name, due_ms, kind="reminder", name="say", data=b"\xaadrink tea ")
        return (("timer", name, due_ms, jobs.seal_timer(reminder)),)
    wait = Wait(
        id=name,
        thread_id=job.job_id,
        handler="examples.booking_agent.book",
        messages=[job.message],
        message_ms=job.message_ms,
        accepted_ms=job.accepted_ms,
        journal={},
        places=["0"],
        cards={},
        entry="ask:1",
        kind="text",
        who=[PERSON],
        due_ms=due_ms,
    )
    deadline = timer_for(job.message, job, name, due_ms, kind="deadline", name=name)
    return (
        ("wait", name, jobs.seal_wait(job, name, wait.encoded()), ""),
        ("timer", name, due_ms, jobs.seal_timer(deadline)),
    )


def _middle(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)
