"""Health that tells the truth, asked as container and operator ask it: each fault turns the right answer red within 20 s.

And green again, once it is over. What a restart cannot mend leaves liveness green.
"""

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from bus.transport.client import open_redis
from sandbox.people import connected
from tests.commands import run_command
from tests.trials.chaos.house import House, house
from tests.waiting import waiting_for

RED_WITHIN_SECONDS = 20
GREEN_WITHIN_SECONDS = 60


class Asked:
    """`hashee-agent healthcheck` with the agent's settings."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    async def ready(self) -> dict[str, str]:
        """Why not, by the name of the check; empty when all is well."""
        status, text = await self._ask()
        if status == 0:
            return {}
        try:
            checks = json.loads(text)["checks"]
        except ValueError:
            return {"page": text}
        return {check["name"]: check["detail"] for check in checks if not check["ok"]}

    async def lives(self) -> bool:
        status, _ = await self._ask("--live")
        return status == 0

    async def _ask(self, *options: str) -> tuple[int, str]:
        run = partial(run_command, "healthcheck", *options, environ=self._environment)
        done = await trio.to_thread.run_sync(run)
        return done.returncode, done.stdout.strip()

    async def until_red(self, name: str) -> str:
        with waiting_for(f"{name} to be red", RED_WITHIN_SECONDS):
            while name not in (found := await self.ready()):
                await trio.sleep(0.2)
        return found[name]

    async def until_green(self) -> None:
        with waiting_for("everything to be green", GREEN_WITHIN_SECONDS):
            while await self.ready():
                await trio.sleep(0.2)


@pytest.mark.long
async def test_each_fault_turns_the_right_answer_red_and_green_again(tmp_path: Path) -> None:
    """Two houses at a time, since most of it is waiting."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay_and_redis, folders[0])
        nursery.start_soon(workers_and_loop, folders[1])


async def relay_and_redis(folder: Path) -> None:
    """What a restart cannot mend."""
    async with asked_house(folder) as (h, asked):
        await asked.until_green()
        h.proxy.stall()
        why = await asked.until_red("relay")
        assert why
        assert await asked.lives()
        h.proxy.resume()
        await asked.until_green()
        with stopped(h.world.redis_pid()):
            assert "answered" in await asked.until_red("redis")
            assert await asked.lives()
        await asked.until_green()
        async with open_redis(f"unix://{h.world.redis_socket}") as client:
            await client.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            assert "maxmemory-policy allkeys-lru; set it to noeviction" in await asked.until_red("redis")
            assert await asked.lives()
            await client.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await asked.until_green()


async def workers_and_loop(folder: Path) -> None:
    async with asked_house(folder) as (h, asked):
        await asked.until_green()
        [person] = h.world.people
        with stopped(*h.workers()):
            async with connected(person):
                await person.say(h.world.conversations[person], "who hears me?")
            assert "ready" in await asked.until_red("workers")
            assert await asked.lives()
        await asked.until_green()
        with stopped(h.world.supervisor_pid()), waiting_for("the standstill to be noticed", RED_WITHIN_SECONDS):
            while await asked.lives():
                await trio.sleep(0.2)
        await asked.until_green()


@asynccontextmanager
async def asked_house(folder: Path) -> AsyncIterator[tuple[House, Asked]]:
    async with house(folder, people=1, supervisors=1) as h:
        yield h, Asked(h.world.environment)
        for person in h.world.people:
            await person.close()


@contextmanager
def stopped(*pids: int | None) -> Iterator[None]:
    """SIGSTOP; SIGCONT at the end, to those that are still there."""
    found = [pid for pid in pids if pid is not None]
    assert found
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
