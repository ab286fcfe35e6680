"""Promises P1 to P3 with SIGKILL in the middle of a conversation: all answered, once each, in order.

Strikes are off, since our kills look like crashes: a message that loses two workers in a row would be taken for their killer (rule 8).
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from sandbox.people import Person
from tests.world import World, world

PEOPLE = ("Ada", "Ben", "Cleo")
TURNS = 7  # of three people: 21 messages, of which the first 20 are sent
PAUSE_SECONDS = 0.15


async def kill_supervisor(w: World) -> None:
    before = w.supervisor_pid()
    await w.kill(before)
    await w.until(lambda: w.supervisor_pid() not in (None, before))


async def kill_every_worker(w: World) -> None:
    for pid in w.worker_pids():
        await w.kill(pid)


async def kill_redis(w: World) -> None:
    before = w.redis_pid()
    await w.kill(before)
    await w.until(lambda: w.redis_pid() not in (None, before))


@pytest.mark.parametrize("kill", [kill_supervisor, kill_every_worker, kill_redis])
async def test_all_are_answered_once_and_in_order_when_it_is_killed(
    tmp_path: Path, kill: Callable[[World], Awaitable[None]]
) -> None:
    async with world(tmp_path, people=PEOPLE, HASHEE_STRIKES="off") as w:
        script = [(person, f"{person.name} {turn}") for turn in range(TURNS) for person in w.people][:20]
        expected: dict[Person, list[str]] = {person: [] for person in w.people}
        async with trio.open_nursery() as nursery:
            for number, (person, text) in enumerate(script):
                if number == len(script) // 2:
                    nursery.start_soon(kill, w)
                await person.say(w.conversations[person], text)
                expected[person].append(f"echo: {text}")
                await trio.sleep(PAUSE_SECONDS)
        await w.all_answered(expected)
        assert sum(len(answers) for answers in expected.values()) == 20


async def test_a_burst_is_answered_in_order_while_everything_is_killed_in_turn(tmp_path: Path) -> None:
    async with world(tmp_path, people=PEOPLE, HASHEE_STRIKES="off") as w:
        expected: dict[Person, list[str]] = {person: [] for person in w.people}
        for kill in (kill_supervisor, kill_redis, kill_every_worker):
            for number in range(5):
                for person in w.people:
                    text = f"{kill.__name__} {number}"
                    await person.say(w.conversations[person], text)
                    expected[person].append(f"echo: {text}")
            await kill(w)
        await w.all_answered(expected)
