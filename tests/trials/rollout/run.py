"""One run: people talk without pause while versions change; then everything is waited for and counted."""

import itertools
import random
from pathlib import Path

import httpx2
import msgspec
import trio

from sandbox.api import ApiRefused
from sandbox.people import Person, connected
from tests.trials.chaos.script import expected_answers
from tests.trials.chaos.verdict import judge
from tests.trials.open_streams import FATES, left_open
from tests.trials.rollout.release import Releases
from tests.trials.rollout.scene import Scene, scene
from tests.trials.rollout.script import handling_of
from tests.trials.rollout.strategies import STRATEGIES, TROUBLES, RolloutFailed, Strategy

WARM_UP_SECONDS = 3.0
ANSWER_SECONDS = 60.0
QUIET_SECONDS = 2.0
SAY_AGAIN_SECONDS = 0.2
BETWEEN_SECONDS = 1.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for. `trouble`: crash, kill-old, restart-redis, or empty; what else a caller names there is
    its own doing, and excuses silence too.
    """

    strategy: str
    messages: int
    people: int
    rate: float
    rollouts: int
    trouble: str
    seed: int
    max_connections: int = 3


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The line of JSON. `rollout_seconds`: of the longest one."""

    lost: int
    duplicated: int
    reordered: int
    max_gap_ms: int
    max_connections: int
    connectionless_ms: int
    rollout_seconds: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`notes`: what else is worth knowing; `wrong`: what should not be, for which no figure stands."""

    figures: Figures
    sent: int
    notes: tuple[str, ...]
    wrong: tuple[str, ...]


class Traffic:
    """People who talk at a steady rate until they are told to stop."""

    def __init__(self, made: Scene, order: Order) -> None:
        self._scene = made
        self._order = order
        self._chance = random.Random(order.seed)
        self._stop = trio.CancelScope()
        self.said = 0
        self.enough = trio.Event()

    async def run(self) -> None:
        """Returns when everything that was begun is said."""
        async with trio.open_nursery() as nursery:
            mouths = {person: trio.open_memory_channel[str](1000) for person in self._scene.people}
            for person, (_, texts) in mouths.items():
                nursery.start_soon(self._talk, person, texts)
            with self._stop:
                await self._make([send for send, _ in mouths.values()])
            for send, _ in mouths.values():
                send.close()

    def stop(self) -> None:
        self._stop.cancel()

    async def _make(self, mouths: list[trio.MemorySendChannel[str]]) -> None:
        at = trio.current_time()
        while True:
            at += self._chance.expovariate(self._order.rate)
            await trio.sleep_until(at)
            self._chance.choice(mouths).send_nowait(f"{self._order.seed}.{self.said}")
            self.said += 1
            if self.said >= self._order.messages:
                self.enough.set()

    async def _talk(self, person: Person, texts: trio.MemoryReceiveChannel[str]) -> None:
        async for text in texts:
            while True:
                try:
                    await person.say(self._scene.conversations[person], text)
                    break
                except (httpx2.TransportError, ApiRefused):
                    await trio.sleep(SAY_AGAIN_SECONDS)


async def run(order: Order, directory: Path) -> Outcome:
    """From nothing to the outcome; all processes are gone when it returns."""
    releases = Releases(directory / "code", directory / "loaded.log")
    return await run_with(STRATEGIES[order.strategy](), releases, order, directory)


async def run_with(strategy: Strategy, releases: Releases, order: Order, directory: Path) -> Outcome:
    """The same for any strategy, whose agents find their code where `releases` puts it."""
    async with scene(
        directory,
        releases,
        people=order.people,
        given_redis=strategy.given_redis,
        max_connections=order.max_connections,
    ) as made:
        await strategy.begin(made)
        async with connected(*made.people):
            traffic = Traffic(made, order)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(traffic.run)
                await trio.sleep(WARM_UP_SECONDS)
                durations = [await _roll(strategy, made, order) for _ in range(order.rollouts)]
                await traffic.enough.wait()
                traffic.stop()
            ended = trio.current_time()
            await _until_answered(made)
            return await _count(made, max(durations), (began + WARM_UP_SECONDS / 2, ended))


async def _roll(strategy: Strategy, made: Scene, order: Order) -> float:
    """How long one change of versions took. Raises RolloutFailed when it went otherwise than it should."""
    await trio.sleep(BETWEEN_SECONDS)
    if order.trouble == "crash":
        made.releases.deploy_broken()
    else:
        made.releases.deploy()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        if order.trouble in TROUBLES:
            nursery.start_soon(TROUBLES[order.trouble], strategy, made)
        went_through = await strategy.roll(made)
    if went_through is (order.trouble == "crash"):
        raise RolloutFailed(f"a rollout {'went through' if went_through else 'failed'}; see {made.directory}")
    if order.trouble == "crash":
        made.releases.deploy()  # its owner goes back
    elif made.releases.number not in made.releases.versions:
        raise RolloutFailed(f"version {made.releases.number} was never loaded")
    return trio.current_time() - began


async def _until_answered(made: Scene) -> None:
    """Everybody has heard what was to be heard, and knows the relay's numbers of what they said, or time is over.

    Then a moment more, for what is said twice.
    """
    with trio.move_on_after(ANSWER_SECONDS):
        for person, conversation in made.conversations.items():
            transcript = person.transcript
            count = len(expected_answers(transcript.said(conversation), handling_of))
            await transcript.until(lambda c=conversation, t=transcript, n=count: len(t.heard(c)) >= n)  # type: ignore[misc]
            await transcript.until(lambda p=person: not p.unacknowledged)  # type: ignore[misc]
    await trio.sleep(QUIET_SECONDS)


async def _count(made: Scene, rollout_seconds: float, window: tuple[float, float]) -> Outcome:
    verdict = judge((_conversation(person, made) for person in made.people), handling_of)
    heard_at = sorted(
        line.at
        for person, conversation in made.conversations.items()
        for line in person.transcript.lines(conversation)
        if line.direction == "in" and window[0] <= line.at <= window[1]
    )
    without = sum(person.unacknowledged for person in made.people)
    streams_left = await left_open(made.api, made.account.agent_id)
    stats = (await made.api.stats()).owners[made.account.agent_id]
    unreadable = sum(person.unreadable.total() for person in made.people)
    crashes = [path.name for path in made.logs() if "Traceback" in path.read_text(encoding="utf-8")]
    wrong = [
        *([f"{verdict.unexpected} unexpected answers"] if verdict.unexpected else []),
        *([f"{unreadable} answers could not be read"] if unreadable else []),
        *(f"a traceback in {name}" for name in crashes),
        *([f"{streams_left} streams are open at the relay"] if streams_left else []),
        *([f"{without} messages have no number: their order is not known"] if without else []),
    ]
    return Outcome(
        figures=Figures(
            lost=verdict.lost,
            duplicated=verdict.duplicated,
            reordered=verdict.reordered,
            max_gap_ms=int(
                max((b - a for a, b in itertools.pairwise([window[0], *heard_at, window[1]])), default=0) * 1000
            ),
            max_connections=stats["connections_max"],
            connectionless_ms=stats["connectionless_ms"],
            rollout_seconds=round(rollout_seconds, 1),
        ),
        sent=verdict.sent,
        notes=(
            f"sent {verdict.sent}",
            "streams: " + ", ".join(f"{stats.get(f'streams_{what}', 0)} {what}" for what in FATES),
            f"connections made {stats['connections']}, refused as one too many {stats.get('connection_limit', 0)}",
            *(line for person in made.people for line in _out_of_order(person, made)),
        ),
        wrong=tuple(wrong),
    )


def _out_of_order(person: Person, made: Scene) -> list[str]:
    """Answers that were not read in the order of what was said, each with the relay's numbers.

    Where those fall the answers were read out of order, else they were sent so. What the relay has never acknowledged has no number and
    counts as said last; acknowledgements come in order, so that nothing is said behind it, and a run in which one is missing is bad.
    """
    lines = person.transcript.lines(made.conversations[person])
    places = {text: place for place, text in enumerate(expected_answers(_conversation(person, made)[0], handling_of))}
    heard = [line for line in lines if line.direction == "in" and line.text in places]
    return [
        *(
            f"{after.text!r} (number {after.seq}) was read behind {before.text!r} (number {before.seq})"
            for before, after in itertools.pairwise(heard)
            if places[after.text] < places[before.text]
        ),
        *(f"{line.text!r} was never acknowledged" for line in lines if line.direction == "out" and line.seq is None),
    ]


def _conversation(person: Person, made: Scene) -> tuple[list[str], list[str]]:
    lines = person.transcript.lines(made.conversations[person])
    out = sorted((line for line in lines if line.direction == "out"), key=lambda line: line.seq or 2**31)
    return [line.text for line in out], [line.text for line in lines if line.direction == "in"]
