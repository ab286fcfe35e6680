"""What is said, when, and what the agent must answer: all of it from the seed and the text alone.

Pure: the handler in the worker and the judge in the test compute the same answers without talking to each other.
"""

import itertools
import random
from collections.abc import Callable, Sequence

import msgspec

PIECE = " and so on"


class Answer(msgspec.Struct, frozen=True):
    """One reply to a message, after a pause; a streamed one is written in so many pieces."""

    pause_seconds: float
    text: str
    pieces: int = 0

    @property
    def is_streamed(self) -> bool:
        return self.pieces > 0


class Handling(msgspec.Struct, frozen=True):
    """What the handler does with one message: its answers, then a last pause. `fails_once`: its first run ends in an error."""

    answers: tuple[Answer, ...]
    last_pause_seconds: float
    fails_once: bool


class Utterance(msgspec.Struct, frozen=True):
    """One message of a person."""

    at_seconds: float
    person: int
    text: str


def handling_of(text: str) -> Handling:
    """Seeded by the text: 0 to 3 answers, a fifth of them streamed, some slow, a few longer than a lease."""
    chance = random.Random(text)
    answers = tuple(_answer(chance, text, place) for place in range(chance.choice((0, 1, 1, 1, 2, 2, 3))))
    return Handling(answers, _pause(chance), chance.random() < 0.03)


def quick_text(start: str) -> str:
    """A text that begins so and is answered at once, by its first run."""
    texts = (f"{start}.{number}" for number in itertools.count())
    return next(text for text in texts if _is_quick(handling_of(text)))


def _is_quick(handling: Handling) -> bool:
    pauses = [answer.pause_seconds for answer in handling.answers]
    return bool(pauses) and max(pauses) < 1.0 and not handling.answers[0].is_streamed and not handling.fails_once


def _answer(chance: random.Random, text: str, place: int) -> Answer:
    pieces = chance.randint(2, 8) if chance.random() < 0.2 else 0
    return Answer(_pause(chance), f"{text}#{place}{PIECE * pieces}", pieces)


def _pause(chance: random.Random) -> float:
    draw = chance.random()
    if draw < 0.6:
        return 0.0
    if draw < 0.95:
        return chance.uniform(0.01, 0.3)
    return chance.uniform(0.5, 2.0) if draw < 0.997 else chance.uniform(16.0, 18.0)


def utterances(*, messages: int, people: int, rate: float, seed: int) -> list[Utterance]:
    """In the order of time; now and then a burst, since a steady trickle finds little."""
    chance = random.Random(seed)
    made: list[Utterance] = []
    at = 0.0
    while len(made) < messages:
        burst = chance.choice((1, 1, 1, 1, 5, 12))
        at += burst * chance.expovariate(rate)
        for _ in range(min(burst, messages - len(made))):
            made.append(Utterance(at, chance.randrange(people), f"{seed}.{len(made)}"))
    return made


def expected_answers(said: Sequence[str], handling: Callable[[str], Handling] = handling_of) -> list[str]:
    """Everything that one person must hear, in order, for what was said in this order."""
    return [answer.text for text in said for answer in handling(text).answers]
