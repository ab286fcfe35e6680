"""A language model that says what the test wrote down: one answer for each turn of a thread, whatever is killed in between."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from workers.llm.calls import Call
from workers.llm.endpoint import NOTHING_OFFERED, Chat, EndpointAddress, ModelEndpoint, Offer, Write
from workers.llm.reading import Completion

RUN: Final[ContextVar[str]] = ContextVar("run")
"""The run of a job that asks, by its entry."""

TURN: Final = re.compile(r"llm#\d+")
PIECES: Final = re.compile(r"\S*\s*")
WORD_SECONDS: Final = 0.1
"""Between two words, as a model takes it; nobody waits for it under the test's clock."""

MOST_QUOTED_CHARACTERS: Final = 200


class ScriptEnded(AssertionError):
    """The model is asked once more than the test has answers, or calls a tool that it does not have."""


@dataclass(frozen=True)
class ToolCall:
    """Made by `call`: a tool that the model calls, instead of saying something."""

    name: str
    arguments: dict[str, object]


def call(name: str, **arguments: object) -> ToolCall:
    """Returns an answer that calls a tool; several at once are a list of such."""
    return ToolCall(name, arguments)


Scripted: TypeAlias = str | Exception | ToolCall | Sequence[ToolCall]


@dataclass(frozen=True)
class Asked:
    """What the model was asked: the messages, as endpoints take them. `tools`: the names of those that it may call."""

    model: str
    messages: tuple[dict[str, object], ...]
    tools: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """The content of each message."""
        return [str(one.get("content", "")) for one in self.messages]


class ScriptedLLM(ModelEndpoint):
    """Answers each turn with the next of `answers`: a text, which is streamed word by word; tools that are called, `call("weather", city="Rome")` or a list of
    such; or an exception such as LLMBusy, which is raised.

    A turn that was asked and not noted, since its worker has died, gets the same answer again: an answer is used up when its turn is noted.
    Asked once more than there are answers, it fails the test.
    """

    def __init__(self, *answers: Scripted) -> None:
        super().__init__(EndpointAddress())
        self._answers = answers
        self._left: list[Scripted] = list(answers)
        self._given: dict[str, list[Scripted]] = defaultdict(list)
        self.calls: list[Asked] = []
        """Everything that it was asked, also what was asked anew."""

        self.ended: ScriptEnded | None = None

    @property
    def left(self) -> int:
        """How many answers nobody has asked for."""
        return len(self._left)

    def anew(self) -> "ScriptedLLM":
        """Returns another one with the same script."""
        return ScriptedLLM(*self._answers)

    async def ask(self, model: str, chat: Chat, write: Write, offer: Offer = NOTHING_OFFERED) -> Completion:
        """Awaits `write` with the next answer, word by word; returns it."""
        await trio.lowlevel.checkpoint()
        tools = tuple(_name_of(one) for one in offer.tools)
        self.calls.append(Asked(model, tuple(dict(one) for one in chat), tools))
        if not self._left:
            raise self._end(
                f"the model is asked a turn more than the script has ({len(self._answers)}), with: "
                f"{self.calls[-1].texts[-1][:MOST_QUOTED_CHARACTERS]!r}"
            )
        answer = self._left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self._given[RUN.get("")].append(answer)
        if not isinstance(answer, str):
            return self._calling([answer] if isinstance(answer, ToolCall) else list(answer), tools)
        for piece in PIECES.findall(answer):
            if piece:
                await trio.sleep(WORD_SECONDS)
                await write(piece)
        return Completion(answer, "stop")

    def _calling(self, calls: Sequence[ToolCall], tools: Sequence[str]) -> Completion:
        for one in calls:
            if one.name not in tools:
                raise self._end(
                    f"the script calls the tool {one.name!r}, and the model may call: {', '.join(tools) or 'none'}"
                )
        number = len(self.calls)
        made = [
            Call(f"call{number}x{at}", one.name, json.dumps(one.arguments)) for at, one in enumerate(calls, start=1)
        ]
        return Completion("", "tool_calls", calls=tuple(made))

    def _end(self, why: str) -> ScriptEnded:
        self.ended = ScriptEnded(why)
        return self.ended

    async def aclose(self) -> None:
        """Nothing is open."""
        await trio.lowlevel.checkpoint()

    def noted(self, run: str, name: str) -> None:
        """Notes that a run has noted something under this name."""
        if TURN.fullmatch(name) and self._given[run]:
            self._given[run].pop(0)

    def run_ended(self, run: str) -> None:
        """Takes back what a run was given and has not noted."""
        self._left[:0] = self._given.pop(run, [])


def _name_of(tool: Mapping[str, object]) -> str:
    function = tool.get("function")
    return str(function.get("name", "")) if isinstance(function, dict) else ""
