"""One soak: people talk at a steady rate, the scales weigh every few seconds, and in the end everything must be answered."""

import random
import statistics
from functools import partial
from pathlib import Path

import msgspec
import trio

from sandbox.people import Person
from tests.trials.soak.census import Census, Scales
from tests.world import World, world

MOST_UNANSWERED = 30
"""Of one person: who gets no answers waits, so that a slow machine makes the rate smaller and nothing is refused."""

LEDGER_ENTRIES = 200_000
"""As many as it keeps."""

WORKERS = 2
WINDOW_SHARE = 0.125
"""Of the time until the base: so long before and after it, and twice as long before the end, is looked at."""
ANSWER_SECONDS = 60.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for. `base_seconds`: from when on nothing may grow. `ledger_entries`: what the ledger begins with."""

    seconds: float
    rate: float
    people: int
    sample_seconds: float = 5.0
    base_seconds: float = 120.0
    ledger_entries: int = LEDGER_ENTRIES
    seed: int = 1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`wrong`: people who did not hear every answer once and in order. `growth`: how much more at the end than at the base, as a share of it. `went_back`: how often Redis was thought to have."""

    sent: int
    answered: int
    wrong: int
    unreadable: int
    seconds: float
    rate_per_second: float
    base: Census
    end: Census
    judged_base: dict[str, int]
    judged_end: dict[str, int]
    growth: dict[str, float]
    crashes: int
    went_back: int


async def run(order: Order, directory: Path) -> Outcome:
    """From nothing to the outcome; all processes are gone when it returns."""
    names = [f"P{number}" for number in range(order.people)]
    settings = {"HASHEE_WORKERS": str(WORKERS), "HASHEE_LOG_FORMAT": "json"}
    async with world(directory, people=names, **settings) as made:
        scales, samples = Scales(made), list[Census]()
        said = await _greet(made)
        await trio.to_thread.run_sync(scales.fill_ledger, order.ledger_entries)
        began = trio.current_time()
        async with trio.open_nursery() as weighing:
            weighing.start_soon(_weigh, scales, samples, began, order.sample_seconds)
            async with trio.open_nursery() as talking:
                for number, person in enumerate(made.people):
                    talking.start_soon(_talk, made, order, number, person, said)
            seconds = trio.current_time() - began
            weighing.cancel_scope.cancel()
        samples.append(await trio.to_thread.run_sync(scales.weigh, seconds))
        await _hear_all(made, said)
        return _outcome(order, made, samples, said, seconds)


async def _greet(made: World) -> dict[Person, int]:
    """Everybody says one thing, so that the ledger has what there is of each kind. Returns how much each has said."""
    said = dict.fromkeys(made.people, 1)
    for person in said:
        await person.say(made.conversations[person], _text(0))
    await _hear_all(made, said)
    return said


async def _hear_all(made: World, said: dict[Person, int]) -> None:
    """Or give up: what is missing is found by whoever counts."""
    for person, count in said.items():
        with trio.move_on_after(ANSWER_SECONDS):
            await person.transcript.until(partial(_has_heard, person, made.conversations[person], count))


async def _talk(made: World, order: Order, number: int, person: Person, said: dict[Person, int]) -> None:
    """Every so often one message, unless too many are unanswered."""
    interval = order.people / order.rate
    conversation = made.conversations[person]
    chance = random.Random(f"{order.seed} {number}")
    end = trio.current_time() + order.seconds
    at = trio.current_time() + chance.uniform(0, interval)
    while at < end:
        await trio.sleep_until(at)
        few = partial(_has_few_unanswered, person, conversation, said)
        await person.transcript.until(few)
        if trio.current_time() >= end:
            return
        await person.say(conversation, _text(said[person]))
        said[person] += 1
        at = max(at + interval, trio.current_time() - interval)  # what a slow machine has missed is not made up for


def _has_few_unanswered(person: Person, conversation: str, said: dict[Person, int]) -> bool:
    return said[person] - len(person.transcript.heard(conversation)) < MOST_UNANSWERED


async def _weigh(scales: Scales, samples: list[Census], began: float, every_seconds: float) -> None:
    while True:
        await trio.sleep(every_seconds)
        samples.append(await trio.to_thread.run_sync(scales.weigh, trio.current_time() - began))


def _outcome(order: Order, made: World, samples: list[Census], said: dict[Person, int], seconds: float) -> Outcome:
    window = order.base_seconds * WINDOW_SHARE
    base = [one for one in samples if abs(one.at_seconds - order.base_seconds) <= window] or samples[:1]
    end = [one for one in samples if one.at_seconds >= seconds - 2 * window]
    judged_base, judged_end = _middle(base), _middle(end)
    heard = {person: person.transcript.heard(made.conversations[person]) for person in said}
    growth = {what: round(judged_end[what] / held - 1, 4) for what, held in judged_base.items()}
    return Outcome(
        sent=sum(said.values()),
        answered=sum(map(len, heard.values())),
        wrong=sum(texts != _echoes(said[person]) for person, texts in heard.items()),
        unreadable=sum(person.unreadable.total() for person in said),
        seconds=round(seconds, 1),
        rate_per_second=round(sum(said.values()) / seconds, 1),
        base=base[len(base) // 2],
        end=end[-1],
        judged_base=judged_base,
        judged_end=judged_end,
        growth=growth,
        crashes=sum(path.read_text(encoding="utf-8").count("Traceback") for path in made.directory.glob("*.log")),
        went_back=made.log().count("went back in time"),
    )


def _middle(samples: list[Census]) -> dict[str, int]:
    """The median of each: what Redis holds of buffers changes from moment to moment."""
    judged = [one.judged() for one in samples]
    return {what: int(statistics.median(one[what] for one in judged)) for what in judged[0]}


def _text(number: int) -> str:
    return f"{number}: what one person says to an agent, of an ordinary length"


def _has_heard(person: Person, conversation: str, count: int) -> bool:
    return len(person.transcript.heard(conversation)) >= count


def _echoes(count: int) -> list[str]:
    return [f"echo: {_text(number)}" for number in range(count)]
