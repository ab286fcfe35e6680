"""What people say who are asked, reminded and remembered, and what they must hear: a round of it after the other.

A round is a form in two questions, a reminder that its end sets, and a word that is counted in the conversation's state, in what was said
before, and in the agent's store. Pure: the handler in the worker, the person and the judge make the same words without talking to each other.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.trials.chaos.script import Answer, Handling

FORM, NAME, DAY, KEEP, TOTAL = "/form", "name", "day", "keep", "/total"
NUMBER: Final = re.compile(r"(/form|name|day|keep) (\d+)")
QUESTIONS: Final = re.compile(r"(name|day) of \d+\?")
NOTHING_BEFORE: Final = -1


class Step(NamedTuple):
    """What a person says, and all that they hear before they say the next."""

    says: str
    hears: tuple[str, ...]


def question(what: str, number: int) -> str:
    return f"{what} of {number}?"


def booked(number: int, name: str, day: str, bookings: int) -> str:
    return f"booked {number}: {name}, {day}; {bookings} of them"


def reminded(number: int) -> str:
    return f"remember {number}"


def kept(number: int, count: int, before: int) -> str:
    """`before`: the number of the word before this one, as the history has it."""
    return f"kept {number}: {count} of them, after {before}"


def total(count: int) -> str:
    return f"{count} in all"


def steps(number: int) -> tuple[Step, ...]:
    """One round, the first of which is number 0."""
    name, day = f"{NAME} {number}", f"{DAY} {number}"
    return (
        Step(f"{FORM} {number}", (question(NAME, number),)),
        Step(name, (question(DAY, number),)),
        Step(day, (booked(number, name, day, number + 1), reminded(number))),
        Step(f"{KEEP} {number}", (kept(number, number + 1, number - 1 if number else NOTHING_BEFORE),)),
    )


def handling_of_step(text: str) -> Handling:
    """What must be heard for what was said, as the judge wants it."""
    found = NUMBER.fullmatch(text)
    said = [] if found is None else [step for step in steps(int(found[2])) if step.says == text]
    return Handling(tuple(Answer(0.0, heard) for step in said for heard in step.hears), 0.0, fails_once=False)


def asked_again(heard: Sequence[str]) -> int:
    """Questions that were shown more than once."""
    return sum(count - 1 for text, count in Counter(heard).items() if QUESTIONS.fullmatch(text))


def forgotten(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words that were heard with another number than they must have: of the state, or of what was said before."""
    expected = {answer.text for text in said for answer in handling_of_step(text).answers}
    return sum(text not in expected and text.startswith(("booked ", "kept ")) for text in heard)
