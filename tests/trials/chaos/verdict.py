"""Counts what became of every message. Only whole conversations are compared: what was said against what was heard.

Pure: it is given texts in the order of the relay's numbers, and in the order in which they were read.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from tests.trials.chaos.script import Handling, expected_answers, handling_of


class Verdict(msgspec.Struct, frozen=True):
    """`sent` and `answered` count messages, the others answers; `unexpected` is what nobody should ever have said."""

    sent: int = 0
    answered: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    unexpected: int = 0


def judge(
    conversations: Iterable[tuple[Sequence[str], Sequence[str]]], handling: Callable[[str], Handling] = handling_of
) -> Verdict:
    """The sum over conversations of (texts said, answers heard). `handling`: what the agent does with a text."""
    total: Counter[str] = Counter()
    for said, heard in conversations:
        total.update(_judge_one(said, heard, handling))
    return Verdict(**total)


def _judge_one(said: Sequence[str], heard: Sequence[str], handling: Callable[[str], Handling]) -> dict[str, int]:
    places = {text: place for place, text in enumerate(expected_answers(said, handling))}
    times = Counter(heard)
    known = [places[text] for text in dict.fromkeys(heard) if text in places]
    return {
        "sent": len(said),
        "answered": sum(all(answer.text in times for answer in handling(text).answers) for text in said),
        "lost": len(places) - len(known),
        "duplicated": sum(times[text] - 1 for text in places if text in times),
        "reordered": sum(place < before for before, place in itertools.pairwise(known)),
        "unexpected": sum(count for text, count in times.items() if text not in places),
    }
