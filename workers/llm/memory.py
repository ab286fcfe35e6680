"""Makes the messages for a model of what was said: the newest that fit into a number of tokens, in whole turns that alternate.

Many chat templates refuse a conversation that does not begin with a person, or in which somebody speaks twice.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from host.unreadable import UNREADABLE
from workers.kept.history import ToolUse, Turn
from workers.llm.calls import Call
from workers.llm.tokens import TokenCount
from workers.tools.tool import FUNCTION

MOST_NAME_CHARACTERS = 64
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")
"""Endpoints refuse a conversation in which a tool has another name, also if a model has made it up."""

CUT_SHORT = " […]"
"""Stands behind the text of a turn that was kept in part."""


class Spoken(NamedTuple):
    """One message for a model. `tools`: those that it has called in it, with what came of them."""

    role: Literal["system", "user", "assistant"]
    text: str
    tools: tuple[ToolUse, ...] = ()

    @property
    def whole_text(self) -> str:
        """Returns all that the model reads of it."""
        return self.text + "".join(f"{use.name}{use.arguments}{use.result}" for use in self.tools)

    def as_messages(self, number: int) -> list[dict[str, object]]:
        """Returns it as endpoints take it; with the tools, whose ids are made of `number`, what they have returned."""
        if not self.tools:
            return [{"role": self.role, "content": self.text}]
        calls = [Call(f"c{number:04d}{at:04d}", use.name, use.arguments) for at, use in enumerate(self.tools)]
        return tool_messages(self.text, calls, [use.result for use in self.tools])


def tool_messages(text: str, calls: Sequence[Call], results: Sequence[str]) -> list[dict[str, object]]:
    """Returns what the model has written that called tools, and what they have returned, as endpoints take it: no call without its result."""
    made = [
        {
            **(json.loads(call.beside) if call.beside else {}),
            "id": call.id,
            "type": FUNCTION,
            FUNCTION: {
                "name": _NO_NAME.sub("_", call.name)[:MOST_NAME_CHARACTERS],
                "arguments": _object(call.arguments),
            },
        }
        for call in calls
    ]
    told: list[dict[str, object]] = [
        {"role": "tool", "tool_call_id": call.id, "content": result}
        for call, result in zip(calls, results, strict=True)
    ]
    return [{"role": "assistant", "content": text, "tool_calls": made}, *told]


def tools_in(chat: Iterable[Mapping[str, object]]) -> list[str]:
    """Returns the tools whose output stands in what a model is told."""
    made = [call for turn in chat if isinstance(calls := turn.get("tool_calls"), list) for call in calls]
    return [str(call[FUNCTION]["name"]) for call in made if isinstance(call, dict) and FUNCTION in call]


def _object(arguments: str) -> str:
    """Returns arguments that are a JSON object: endpoints fail that are told others."""
    try:
        msgspec.json.decode(arguments, type=dict[str, object])
    except UNREADABLE:
        return "{}"
    return arguments


def said_in(turns: Iterable[Turn], *, with_names: bool) -> list[Spoken]:
    """Returns turns as messages. `with_names`: what people say begins with their names, since there are several."""
    return [
        Spoken(turn.role, _text_of(turn, with_names), tuple(turn.tools))
        for turn in turns
        if turn.text.strip() or turn.tools
    ]


def without_tools(turns: Iterable[Spoken]) -> list[Spoken]:
    """Returns the turns without calls of tools, for a model that is offered none: many endpoints refuse them then."""
    return [turn for turn in turns if not turn.tools]


def newest_within(turns: Sequence[Spoken], most_tokens: int, tokens: TokenCount) -> list[Spoken]:
    """Returns the newest turns that have so many tokens at most, from one of a person on."""
    left, first = most_tokens, len(turns)
    while first > 0 and (left := left - tokens.of(turns[first - 1].whole_text)) >= 0:
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
        if found and found[-1].role == turn.role and not (found[-1].tools or turn.tools):
            found[-1] = Spoken(turn.role, f"{found[-1].text}\n\n{turn.text}")
        else:
            found.append(turn)
    return found


def _text_of(turn: Turn, with_names: bool) -> str:
    text = turn.text + CUT_SHORT if turn.is_cut else turn.text
    return f"{turn.sender_name}: {text}" if with_names and turn.role == "user" and turn.sender_name else text
