"""One chaos run: people talk while things break; then everything is healed, waited for and counted."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx2
import msgspec
import trio

from sandbox.api import ApiRefused
from sandbox.people import Person, connected
from tests.chaos.harm import Harmer, planned_harm
from tests.chaos.house import House, house
from tests.chaos.look import RedisAway
from tests.chaos.script import Utterance, expected_answers, utterances
from tests.chaos.verdict import Verdict, judge

SAY_AGAIN_SECONDS = 0.2
LOOK_SECONDS = 0.25
QUIET_SECONDS = 3.0
"""After the last answer: what is answered twice comes late."""

MOST_FINDINGS = 40


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    messages: int
    people: int
    seed: int
    kinds: tuple[str, ...]
    kills: int
    rate: float
    supervisors: int
    seconds: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it; `findings` say where to look. `crashes` are tracebacks in the logs."""

    verdict: Verdict
    undecryptable: int
    dead: int
    crashes: int
    kills: dict[str, int]
    seconds: float
    findings: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        verdict = self.verdict
        bad = verdict.lost + verdict.duplicated + verdict.reordered + verdict.unexpected
        return verdict.answered == verdict.sent and not (bad or self.undecryptable or self.dead or self.crashes)


async def run(order: Order, directory: Path) -> Outcome:
    """From nothing to the outcome; all processes are gone when it returns."""
    began = trio.current_time()
    async with house(directory, people=order.people, supervisors=order.supervisors) as home:
        harmer = Harmer(home, order.seed)
        with trio.move_on_after(order.seconds):
            async with connected(*home.world.people):
                await _talk_and_harm(home, harmer, order)
                await harmer.heal()
                findings = await _settle(home, harmer, deadline=began + order.seconds)
                return _count(home, harmer, findings, trio.current_time() - began)
        raise TimeoutError(f"not even counted after {order.seconds:.0f} s")


async def _talk_and_harm(home: House, harmer: Harmer, order: Order) -> None:
    said = utterances(messages=order.messages, people=order.people, rate=order.rate, seed=order.seed)
    harms = planned_harm(kinds=order.kinds, kills=order.kills, seconds=said[-1].at_seconds, seed=order.seed)
    harmer.note(f"begins: {order}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harmer.run, harms)
        for number, person in enumerate(home.world.people):
            own = [utterance for utterance in said if utterance.person == number]
            nursery.start_soon(_talk, person, home.world.conversations[person], own)
    harmer.note("everything is said and broken")


async def _talk(person: Person, conversation_id: str, own: Sequence[Utterance]) -> None:
    began = trio.current_time()
    for utterance in own:
        await trio.sleep_until(began + utterance.at_seconds)
        while True:
            try:
                await person.say(conversation_id, utterance.text)
                break
            except (httpx2.TransportError, ApiRefused):
                await trio.sleep(SAY_AGAIN_SECONDS)  # a session needs the agent's keys, and the relay is away


async def _settle(home: House, harmer: Harmer, deadline: float) -> list[str]:
    """Until nothing is under way any more and it has been quiet; what is left when the time is over."""
    left: list[str] = ["never looked"]
    quiet_since: float | None = None
    heard = -1
    while trio.current_time() < deadline - 5.0:
        left = await trio.to_thread.run_sync(partial(_left, home))
        now_heard = sum(len(lines) for _, lines in _conversations(home))
        if left or now_heard != heard:
            quiet_since, heard = trio.current_time(), now_heard
        elif quiet_since is not None and trio.current_time() - quiet_since >= QUIET_SECONDS:
            harmer.note("settled")
            return []
        await trio.sleep(LOOK_SECONDS)
    harmer.note("did not settle")
    return [f"still under way: {what}" for what in left] or ["it never became quiet"]


def _left(home: House) -> list[str]:
    world = home.world
    unsent = [f"{person.name} has {person.unacknowledged} unsent" for person in world.people if person.unacknowledged]
    said = {
        world.conversations[person]: len(person.transcript.said(world.conversations[person])) for person in world.people
    }
    try:
        return unsent + home.look.unfinished(said)
    except RedisAway:
        return ["Redis is away"]


def _conversations(home: House) -> list[tuple[list[str], list[str]]]:
    """What was said, in the relay's order, and what was heard, in the order of hearing."""
    conversations = []
    for person in home.world.people:
        lines = person.transcript.lines(home.world.conversations[person])
        out = sorted((line for line in lines if line.direction == "out"), key=lambda line: line.seq or 2**31)
        conversations.append(([line.text for line in out], [line.text for line in lines if line.direction == "in"]))
    return conversations


def _count(home: House, harmer: Harmer, findings: list[str], seconds: float) -> Outcome:
    verdict = Verdict()
    for person, (said, heard) in zip(home.world.people, _conversations(home), strict=True):
        one = judge([(said, heard)])
        verdict = _sum(verdict, one)
        if one.lost or one.duplicated or one.reordered or one.unexpected:
            findings.append(f"{person.name} {home.world.conversations[person]}: {one}")
            findings += _details(said, heard)
    unreadable = [
        f"{person.name} could not read: {dict(person.unreadable)}" for person in home.world.people if person.unreadable
    ]
    try:
        dead = home.look.dead()
    except RedisAway:
        dead = ["Redis is away"]
    crashes = [
        f"{path.name}: {count} tracebacks"
        for path in home.logs()
        if (count := path.read_text(encoding="utf-8").count("Traceback"))
    ]
    return Outcome(
        verdict=verdict,
        undecryptable=sum(person.unreadable.total() for person in home.world.people),
        dead=len(dead),
        crashes=len(crashes),
        kills=dict(sorted(harmer.done.items())),
        seconds=seconds,
        findings=tuple([*findings, *unreadable, *dead, *crashes][:MOST_FINDINGS]),
    )


def _details(said: Sequence[str], heard: Sequence[str]) -> list[str]:
    expected = expected_answers(said)
    missing = [text[:40] for text in expected if text not in heard]
    again = [text[:40] for text in dict.fromkeys(heard) if heard.count(text) > 1]
    strange = [text[:80] for text in heard if text not in expected]
    return [f"  missing {missing[:5]}", f"  again {again[:5]}", f"  unexpected {strange[:5]}"]


def _sum(one: Verdict, other: Verdict) -> Verdict:
    mine, theirs = msgspec.structs.asdict(one), msgspec.structs.asdict(other)
    return Verdict(**{name: count + theirs[name] for name, count in mine.items()})
