"""Makes the messages for a model of what was said: the newest that fit into a number of tokens, in whole turns that alternate.

Many chat templates refuse a conversation that does not begin with a person, or in which somebody speaks twice.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from workers.kept.history import Turn
from workers.llm.tokens import TokenCount

CUT_SHORT = " […]"
"""Stands behind the text of a turn that was kept in part."""


class Spoken(NamedTuple):
    """One message for a model."""

    role: Literal["system", "user", "assistant"]
    text: str

    def as_message(self) -> dict[str, object]:
        """Returns it as endpoints take it."""
        return {"role": self.role, "content": self.text}


def said_in(turns: Iterable[Turn], *, with_names: bool) -> list[Spoken]:
    """Returns turns as messages. `with_names`: what people say begins with their names, since there are several."""
    return [Spoken(turn.role, _text_of(turn, with_names)) for turn in turns if turn.text.strip()]


def newest_within(turns: Sequence[Spoken], most_tokens: int, tokens: TokenCount) -> list[Spoken]:
    """Returns the newest turns that have so many tokens at most, from one of a person on."""
    left, first = most_tokens, len(turns)
    while first > 0 and (left := left - tokens.of(turns[first - 1].text)) >= 0:
        first -= 1
    return from_a_person_on(turns[first:])


def newer_half(turns: Sequence[Spoken]) -> list[Spoken]:
    """Returns what is left without the older half."""
    return from_a_person_on(turns[(len(turns) + 1) // 2 :])


def from_a_person_on(turns: Sequence[Spoken]) -> list[Spoken]:
    """Returns the turns without answers at their beginning, whose question is not among them."""
    first = next((at for at, turn in enumerate(turns) if turn.role == "user"), len(turns))
    return list(turns[first:])


def alternating(turns: Iterable[Spoken]) -> list[Spoken]:
    """Returns the turns with those of one side that follow each other in one."""
    found = list[Spoken]()
    for turn in turns:
        if found and found[-1].role == turn.role:
            found[-1] = Spoken(turn.role, f"{found[-1].text}\n\n{turn.text}")
        else:
            found.append(turn)
    return found


def _text_of(turn: Turn, with_names: bool) -> str:
    text = turn.text + CUT_SHORT if turn.is_cut else turn.text
    return f"{turn.sender_name}: {text}" if with_names and turn.role == "user" and turn.sender_name else text
