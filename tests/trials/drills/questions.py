"""Redis goes back under open questions, answers to them, reminders and state: what people see afterwards goes on, and nothing of it is said twice."""

import os
import signal
import sys
from pathlib import Path

import trio

from sandbox.people import Person
from tests.trials.drills.redis_rolled_back import FILES, LEAST_OLDER_SECONDS
from tests.trials.drills.scene import ANSWER_SECONDS, Order, Outcome, Scene, copy, put_back, scene

FEW_PEOPLE = 6
NEXT_SECONDS = 8
"""When a reminder is due that is set in the lost span: after the return."""


class Asked(Scene):
    """People who are asked, are reminded, and are counted with."""

    async def hears(self, person: Person, text: str, *, seconds: float = ANSWER_SECONDS) -> bool:
        """Whether the person has heard this within so long."""
        heard = self.world.conversations[person]
        with trio.move_on_after(seconds):
            await person.transcript.until(lambda: text in person.transcript.heard(heard))
        return text in person.transcript.heard(heard)

    async def says(self, person: Person, text: str, *expected: str) -> None:
        """The person says it and has heard all of this then; who has not counts as unanswered."""
        await person.say(self.world.conversations[person], text)
        for one in (f"echo: {text}", *expected):
            if not await self.hears(person, one):
                self.unanswered.add(person)
                print(f"{person.name} said {text!r} and has not heard {one!r}", file=sys.stderr)


async def questions_rolled_back(directory: Path, order: Order) -> Outcome:
    """Six people, whatever the order: what each does stands beside their number."""
    order = Order(FEW_PEOPLE, order.rounds)
    async with scene(directory, order, HASHEE_HANDLER="tests.trials.drills.asking:agent") as made:
        at = Asked(made.world, order)
        asked, both, due, later, counted, soon = at.world.people
        files, kept = at.world.state_dir / "redis" / FILES, directory / "kept"
        for person in at.world.people:
            await at.says(person, "before")
        await at.says(asked, "/book", "Your name?")
        await at.says(due, "remind me in 1")
        await at.says(counted, "one", "one was number 2")
        copy(files, kept)
        copied = trio.current_time()
        await at.says(asked, "Ann", "Which day, Ann?")
        await at.says(both, "/book", "Your name?")
        await at.says(both, "Ben", "Which day, Ben?")
        await at.says(later, f"remind me in {NEXT_SECONDS}")
        await at.says(counted, "two", "two was number 3")
        await at.says(soon, "remind me in 2", "after 2")
        was_reminded = await at.hears(due, "after 1")
        await trio.sleep_until(copied + LEAST_OLDER_SECONDS)
        os.kill(at.world.keeper_pid, signal.SIGSTOP)
        try:
            await at.world.kill(at.world.redis_pid())
            put_back(kept, files)
        finally:
            os.kill(at.world.keeper_pid, signal.SIGCONT)
        await at.each_is_answered()
        await at.talk("after", at.world.people)
        was_reminded &= await at.hears(later, f"after {NEXT_SECONDS}")
        return await at.outcome("questions-rolled-back", is_noticed=at.went_back and was_reminded)
