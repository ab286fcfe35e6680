"""Redis loses its last seconds (a power cut, a replica that lagged): every conversation goes on by itself, and no ratchet forks."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import trio

from sandbox.people import Person
from tests.trials.drills.forks import forks
from tests.waiting import waiting_for
from tests.world import World, world

ANSWER_SECONDS = 30.0
FILES = "appendonlydir"


async def test_a_question_and_its_answer_in_the_lost_span_leave_nobody_deaf(tmp_path: Path) -> None:
    """Its job runs again, and the relay knows the id of its reply: the session that follows has to arrive by itself."""
    async with world(tmp_path, people=("Ada", "Ben", "Cem", "Dee")) as w:
        for person in w.people:
            await person.say(w.conversations[person], "before")
        await w.all_answered({person: ["echo: before"] for person in w.people})
        kept = keep_a_copy(w, tmp_path)
        for person in w.people:
            await person.say(w.conversations[person], "in the lost span")
        await w.all_answered({person: ["echo: before", "echo: in the lost span"] for person in w.people})
        await go_back(w, kept)
        for person in w.people:
            await w.until(partial(has_an_offer, person), ANSWER_SECONDS)
        heard = ["echo: before", "echo: in the lost span"]
        for number in range(3):
            for person in w.people:
                await person.say(w.conversations[person], f"after {number}")
            heard = [*heard, f"echo: after {number}"]
            await w.all_answered(dict.fromkeys(w.people, heard), ANSWER_SECONDS)
        assert forks(envelope for person in w.people for envelope in person.envelopes) == []


@pytest.mark.long
async def test_sessions_that_began_in_the_lost_span_are_replaced(tmp_path: Path) -> None:
    """What is sealed in them cannot be read; an offer comes, and the next message is answered."""
    async with world(tmp_path, people=("Ada", "Ben")) as w:
        for person in w.people:
            await person.say(w.conversations[person], "before")
        await w.all_answered({person: ["echo: before"] for person in w.people})
        kept = keep_a_copy(w, tmp_path)
        for person in w.people:
            person.forget_sessions()
            await person.say(w.conversations[person], "in a new session")
        await w.all_answered({person: ["echo: before", "echo: in a new session"] for person in w.people})
        await go_back(w, kept)
        with waiting_for("everybody to be answered after the rollback", ANSWER_SECONDS):
            for person in w.people:
                number = 0
                while f"echo: after {number - 1}" not in person.transcript.heard(w.conversations[person]):
                    await person.say(w.conversations[person], f"after {number}")
                    number += 1
                    with trio.move_on_after(1.0):
                        await person.transcript.until(
                            lambda: f"echo: after {number - 1}" in person.transcript.heard(w.conversations[person])  # noqa: B023
                        )
        assert forks(envelope for person in w.people for envelope in person.envelopes) == []


def has_an_offer(person: Person) -> bool:
    """Whether the agent has offered a session."""
    return person.counts["event_session.renewed"] > 0


def keep_a_copy(w: World, folder: Path) -> Path:
    """What the append-only file holds now; every write is in the kernel before its answer."""
    kept = folder / "older"
    shutil.copytree(w.state_dir / "redis" / FILES, kept)
    return kept


async def go_back(w: World, kept: Path) -> None:
    """Redis is killed and comes back with an older file, as after a power cut; the keeper starts it again."""
    files = w.state_dir / "redis" / FILES
    aside = files.with_name("newer")
    files.rename(aside)
    shutil.copytree(kept, files)
    await w.kill(w.redis_pid())
    await w.until(lambda: "went back in time" in w.log())
