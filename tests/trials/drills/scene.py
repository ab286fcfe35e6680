"""An agent that echoes, people who talk to it, and a relay that keeps what it stored; what each drill does with them, and what it counts."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import cast

import msgspec
import redis
import trio

from sandbox.people import Person
from tests.trials.chaos.look import Look
from tests.trials.drills.forks import forks, stored
from tests.trials.drills.handlers import COUNT_WHILE
from tests.trials.drills.other_time import OtherTime
from tests.waiting import said_of, waiting_for
from tests.world import World, world

ANSWER_SECONDS = 30.0
"""Within so long of a person's next message every conversation answers, without an operator."""

QUIET_SECONDS = 3.0
"""After the last answer: what is answered twice comes late."""

MOST_SETTLE_SECONDS = 60.0
COUNT = "count"
FEW_LINES = 4


class Order(msgspec.Struct, frozen=True):
    """What the command line asks for. `rounds`: messages of each person in each part of a drill."""

    people: int = 6
    rounds: int = 5


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of one drill. `lost`: messages that were neither answered nor stand visibly in quarantine. `repeated`: answers that
    somebody heard again. `unanswered`: conversations that did not answer within 30 s of the person's next message. `forks`: ratchet positions
    with two envelopes; `accepted`: how many of `lost` and `forks` nothing can prevent. `unnoticed`: 1 where nobody noticed that Redis went back. `put_aside`: how many stand in quarantine.
    """

    drill: str
    said: int
    lost: int
    repeated: int
    unanswered: int
    forks: int
    unnoticed: int
    put_aside: int
    seconds_to_answer: float
    seconds: float
    accepted: int = 0

    @property
    def is_good(self) -> bool:
        worse = self.lost > self.accepted or self.forks > self.accepted
        return not (worse or self.repeated or self.unanswered or self.unnoticed)


class Scene:
    """The world of one drill, and the words in which a drill is written. `clock`: of the agent's processes, where a drill turns it."""

    clock: OtherTime

    def __init__(self, made: World, order: Order) -> None:
        self.world = made
        self.order = order
        self.unanswered: set[Person] = set()
        self.slowest_seconds = 0.0
        self._asked = 0
        self._began = trio.current_time()
        self._count_while = made.directory / "count"

    @property
    def counters(self) -> list[Person]:
        """Half of the people: those to whom the agent is still talking when something comes back."""
        return self.world.people[::2]

    @property
    def talkers(self) -> list[Person]:
        """The others."""
        return self.world.people[1::2]

    async def talk(self, what: str, people: Sequence[Person]) -> None:
        """Each of them says so many messages, one after the other, and all are answered."""
        for number in range(self.order.rounds):
            for person in people:
                await person.say(self.world.conversations[person], f"{what} {number}")
            for person in people:
                await self._until(person, lambda heard: f"echo: {what} {number}" in heard)  # noqa: B023 - awaited here

    async def begin_counting(self) -> None:
        """The agent counts to half of the people; behind that waits a message of theirs, sealed before they have read any of it."""
        self._count_while.touch()
        for person in self.counters:
            await person.say(self.world.conversations[person], COUNT)
            await person.say(self.world.conversations[person], "behind the count")
        await self.count_on()

    async def count_on(self) -> None:
        """Each of them has heard a few lines more."""
        for person in self.counters:
            already = len(person.transcript.heard(self.world.conversations[person]))
            await self._until(person, lambda heard: len(heard) >= already + FEW_LINES)  # noqa: B023 - awaited here

    def end_counting(self) -> None:
        """A run that goes on, and one that begins again, says no more."""
        self._count_while.unlink()

    async def _until(self, person: Person, condition: Callable[[list[str]], bool]) -> None:
        conversation = self.world.conversations[person]
        with waiting_for(f"what is heard: {said_of(condition)}", ANSWER_SECONDS):
            await person.transcript.until(lambda: condition(person.transcript.heard(conversation)))

    def has_heard(self, person: Person, text: str) -> bool:
        return f"echo: {text}" in person.transcript.heard(self.world.conversations[person])

    async def each_is_answered(self) -> None:
        """Everybody says something now, and again each second until the first answer to any of it; all at the same time."""
        async with trio.open_nursery() as nursery:
            for person in self.world.people:
                nursery.start_soon(self._is_answered, person)

    async def _is_answered(self, person: Person) -> None:
        conversation, began, texts = self.world.conversations[person], trio.current_time(), list[str]()
        self._asked += 1
        number = self._asked

        def is_answered() -> bool:
            return any(self.has_heard(person, text) for text in texts)

        with trio.move_on_after(ANSWER_SECONDS):
            while not is_answered():
                texts.append(f"next {number}.{len(texts)}")
                await person.say(conversation, texts[-1])
                with trio.move_on_after(1.0):
                    await person.transcript.until(is_answered)
        if not is_answered():
            self.unanswered.add(person)
        self.slowest_seconds = max(self.slowest_seconds, trio.current_time() - began)

    @property
    def went_back(self) -> bool:
        """Whether the agent says that Redis went back."""
        return self.has_counted("redis_went_back")

    def has_counted(self, what: str) -> bool:
        """Whether the agent's counter of this name is above 0."""
        page = self.world.page("/metrics")
        return re.search(rf"^hashee_{what}_total [1-9]", page, re.MULTILINE) is not None

    async def outcome(self, drill: str, *, is_noticed: bool) -> Outcome:
        """Once all is quiet."""
        await self._settled()
        messages = stored(relay_state(self.world.directory))
        put_aside = await trio.to_thread.run_sync(self._put_aside)
        visible = {one.client_message_id for one in messages if one.message_id in put_aside}
        said, lost, repeated = 0, 0, 0
        for person, conversation in self.world.conversations.items():
            lines = [line for line in person.transcript.lines(conversation) if line.direction == "out"]
            answers = Counter(person.transcript.heard(conversation))
            said += len(lines)
            nowhere = [one for one in lines if f"echo: {one.text}" not in answers]
            nowhere = [one for one in nowhere if one.client_message_id not in visible]
            again = {text: count for text, count in answers.items() if count > 1}
            lost += len(nowhere)
            repeated += sum(again.values()) - len(again)
            if nowhere or again:
                texts = [one.text for one in nowhere]
                print(f"{person.name}: nowhere {texts}, heard again {again}", file=sys.stderr)
        return Outcome(
            drill=drill,
            said=said,
            lost=lost,
            repeated=repeated,
            unanswered=len(self.unanswered),
            forks=len(forks(one.encrypted_payload for one in messages)),
            unnoticed=int(not is_noticed),
            put_aside=len(put_aside),
            seconds_to_answer=round(self.slowest_seconds, 2),
            seconds=round(trio.current_time() - self._began, 1),
        )

    def _put_aside(self) -> set[str]:
        """Messages that stand in quarantine."""
        with closing(redis.Redis(unix_socket_path=str(self.world.redis_socket), protocol=2)) as client:
            return {one.decode() for one in cast("list[bytes]", client.zrange(self.world.keys.quarantine, 0, -1))}

    async def _settled(self) -> None:
        """Until nothing is under way and nobody has heard anything for a while."""
        look = Look(self.world.redis_socket, self.world.keys)
        quiet_since, heard = trio.current_time(), -1
        with trio.move_on_after(MOST_SETTLE_SECONDS):
            while trio.current_time() - quiet_since < QUIET_SECONDS:
                left = await trio.to_thread.run_sync(look.unfinished, {})
                now = sum(
                    len(person.transcript.heard(self.world.conversations[person])) for person in self.world.people
                )
                if left or now != heard:
                    quiet_since, heard = trio.current_time(), now
                await trio.sleep(0.2)


@asynccontextmanager
async def scene(directory: Path, order: Order, **more: str) -> AsyncIterator[Scene]:
    """Everything up and ready, the agent with `more` settings."""
    people = [f"P{number}" for number in range(order.people)]
    settings = {
        "HASHEE_HANDLER": "tests.trials.drills.handlers:agent",
        "HASHEE_DRAIN_SECONDS": "1",  # it does not wait for the end of a count
        COUNT_WHILE: str(directory / "count"),
        **more,
    }
    options = ("--state", str(relay_state(directory)))
    async with world(directory, people=people, relay_options=options, **settings) as made:
        yield Scene(made, order)


def relay_state(directory: Path) -> Path:
    return directory / "relay.db"


def copy(source: Path, target: Path) -> None:
    """As an operator does it, while whoever writes there runs."""
    done = subprocess.run(["/bin/cp", "-a", str(source), str(target)], check=False, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"cp -a {source}: {done.stderr!r}")


def copied_whole(source: Path, target: Path, files: Path) -> bool:
    """Whether a copy was made while Redis' files in it (`files`) were the same before and after it."""
    shutil.rmtree(target, ignore_errors=True)
    try:
        before = _names(files)
        copy(source, target)
        return before == _names(files)
    except (RuntimeError, FileNotFoundError):  # something in it went while it was copied
        return False


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put_back(kept: Path, place: Path) -> None:
    """`kept` takes the place of what stands there."""
    shutil.rmtree(place)
    copy(kept, place)
