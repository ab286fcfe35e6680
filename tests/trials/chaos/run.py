"""One chaos run: people talk while things break; then everything is healed, waited for and counted."""

from collections import Counter
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path

import msgspec
import trio

from crypto.errors import Reason
from sandbox.people import Person, connected
from tests.trials.chaos.harm import COMES_BACK, Harmer, planned_harm
from tests.trials.chaos.house import House, house
from tests.trials.chaos.keeping import asked_again, forgotten, handling_of_step
from tests.trials.chaos.look import RedisAway
from tests.trials.chaos.remembering import ANSWER_SECONDS, Remembering, say
from tests.trials.chaos.script import Handling, Utterance, expected_answers, handling_of, quick_text, utterances
from tests.trials.chaos.verdict import Verdict, judge
from tests.trials.drills.forks import forks, stored
from tests.trials.open_streams import left_open

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
    rememberers: int = 0

    @property
    def comes_back(self) -> bool:
        """Whether something of it is a return to an older state."""
        return not COMES_BACK.isdisjoint(self.kinds)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it; `findings` say where to look. `crashes` are tracebacks in the logs. `forks`: ratchet positions with two envelopes.
    `streams_left`: streams that the relay still shows. Of the people whom the agent asks, reminds and remembers: `rounds` that were gone through,
    `asked_again` (questions that were shown twice), `forgotten` (words with another count than they must have, also the store's).

    After something came back older, `unanswered`: people whose next message was not answered within 30 s; `put_aside`: what stands in quarantine since
    it was said on what was lost, which is no loss: its sender and the operator see it.
    """

    verdict: Verdict
    undecryptable: int
    dead: int
    crashes: int
    forks: int
    unanswered: int
    streams_left: int
    put_aside: int
    rounds: int
    asked_again: int
    forgotten: int
    kills: dict[str, int]
    seconds: float
    findings: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        verdict = self.verdict
        bad = verdict.lost + verdict.duplicated + verdict.reordered + verdict.unexpected
        worse = self.undecryptable + self.dead + self.crashes + self.forks + self.unanswered + self.streams_left
        worse += self.asked_again + self.forgotten
        return verdict.answered == verdict.sent and not (bad or worse)


async def run(order: Order, directory: Path) -> Outcome:
    """From nothing to the outcome; all processes are gone when it returns."""
    began = trio.current_time()
    counts = {"people": order.people, "supervisors": order.supervisors, "rememberers": order.rememberers}
    async with house(directory, **counts) as home:
        harmer = Harmer(home, order.seed)
        with trio.move_on_after(order.seconds):
            async with connected(*home.world.people, *home.rememberers):
                remembering = Remembering(home)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(remembering.run, began + order.seconds)
                    await _talk_and_harm(home, harmer, order)
                    await harmer.heal()
                    remembering.is_over = True
                findings = await _settle(home, harmer, deadline=began + order.seconds)
                await remembering.count()
                unanswered = list[Person]()
                if order.comes_back:
                    unanswered = await _unanswered(home, order.seed)
                    findings += await _settle(home, harmer, deadline=began + order.seconds)
                    findings += [f"{person.name} is not answered" for person in unanswered]
                streams_left = await left_open(home.world.api, home.world.environment["HASHEE_AGENT_ID"])
                return _count(
                    home,
                    harmer,
                    order,
                    findings,
                    remembering,
                    unanswered=len(unanswered),
                    streams_left=streams_left,
                    seconds=trio.current_time() - began,
                )
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
        await say(person, conversation_id, utterance.text)


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


async def _unanswered(home: House, seed: int) -> list[Person]:
    """Who says something now and is not answered within 30 s."""
    waiting = list(home.world.people)

    async def ask(person: Person) -> None:
        conversation = home.world.conversations[person]
        text = quick_text(f"{seed}.next.{person.name}")
        await person.say(conversation, text)
        first = handling_of(text).answers[0].text
        with trio.move_on_after(ANSWER_SECONDS):
            await person.transcript.until(lambda: first in person.transcript.heard(conversation))
            waiting.remove(person)

    async with trio.open_nursery() as nursery:
        for person in home.world.people:
            nursery.start_soon(ask, person)
    return waiting


def _left(home: House) -> list[str]:
    world = home.world
    everybody = (*world.people, *home.rememberers)
    unsent = [f"{person.name} has {person.unacknowledged} unsent" for person in everybody if person.unacknowledged]
    said = {
        world.conversations[person]: len(person.transcript.said(world.conversations[person])) for person in everybody
    }
    try:
        aside = home.look.quarantined()  # what cannot be read is never taken in
        return unsent + [what for what in home.look.unfinished(said) if not (aside and "never taken in" in what)]
    except RedisAway:
        return ["Redis is away"]


def _conversations(home: House, put_aside: Container[str] = ()) -> list[tuple[list[str], list[str]]]:
    """What was said, in the relay's order, and what was heard, in the order of hearing; without what is put aside and not answered whole."""
    conversations = []
    for person in home.world.people:
        lines = person.transcript.lines(home.world.conversations[person])
        out = sorted((line for line in lines if line.direction == "out"), key=lambda line: line.seq or 2**31)
        heard = [line.text for line in lines if line.direction == "in"]
        aside = [
            line.text for line in out if line.client_message_id in put_aside and not _is_answered(line.text, heard)
        ]
        begun = Counter(answer.text for text in aside for answer in handling_of(text).answers)
        said = [line.text for line in out if line.text not in aside]
        conversations.append((said, _without_one_each(heard, begun)))
    return conversations


def _is_answered(text: str, heard: Sequence[str]) -> bool:
    return all(answer.text in heard for answer in handling_of(text).answers)


def _without_one_each(heard: Sequence[str], begun: Counter[str]) -> list[str]:
    """What was heard but for one of each of these: heard twice, it is still heard once, and was not expected."""
    left = []
    for text in heard:
        if begun[text] > 0:
            begun[text] -= 1
        else:
            left.append(text)
    return left


def _count(
    home: House,
    harmer: Harmer,
    order: Order,
    findings: list[str],
    remembering: Remembering,
    *,
    unanswered: int,
    streams_left: int,
    seconds: float,
) -> Outcome:
    verdict = Verdict()
    messages = stored(home.directory / "relay.db")
    aside = home.look.quarantined() if order.comes_back else frozenset()
    put_aside = {one.client_message_id for one in messages if one.message_id in aside}
    for person, (said, heard) in zip(home.world.people, _conversations(home, put_aside), strict=True):
        one = judge([(said, heard)])
        verdict = _sum(verdict, one)
        if one.lost or one.duplicated or one.reordered or one.unexpected:
            findings.append(f"{person.name} {home.world.conversations[person]}: {one}")
            findings += _details(said, heard)
    again = lost = 0
    for person, said, heard in remembering.conversations():
        one = judge([(said, heard)], handling_of_step)
        verdict = _sum(verdict, one)
        again, lost = again + asked_again(heard), lost + forgotten(said, heard)
        if one.lost or one.duplicated or one.reordered or one.unexpected:
            findings.append(f"{person.name} {home.world.conversations[person]}: {one}")
            findings += _details(said, heard, handling_of_step)
    # The end of a stream that was lost with Redis is shown once more; whoever has read its message drops it.
    dropped = {Reason.DUPLICATE} if order.comes_back else set[Reason]()
    counts = {
        person.name: {why: n for why, n in person.unreadable.items() if why not in dropped}
        for person in (*home.world.people, *home.rememberers)
    }
    unreadable = [f"{name} could not read: {count}" for name, count in counts.items() if count]
    try:
        dead = [what for what in home.look.dead() if not (aside and what.startswith("quarantine"))]
    except RedisAway:
        dead = ["Redis is away"]
    crashes = [
        f"{path.name}: {count} tracebacks"
        for path in home.logs()
        if (count := path.read_text(encoding="utf-8").count("Traceback"))
    ]
    return Outcome(
        verdict=verdict,
        undecryptable=sum(sum(count.values()) for count in counts.values()),
        dead=len(dead),
        crashes=len(crashes),
        forks=len(forks(one.encrypted_payload for one in messages)),
        unanswered=unanswered,
        streams_left=streams_left,
        put_aside=len(put_aside),
        rounds=remembering.rounds,
        asked_again=again,
        forgotten=lost + remembering.forgotten,
        kills=dict(sorted(harmer.done.items())),
        seconds=seconds,
        findings=tuple([*findings, *remembering.findings, *unreadable, *dead, *crashes][:MOST_FINDINGS]),
    )


def _details(said: Sequence[str], heard: Sequence[str], handling: Callable[[str], Handling] = handling_of) -> list[str]:
    expected = expected_answers(said, handling)
    missing = [text[:40] for text in expected if text not in heard]
    again = [text[:40] for text in dict.fromkeys(heard) if heard.count(text) > 1]
    strange = [text[:80] for text in heard if text not in expected]
    return [f"  missing {missing[:5]}", f"  again {again[:5]}", f"  unexpected {strange[:5]}"]


def _sum(one: Verdict, other: Verdict) -> Verdict:
    mine, theirs = msgspec.structs.asdict(one), msgspec.structs.asdict(other)
    return Verdict(**{name: count + theirs[name] for name, count in mine.items()})
