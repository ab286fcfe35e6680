"""`python -m tests.trials.newcomers [--people N] [--untold SECONDS]`: so many people write to an agent for the first time, at once.

A real agent under its keeper, its private Redis, a real relay. Each person meets the agent and says two messages without waiting for an
answer. With --untold the relay answers none of the agent's calls meanwhile (HTTP 500). The exit status is 1 where somebody was not answered, twice
or not in order, or anything stood in quarantine at any time.
"""

import argparse
import resource
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Final, cast

import redis
import trio

from sandbox.people import Person, connected, make_person
from tests.memory import own_memory
from tests.world import World, world

TEXTS: Final = ("one", "two")
EXPECTED: Final = [f"echo: {text}" for text in TEXTS]
MOST_SECONDS: Final = 600.0
LOOK_SECONDS: Final = 0.5
AT_ONCE: Final = 8
"""People who are made, or are connected, at a time: the relay is not what is tried."""


class Trial:
    """`in_quarantine`: the most messages that stood there at a time. `seconds`: until each was answered."""

    def __init__(self, made: World, untold_seconds: float) -> None:
        self.made = made
        self.untold_seconds = untold_seconds
        self.in_quarantine = 0
        self.seconds: list[float] = []

    async def run(self, people: list[Person]) -> list[str]:
        """Returns what went wrong."""
        agent_id = self.made.environment["HASHEE_AGENT_ID"]
        if self.untold_seconds:
            await self.made.api.fault("rest_500", seconds=self.untold_seconds)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            async with trio.open_nursery() as writers:
                for person in people:
                    writers.start_soon(self._write, person, agent_id, began)
            nursery.cancel_scope.cancel()
        return [
            *(f"{person.name} heard {heard}" for person in people if (heard := self._heard(person)) != EXPECTED),
            *([f"{self.in_quarantine} stood in quarantine"] if self.in_quarantine else []),
        ]

    async def _write(self, person: Person, agent_id: str, began: float) -> None:
        conversation = self.made.conversations[person] = await person.meet(agent_id)
        for text in TEXTS:
            await person.say(conversation, text)
        with trio.move_on_after(MOST_SECONDS):
            await person.transcript.until(lambda: len(self._heard(person)) >= len(TEXTS))
        self.seconds.append(trio.current_time() - began)

    def _heard(self, person: Person) -> list[str]:
        return person.transcript.heard(self.made.conversations[person])

    async def _look(self) -> None:
        with closing(redis.Redis(unix_socket_path=str(self.made.redis_socket), protocol=2)) as client:
            while True:
                found = cast(int, await trio.to_thread.run_sync(client.zcard, self.made.keys.quarantine))
                self.in_quarantine = max(self.in_quarantine, found)
                await trio.sleep(LOOK_SECONDS)


async def trial(directory: Path, people: int, untold_seconds: float) -> int:
    """Runs it; returns the exit status."""
    async with world(directory, people=()) as made:
        persons = await newcomers(made.relay_url, people)
        await made.until_ready()
        async with connected(*persons):
            one = Trial(made, untold_seconds)
            began = time.monotonic()
            wrong = await one.run(persons)
            answered = sorted(one.seconds)
            print(
                f"{people} people, {len(TEXTS)} messages each, answered after {answered[len(answered) // 2]:.1f} s (median) and "
                f"{answered[-1]:.1f} s (the last), {await waited(made):.0f} waited at the relay, at most {one.in_quarantine} in quarantine, "
                f"{time.monotonic() - began:.0f} s"
            )
    print("\n".join(wrong[:20]) or "all good")
    return 1 if wrong else 0


async def newcomers(url: str, count: int) -> list[Person]:
    """People with keys whom no agent knows."""
    made: list[Person] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def make(name: str) -> None:
        async with limit:
            made.append(await make_person(url, name))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(make, f"p{number}")
    return made


async def waited(made: World) -> float:
    """How many messages the agent has told to wait at the relay."""
    with urllib.request.urlopen(made.http_url + "/metrics", timeout=10) as answer:  # noqa: S310, ASYNC210 - loopback, at the end
        page = cast(bytes, answer.read()).decode()
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("hashee_message_held_total"))


def main() -> int:
    """A line with what was seen, and one for each thing that went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.trials.newcomers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument(
        "--untold", type=float, default=0.0, metavar="SECONDS", help="the relay answers no call so long"
    )
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with own_memory(), tempfile.TemporaryDirectory(prefix="newcomers-") as directory:
        return trio.run(trial, Path(directory), options.people, options.untold)


if __name__ == "__main__":
    sys.exit(main())
