"""Counting a conversation: what was sent, what came back, and what that makes lost, duplicated and reordered.

Pure: it sees texts in the order in which they were sent and received, and knows what the echo agent answers.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

STREAM_COMMAND = "/stream "


class Score(msgspec.Struct, frozen=True):
    """`unexpected`: answers to nothing that was sent (an apology, a cut text)."""

    sent: int = 0
    answered: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    unexpected: int = 0

    @property
    def is_perfect(self) -> bool:
        return self.answered == self.sent and not (self.lost or self.duplicated or self.reordered or self.unexpected)


def echo_of(text: str) -> str:
    """What the echo agent answers to this text."""
    return f"echo: {text.removeprefix(STREAM_COMMAND)}"


def score(conversations: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Score:
    """The sum over conversations of (texts sent, answers received), each in its order."""
    total: Counter[str] = Counter()
    for sent, received in conversations:
        total.update(_score_one([echo_of(text) for text in sent], received))
    return Score(**total)


def _score_one(expected: Sequence[str], received: Sequence[str]) -> dict[str, int]:
    places: dict[str, list[int]] = {}
    for place, text in enumerate(expected):
        places.setdefault(text, []).append(place)
    answered = duplicated = reordered = unexpected = 0
    last = -1
    for text in received:
        if text not in places:
            unexpected += 1
        elif not places[text]:
            duplicated += 1
        else:
            # The same text sent twice is answered twice: the answers are taken in the order of sending.
            place = places[text].pop(0)
            answered += 1
            reordered += place < last
            last = max(last, place)
    return {
        "sent": len(expected),
        "answered": answered,
        "lost": len(expected) - answered,
        "duplicated": duplicated,
        "reordered": reordered,
        "unexpected": unexpected,
    }
