"""How many answers of a language model are written at the same time, and what each costs while it is only waited for.

`hashee-agent up` with its default settings under a real limit of CPU and memory, and an endpoint beside it that lets each answer grow for so many
seconds. Everybody asks at once. The endpoint says how many it wrote at the same time; a job that waited for another one's slot comes later.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from bench._limits import Limits, limits
from host import parent_death
from sandbox.api import RelayApi
from sandbox.children import relay_process, running
from sandbox.people import Person, connected, make_person
from sandbox.stage import agent_environment, free_port, until_ready

CPUS, MEMORY_MIB = 1.0, 512
READY_SECONDS = 60.0
PIECE_SECONDS = 0.5
LOOK_SECONDS = 0.5
MEETING_AT_A_TIME = 20
SETTINGS = ("concurrency", "workers", "send_rate")
SYNC_AGENT = """
from workers import LLM, Agent, BlockingLLM

agent = Agent(llm=LLM())


@agent.on_message("text")
def answer(llm: BlockingLLM) -> None:
    llm.reply()
"""


@dataclass
class Endpoint:
    """Speaks as much of an OpenAI-compatible endpoint as the agent needs. `open`: answers that it writes now."""

    seconds: float
    open: int = 0
    most_open: int = 0
    asked_at: list[float] = field(default_factory=list)
    base_url: str = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                while await _request(stream):
                    await self._answer(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # who asked has gone

    async def _answer(self, stream: trio.SocketStream) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.asked_at.append(trio.current_time())
        try:
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            ends = trio.current_time() + self.seconds
            while trio.current_time() < ends:
                await _event(stream, {"choices": [{"index": 0, "delta": {"content": "word " * 5}}]})
                await trio.sleep(PIECE_SECONDS)
            await _event(stream, {"choices": [{"index": 0, "delta": {"content": WHOLE}, "finish_reason": "stop"}]})
            await stream.send_all(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        finally:
            self.open -= 1


WHOLE = "That is all."


async def _request(stream: trio.SocketStream) -> bool:
    """Reads one; False at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    [length] = [int(line[15:]) for line in head.decode().splitlines() if line.lower().startswith("content-length:")]
    while len(body) < length:
        body += await stream.receive_some()
    return True


async def _event(stream: trio.SocketStream, chunk: dict[str, Any]) -> None:
    await stream.send_all(_chunk(b"data: " + json.dumps(chunk).encode() + b"\n\n"))


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


@dataclass
class Costs:
    """What the processes inside of the limit had at most, looked at now and then."""

    limit: Limits
    memory_mib: int = 0
    descriptors: int = 0
    threads: int = 0

    async def look(self) -> None:
        """Looks until it is cancelled."""
        while True:
            self.memory_mib = max(self.memory_mib, self.limit.memory_mib())
            for pid in self.limit.pids():
                if _is_worker(pid):
                    self.descriptors = max(self.descriptors, _count(Path(f"/proc/{pid}/fd")))
                    self.threads = max(self.threads, _count(Path(f"/proc/{pid}/task")))
            await trio.sleep(LOOK_SECONDS)


def _is_worker(pid: int) -> bool:
    try:
        return b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _count(folder: Path) -> int:
    try:
        return sum(1 for _ in folder.iterdir())
    except OSError:
        return 0  # it has just ended


def run(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """All figures."""
    parser = argparse.ArgumentParser(prog="python -m bench answers")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="for which each answer grows")
    parser.add_argument("--sync", action="store_true", help="by a handler without async, which holds a thread")
    for name in SETTINGS:
        parser.add_argument(f"--{name.replace('_', '-')}", default="", help=f"HASHEE_{name.upper()}, else its default")
    return trio.run(_measure, parser.parse_args(arguments))


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    endpoint = Endpoint(options.seconds)
    with (
        tempfile.TemporaryDirectory(prefix="bench-answers-") as name,
        limits("hashee-bench", cpus=CPUS, memory_mib=MEMORY_MIB) as limit,
    ):
        folder = Path(name)
        async with (
            trio.open_nursery() as nursery,
            relay_process(log_path=folder / "relay.log") as (_, url),
            RelayApi(url) as api,
        ):
            [listener] = await nursery.start(partial(trio.serve_tcp, endpoint.serve, 0, host="127.0.0.1"))
            endpoint.base_url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1"
            account = await api.add_agent("Answers")
            port = free_port()
            environment = agent_environment({}, url, account, folder, port) | _settings(options, endpoint, folder)
            up = parent_death.command(os.getpid(), limit.command([sys.executable, "-m", "supervisor", "up"]))
            async with running(
                "agent",
                up,
                log_path=folder / "agent.log",
                environment={**os.environ, **environment},
                stop_seconds=60,
            ) as agent:
                await until_ready(f"http://127.0.0.1:{port}", agent, READY_SECONDS)
                conversations = {}
                for number in range(options.people):
                    person = await make_person(url, f"P{number}")
                    conversations[person] = await person.meet(account.agent_id)
                async with connected(*conversations):
                    figures = await _ask(conversations, endpoint, limit, options)
            nursery.cancel_scope.cancel()
    return figures


def _settings(options: argparse.Namespace, endpoint: Endpoint, folder: Path) -> dict[str, str]:
    given = {f"HASHEE_{name.upper()}": str(getattr(options, name)) for name in SETTINGS if getattr(options, name)}
    where = {"OPENAI_BASE_URL": endpoint.base_url, "HASHEE_LLM_MODEL": "slow"}
    if not options.sync:
        return {**given, **where}
    (folder / "sync_agent.py").write_text(SYNC_AGENT, encoding="utf-8")
    return {**given, **where, "HASHEE_HANDLER": "sync_agent:agent", "PYTHONPATH": str(folder)}


async def _ask(
    conversations: dict[Person, str], endpoint: Endpoint, limit: Limits, options: argparse.Namespace
) -> dict[str, Any]:
    """Everybody says hello, so that every session is there; then everybody asks at once."""
    endpoint.seconds = 0.0
    limiter = trio.CapacityLimiter(MEETING_AT_A_TIME)
    async with trio.open_nursery() as nursery:
        for person, conversation in conversations.items():
            nursery.start_soon(_greet, person, conversation, limiter)
    endpoint.seconds, endpoint.most_open, endpoint.asked_at = options.seconds, 0, []
    costs, whole = Costs(limit), list[float]()
    idle_mib, cpu, throttled = limit.memory_mib(), limit.cpu_seconds(), limit.throttled_seconds()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(costs.look)
        async with trio.open_nursery() as people:
            for person, conversation in conversations.items():
                people.start_soon(_ask_one, person, conversation, whole)
        nursery.cancel_scope.cancel()
    seconds = trio.current_time() - began
    people_count = len(conversations)
    cpu_seconds = limit.cpu_seconds() - cpu
    return {
        "people": people_count,
        "seconds_each": options.seconds,
        "written_at_the_same_time": endpoint.most_open,
        "last_asked_after_seconds": round(max(endpoint.asked_at) - began, 2),
        "times_asked": len(endpoint.asked_at),
        "whole_answers": len(whole),
        "first_whole_after_seconds": round(min(whole) - began, 1),
        "last_whole_after_seconds": round(max(whole) - began, 1),
        "idle_memory_mib": idle_mib,
        "most_memory_mib": costs.memory_mib,
        "kib_an_answer": round((costs.memory_mib - idle_mib) * 1024 / people_count),
        "most_descriptors_of_a_worker": costs.descriptors,
        "most_threads_of_a_worker": costs.threads,
        "cpu_ms_an_answer": round(cpu_seconds * 1000 / people_count, 1),
        "cpu_share": round(cpu_seconds / seconds, 2),
        "throttled_seconds": round(limit.throttled_seconds() - throttled, 1),
        "oom_kills": limit.oom_kills(),
    }


async def _greet(person: Person, conversation: str, limiter: trio.CapacityLimiter) -> None:
    async with limiter:
        await person.say(conversation, "hello")
        await person.transcript.until(lambda: len(person.transcript.heard(conversation)) == 1)


async def _ask_one(person: Person, conversation: str, whole: list[float]) -> None:
    await person.say(conversation, "tell me a long story")
    await person.transcript.until(lambda: len(person.transcript.heard(conversation)) > 1)
    if person.transcript.heard(conversation)[-1].endswith(WHOLE):
        whole.append(trio.current_time())


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1:])))
