"""What a message costs on its whole way: person → relay → supervisor → worker → supervisor → relay → person, in real processes.

The house is the sandbox's (relay, `hashee-agent up` with two workers, echo), without a limit of sends; the people are this process.
Everybody at once tells the throughput, somebody alone the latency. CPU of each process is what the kernel has counted. With --otel two such houses
take turns, and one of them traces every message to a receiver that throws it away; with --beside the agent of one is of another checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from bench._children import BenchmarkFailed, cpu_seconds, family
from bench._otlp_sink import Sink, otlp_sink
from bench.peers.driver import percentiles
from host.embedded import find_server
from sandbox.people import Person, connected, make_person
from sandbox.stage import RunningSandbox, stage

WANTED_SUPERVISOR_CPU_MS = 1.0
WANTED_RATIO = 1.03
AGENT = ("supervisor", "workers", "redis")
ANSWER_SECONDS = 60.0
WARM_UP_MESSAGES = 3
TEXT = "What one person says to an agent, of an ordinary length. " * 4

Figures = dict[str, float]


class House:
    """The people with their conversations, and the processes that serve them."""

    def __init__(self, house: RunningSandbox, conversations: dict[Person, str]) -> None:
        self._conversations = conversations
        titles = {pid: _title(pid) for pid in family(house.agent.pid)[1:]}
        self.processes = {
            "supervisor": [pid for pid, title in titles.items() if "supervisor" in title],
            "workers": [pid for pid, title in titles.items() if "worker" in title],
            "redis": [pid for pid, title in titles.items() if "redis-server" in title or "valkey-server" in title],
            "relay": [house.relay.pid],
            "keeper": [house.agent.pid],
            "people": [os.getpid()],
        }

    async def everybody(self, messages: int) -> Figures:
        """Each says so many, one after the other, all people at the same time."""
        return await self._measure(list(self._conversations), messages)

    async def somebody(self, messages: int) -> Figures:
        """One person says so many, while the others are silent."""
        return await self._measure(list(self._conversations)[:1], messages)

    async def _measure(self, people: Sequence[Person], messages: int) -> Figures:
        latencies: list[int] = []
        before = {part: cpu_seconds(pids) for part, pids in self.processes.items()}
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for person in people:
                nursery.start_soon(self._converse, person, messages, latencies)
        seconds = trio.current_time() - began
        figures = {"rate_per_second": round(len(latencies) / seconds, 1), **percentiles(latencies)}
        for part, pids in self.processes.items():
            figures[f"{part}_cpu_ms"] = round((cpu_seconds(pids) - before[part]) / len(latencies) * 1000, 3)
        return figures

    async def _converse(self, person: Person, messages: int, latencies: list[int]) -> None:
        conversation, transcript = self._conversations[person], person.transcript
        heard = len(transcript.heard(conversation))
        for number in range(heard + 1, heard + messages + 1):
            began = trio.current_time()
            await person.say(conversation, TEXT)
            with trio.fail_after(ANSWER_SECONDS):
                await transcript.until(partial(_has_heard, person, conversation, number))
            latencies.append(int((trio.current_time() - began) * 1e9))


def run(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Rates in messages a second, times in ms, CPU in ms a round trip; medians of the rounds."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if options.otel:
            return trio.run(_traced_in_turns, Path(folder), options)
        if options.beside:
            return trio.run(_beside, Path(folder), options)
        everybody, somebody = trio.run(_rounds, Path(folder), options)
    supervisor = everybody["supervisor_cpu_ms"]
    return {
        "redis": str(find_server()),
        "cores": os.cpu_count(),
        "people": options.people,
        "rounds": options.rounds,
        "everybody": everybody,
        "somebody": somebody,
        "supervisor_cpu_ms": supervisor,
        "wanted_supervisor_cpu_ms": WANTED_SUPERVISOR_CPU_MS,
    }


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench pipeline")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=30, help="of each person in a round; alone three times as many")
    parser.add_argument(
        "--otel", action="store_true", help="two houses in turns, one of them traces every message: what that costs"
    )
    parser.add_argument(
        "--beside", type=Path, metavar="DIR", help="in turns with the agent of that checkout, which has its own .venv"
    )
    return parser.parse_args(arguments)


async def _rounds(folder: Path, options: argparse.Namespace) -> tuple[Figures, Figures]:
    everybody, somebody = [], []
    async with _house(folder, options.people) as house:
        for _ in range(options.rounds):
            everybody.append(await house.everybody(options.messages))
            somebody.append(await house.somebody(3 * options.messages))
    return _medians(everybody), _medians(somebody)


@asynccontextmanager
async def _house(folder: Path, people: int, *, agent_checkout: Path | None = None, **more: str) -> AsyncIterator[House]:
    """One that is warm, with `more` settings. `agent_checkout`: whose agent it is, ours if None; relay and people are always ours."""
    settings = {"HASHEE_SEND_RATE": "0", "HASHEE_HANDLER": "workers.builtin.echo:agent", "HASHEE_WORKERS": "2", **more}
    async with stage(folder, settings=settings, agent_checkout=agent_checkout) as made:
        conversations = {}
        for number in range(people):
            person = await make_person(made.relay_url, f"P{number}")
            conversations[person] = await person.meet(made.agent_id)
        async with connected(*conversations):
            house = House(made, conversations)
            await house.everybody(WARM_UP_MESSAGES)
            yield house


async def _traced_in_turns(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    with otlp_sink() as url:
        async with (
            _house(_below(folder, "off"), options.people) as off,
            _house(_below(folder, "on"), options.people, OTEL_EXPORTER_OTLP_ENDPOINT=url) as on,
        ):
            figures = await _in_turns(options, off=off, on=on)
        if not Sink.taken_bytes:
            raise BenchmarkFailed("nothing was traced: is the extra otel installed?")
    return figures


async def _beside(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    checkout = options.beside.absolute()
    if not (checkout / ".venv/bin/python").exists():
        raise BenchmarkFailed(f"there is no {checkout}/.venv/bin/python: run `make setup` in that checkout")
    async with (
        _house(_below(folder, "there"), options.people, agent_checkout=checkout) as there,
        _house(_below(folder, "here"), options.people) as here,
    ):
        return await _in_turns(options, there=there, here=here)


async def _in_turns(options: argparse.Namespace, **houses: House) -> dict[str, Any]:
    """The ratios, of the second house to the first, are medians over the turns; in each turn one follows the other, and which is first changes."""
    turns: dict[str, list[Figures]] = {name: [] for name in houses}
    for number in range(options.rounds):
        for name, house in sorted(houses.items(), reverse=number % 2 == 1):
            turns[name].append(_with_sum(await house.everybody(options.messages)))
    one, other = turns.values()
    return {
        "turns": options.rounds,
        "people": options.people,
        **{name: _medians(of) for name, of in turns.items()},
        "ratios": {part: _ratio(f"{part}_cpu_ms", one, other) for part in (*AGENT, "agent")},
        "wanted_ratio": WANTED_RATIO,
    }


def _ratio(name: str, one: list[Figures], other: list[Figures]) -> float | None:
    """The median over the turns; None where a process has ended or did nothing in one."""
    pairs = list(zip(one, other, strict=True))
    if not all(first[name] > 0 for first, _ in pairs):
        return None
    return round(statistics.median(second[name] / first[name] for first, second in pairs), 3)


def _below(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _with_sum(figures: Figures) -> Figures:
    return {**figures, "agent_cpu_ms": sum(figures[f"{part}_cpu_ms"] for part in AGENT)}


def _medians(rounds: list[Figures]) -> Figures:
    return {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]}


def _has_heard(person: Person, conversation: str, count: int) -> bool:
    return len(person.transcript.heard(conversation)) >= count


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1:])))
