"""The example that remembers, through relay, Redis and workers, with SIGKILL in the middle: each message is counted once, and nothing of what was
said is forgotten, or kept twice.

Strikes are off, as in tests/test_kills.py.
"""

from pathlib import Path

import pytest
import trio

from sandbox.people import Person
from tests.test_kills import kill_every_worker, kill_redis, kill_supervisor
from tests.world import World, world

ROUNDS = (kill_every_worker, kill_supervisor, kill_redis)
TURNS = 4
PAUSE_SECONDS = 0.05


class Talk:
    """What a person hears who says one thing after the other."""

    def __init__(self, w: World, person: Person) -> None:
        self._world, self._person = w, person
        self.expected: list[str] = []

    async def say(self, number: int) -> None:
        text = f"message {number}"
        await self._person.say(self._world.conversations[self._person], text)
        count = len(self.expected) + 1
        self.expected.append(f"{count}. I have read {2 * count - 1} turns, from 'message 1' to '{text}'.")


@pytest.mark.long
async def test_each_message_is_counted_once_and_all_that_was_said_is_known_whatever_is_killed(tmp_path: Path) -> None:
    async with world(
        tmp_path, people=("Ada", "Ben"), HASHEE_STRIKES="off", HASHEE_HANDLER="examples.memory_agent:agent"
    ) as w:
        talks = {person: Talk(w, person) for person in w.people}
        number = 0
        for kill in ROUNDS:
            async with trio.open_nursery() as nursery:
                for turn in range(TURNS):
                    number += 1
                    for talk in talks.values():
                        await talk.say(number)
                    if turn == 1:
                        nursery.start_soon(kill, w)
                    await trio.sleep(PAUSE_SECONDS)
            await w.all_answered({person: talk.expected for person, talk in talks.items()})
