"""The people of a chaos run whom the agent asks, reminds and remembers: what they say, when, and what they have heard."""

from functools import partial

import httpx2
import trio

from sandbox.api import ApiRefused
from sandbox.people import Person
from tests.trials.chaos.house import House
from tests.trials.chaos.keeping import TOTAL, steps, total

SAY_AGAIN_SECONDS = 0.2
ANSWER_SECONDS = 30.0
COUNT_SECONDS = 40.0
"""For what is done behind the last round."""


async def say(person: Person, conversation_id: str, text: str) -> None:
    """Says it, again and again while the relay is away."""
    while True:
        try:
            await person.say(conversation_id, text)
            return
        except (httpx2.TransportError, ApiRefused):
            await trio.sleep(SAY_AGAIN_SECONDS)  # a session needs the agent's keys, and the relay is away


class Remembering:
    """The people whom the agent asks, reminds and remembers: each says the next word when it has heard what the last one gave.

    `is_over`: no further round is begun. `rounds`: that were gone through to their end.
    """

    def __init__(self, home: House) -> None:
        self._home = home
        self.is_over = False
        self.rounds = 0
        self.forgotten = 0
        self.findings: list[str] = []

    async def run(self, deadline: float) -> None:
        """Until it is over and each has finished its round."""
        with trio.move_on_at(deadline - COUNT_SECONDS):
            async with trio.open_nursery() as nursery:
                for person in self._home.rememberers:
                    nursery.start_soon(self._talk, person)

    async def count(self) -> None:
        """What the store has counted is as much as all have said."""
        for person in self._home.rememberers[:1]:
            told = await self._told(person, TOTAL)
            expected = [total(self.rounds)]
            if told != expected:
                self.forgotten += 1
                self.findings.append(f"{person.name}: the store says {told}, not {expected}")

    async def _told(self, person: Person, text: str) -> list[str]:
        """What a person hears who says something now."""
        where = self._home.world.conversations[person]
        before = len(person.transcript.heard(where))
        await say(person, where, text)
        with trio.move_on_after(ANSWER_SECONDS):
            await person.transcript.until(lambda: len(person.transcript.heard(where)) > before)
        return person.transcript.heard(where)[before:]

    def conversations(self) -> list[tuple[Person, list[str], list[str]]]:
        """Of each: what was said and heard in its rounds."""
        rows = []
        for person in self._home.rememberers:
            transcript, where = person.transcript, self._home.world.conversations[person]
            said = [text for text in transcript.said(where) if text != TOTAL]
            heard = transcript.heard(where)
            rows.append((person, said, heard[: len(heard) - (len(said) < len(transcript.said(where)))]))
        return rows

    async def _talk(self, person: Person) -> None:
        where, number = self._home.world.conversations[person], 0
        while not self.is_over:
            for step in steps(number):
                await say(person, where, step.says)
                last, heard = step.hears[-1], partial(person.transcript.heard, where)
                waits = f"{person.name} waits for {last!r}"
                self.findings.append(waits)
                await person.transcript.until(lambda last=last, heard=heard: last in heard())  # type: ignore[misc]
                self.findings.remove(waits)
            number += 1
            self.rounds += 1
