"""What a small server carries: `hashee-agent up` under a real CPU and memory limit, with sessions online, at a rate that is raised.

Keeper, supervisor, workers and Redis are inside of the limit; the relay and the people are outside. A rate counts as sustained when
everything is answered and 99 of 100 answers come within a second. The third row of the platform's table is derived, and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from bench._children import cpu_seconds, family
from bench._limits import Limits, limits
from bench.peers.driver import percentiles
from host import parent_death
from sandbox.api import RelayApi
from sandbox.children import relay_process, running
from sandbox.people import Person, connected, make_person
from sandbox.stage import agent_environment, free_port, until_ready

ROWS = (
    {"cpus": 0.2, "memory_mib": 256, "sessions": 100, "seed_rate": 10},
    {"cpus": 1.0, "memory_mib": 512, "sessions": 1000, "seed_rate": 100},
)
DERIVED = {"cpus": 4.0, "memory_mib": 2048, "sessions": 10_000, "seed_rate": 1000}
SUSTAINED_P99_MS = 1000.0
STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12)
READY_SECONDS = 180.0
ANSWER_SECONDS = 30.0
MEETING_AT_A_TIME = 20
TEXT = "What one person says to an agent, of an ordinary length. " * 4

Figures = dict[str, float]


class Crowd:
    """People with a session each, online."""

    def __init__(self, conversations: dict[Person, str]) -> None:
        self._conversations = conversations
        self._people = list(conversations)
        self._said = dict.fromkeys(conversations, 0)

    async def greet(self) -> None:
        """Everybody says something once, so that every session is there."""
        limit = trio.CapacityLimiter(MEETING_AT_A_TIME)
        async with trio.open_nursery() as nursery:
            for person in self._people:
                nursery.start_soon(self._greet, person, limit)

    async def talk(self, rate: float, seconds: float) -> Figures:
        """Messages at that rate, whoever's turn it is, whether or not the ones before are answered."""
        latencies: list[int] = []
        count = int(rate * seconds)
        began = trio.current_time()
        with trio.move_on_after(seconds + ANSWER_SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    await trio.sleep_until(began + number / rate)
                    nursery.start_soon(self._ask, random.choice(self._people), latencies)  # noqa: S311 - no secret
        return {"rate": rate, "sent": count, "answered": len(latencies), **percentiles(latencies or [0])}

    async def _greet(self, person: Person, limit: trio.CapacityLimiter) -> None:
        async with limit:
            await self._ask(person, [], seconds=READY_SECONDS)

    async def _ask(self, person: Person, latencies: list[int], seconds: float = ANSWER_SECONDS) -> None:
        conversation, transcript = self._conversations[person], person.transcript
        self._said[person] += 1
        number, began = self._said[person], trio.current_time()
        await person.say(conversation, TEXT)
        with trio.move_on_after(seconds) as patience:
            await transcript.until(lambda: len(transcript.heard(conversation)) >= number)
        if not patience.cancelled_caught:
            latencies.append(int((trio.current_time() - began) * 1e9))


def run(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """The measured rows, and the derived one."""
    parser = argparse.ArgumentParser(prog="python -m bench budget")
    parser.add_argument("--seconds", type=float, default=15.0, help="at each rate")
    parser.add_argument("--rows", type=int, default=len(ROWS), help="only the first so many")
    options = parser.parse_args(arguments)
    rows = [trio.run(partial(_row, row, options.seconds)) for row in ROWS[: options.rows]]
    return {"cores": os.cpu_count(), "rows": rows, "derived": _derived(rows[-1])}


async def _row(row: dict[str, Any], seconds: float) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-budget-") as name,
        limits("hashee-bench", cpus=row["cpus"], memory_mib=row["memory_mib"]) as limit,
    ):
        folder = Path(name)
        async with relay_process(log_path=folder / "relay.log") as (_, url), RelayApi(url) as api:
            account = await api.add_agent("Budget")
            port = free_port()
            environment = agent_environment({**os.environ}, url, account, folder, port)
            environment |= {
                "HASHEE_SEND_RATE": "0",
                "HASHEE_HANDLER": "workers.builtin.echo:agent",
                "HASHEE_WORKERS": "1",
            }
            up = parent_death.command(os.getpid(), limit.command([sys.executable, "-m", "supervisor", "up"]))
            async with running(
                "agent", up, log_path=folder / "agent.log", environment=environment, stop_seconds=60
            ) as agent:
                await until_ready(f"http://127.0.0.1:{port}", agent, READY_SECONDS)
                idle_mib = limit.memory_mib()
                conversations: dict[Person, str] = {}
                for number in range(row["sessions"]):
                    person = await make_person(url, f"P{number}")
                    conversations[person] = await person.meet(account.agent_id)
                async with connected(*conversations):
                    crowd = Crowd(conversations)
                    await crowd.greet()
                    steps = await _raise(crowd, row["seed_rate"], seconds, limit, agent.pid)
                best = max((step for step in steps if step["sustained"]), key=lambda step: step["rate"], default=None)
                return {
                    **row,
                    "idle_memory_mib": idle_mib,
                    "memory_mib_after": limit.memory_mib(),
                    "peak_mib_with_page_cache": limit.peak_mib(),
                    "sustained_rate": best["rate"] if best else 0,
                    "times_the_seed": round(best["rate"] / row["seed_rate"], 1) if best else 0,
                    "at_that_rate": best,
                    "steps": steps,
                }


async def _raise(crowd: Crowd, seed_rate: float, seconds: float, limit: Limits, keeper: int) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for times in STEPS:
        cpu, throttled = limit.cpu_seconds(), limit.throttled_seconds()
        supervisors = [pid for pid in family(keeper) if _is_supervisor(pid)]
        supervisor = cpu_seconds(supervisors)
        figures = await crowd.talk(seed_rate * times, seconds)
        answered = max(1, int(figures["answered"]))
        is_sustained = figures["answered"] == figures["sent"] and figures["p99_ms"] < SUSTAINED_P99_MS
        steps.append(
            {
                **figures,
                "cpu_ms_a_message": round((limit.cpu_seconds() - cpu) * 1000 / answered, 2),
                "supervisor_cpu_ms_a_message": round((cpu_seconds(supervisors) - supervisor) * 1000 / answered, 2),
                "throttled_seconds": round(limit.throttled_seconds() - throttled, 1),
                "sustained": is_sustained,
            }
        )
        if not is_sustained:
            break
    return steps


def _is_supervisor(pid: int) -> bool:
    try:
        return b"supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _derived(row: dict[str, Any]) -> dict[str, Any]:
    """From the CPU that a message takes, and not measured. One supervisor is one core; three may be connected."""
    best = row["at_that_rate"] or row["steps"][0]
    everything = DERIVED["cpus"] * 1000 / best["cpu_ms_a_message"]
    supervisors = 3 * 1000 / max(best["supervisor_cpu_ms_a_message"], 0.01)
    return {
        **DERIVED,
        "derived": True,
        "rate": round(min(everything, supervisors)),
        "bound_by": "cpus" if everything < supervisors else "supervisors",
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1:])))
