"""`python -m tests.trials.digest [--people N] [--rate N] [--kills N]`: a digest to everybody, while some of them write and processes are killed.

A real agent, relay and Redis. An owner's program sends the digest under keys, and asks again for whatever it has no receipt for; the supervisor, or
Redis, is killed meanwhile. The exit status is 1 where somebody heard the digest not once, a writer was not answered once and in order, or an answer
stood behind more than one message of the digest.
"""

import argparse
import itertools
import random
import resource
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import trio

from bus.records.outside import OUTSIDE
from bus.transport.client import open_redis
from sandbox.people import Person
from tests.waiting import waiting_for
from tests.world import World, world
from workers import NotSent, Outside

WRITERS = 3
PAUSE_SECONDS = 1.0
NEWS = "the news of today"


@dataclass
class Trial:
    """`asked`: how often the owner's program asked in vain; `said`: how often each writer has written."""

    made: World
    kills: int
    asked: int = 0
    said: dict[Person, int] = field(default_factory=dict)
    is_over: bool = False

    async def run(self) -> list[str]:
        """Returns what went wrong."""
        writers = self.made.people[:WRITERS]
        await self._everybody_writes()
        async with trio.open_nursery() as nursery:
            for writer in writers:
                nursery.start_soon(self._write, writer)
            if self.kills:
                nursery.start_soon(self._kill)
            await self._send_all()
            with waiting_for("everybody to have heard the digest", 600):
                while any(NEWS not in self._heard(one) for one in self.made.people):
                    await trio.sleep(0.1)
            self.is_over = True
        with waiting_for("everybody who wrote to be answered", 60):
            while any(len(self._heard(one)) < self._expected(one) for one in writers):
                await trio.sleep(0.1)
        return [*self._wrong(), *await self._behind()]

    async def _everybody_writes(self) -> None:
        async with trio.open_nursery() as nursery:
            for person in self.made.people:
                self.said[person] = 1
                nursery.start_soon(person.say, self.made.conversations[person], "0")
        with waiting_for("everybody to be answered once", 600):
            while any(len(self._heard(one)) < 1 for one in self.made.people):
                await trio.sleep(0.1)

    async def _send_all(self) -> None:
        async with Outside(self.made.environment) as it:
            for person in self.made.people:
                while True:
                    try:
                        await it.send(self.made.conversations[person], NEWS, key="today")
                    except NotSent:
                        self.asked += 1
                        await trio.sleep(0.2)
                    else:
                        break

    async def _write(self, person: Person) -> None:
        while not self.is_over:
            await trio.sleep(random.uniform(0.5, 1.5) * PAUSE_SECONDS)
            await person.say(self.made.conversations[person], str(self.said[person]))
            self.said[person] += 1

    async def _kill(self) -> None:
        for number in range(self.kills):
            await trio.sleep(3)
            await self.made.kill(self.made.supervisor_pid() if number % 2 == 0 else self.made.redis_pid())
            with trio.move_on_after(30):
                await self.made.until_ready()

    def _heard(self, person: Person) -> list[str]:
        return person.transcript.heard(self.made.conversations[person])

    def _expected(self, person: Person) -> int:
        return self.said[person] + 1

    def _wrong(self) -> Iterator[str]:
        for person in self.made.people:
            heard = self._heard(person)
            if heard.count(NEWS) != 1:
                yield f"{person.name} heard the digest {heard.count(NEWS)} times"
            answers = [text for text in heard if text != NEWS]
            if answers != [f"echo: {number}" for number in range(self.said[person])]:
                yield f"{person.name} was answered {answers} to {self.said[person]} messages"

    async def _behind(self) -> list[str]:
        """Answers behind more than one message of the digest, by the order of commits; while nobody is killed."""
        async with open_redis(f"unix://{self.made.redis_socket}") as client:
            rows = cast(
                "list[tuple[bytes, list[bytes]]]", await client.command("XRANGE", self.made.keys.ledger, "-", "+")
            )
        waits: dict[str, int] = {}
        most = 0
        for _, flat in rows:
            name, job = flat[1].decode(), flat[3].decode()
            if name in ("done", "replied") and not job.startswith(OUTSIDE):
                waits.setdefault(job, 0)
            elif name == "encrypted" and job.startswith(OUTSIDE):
                waits = {one: count + 1 for one, count in waits.items()}
            elif name == "encrypted" and job in waits:
                most = max(most, waits.pop(job))
        print(f"messages of the digest before an answer: at most {most}")
        return [f"an answer stood behind {most} messages of the digest"] if most > 1 and not self.kills else []


async def trial(people: int, rate: float, kills: int) -> int:
    """Runs it; returns the exit status."""
    names = [f"p{number}" for number in range(people)]
    with tempfile.TemporaryDirectory() as directory:
        async with world(
            Path(directory), people=names, HASHEE_SEND_RATE=f"{rate:g}", HASHEE_MAX_CONNECTIONS="1"
        ) as made:
            one = Trial(made, kills)
            began = trio.current_time()
            wrong = await one.run()
            written = sum(itertools.islice(one.said.values(), WRITERS))
            print(
                f"{people} people, {written} messages of {WRITERS} writers, {kills} kills, {one.asked} times in vain: {trio.current_time() - began:.0f} s"
            )
    print("\n".join(wrong) or "all good")
    return 1 if wrong else 0


def main() -> int:
    """Reads the options and runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=5)
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return trio.run(trial, options.people, options.rate, options.kills)


if __name__ == "__main__":
    sys.exit(main())
