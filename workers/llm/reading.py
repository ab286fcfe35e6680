"""Reads a model's answer, field by field, as endpoints send it: streamed or whole, with parts missing, null, or of another kind. No IO.

An answer is whole at `[DONE]`, or at the end of a body that says where it ends. A finish reason says why, and alone ends nothing. Numbers of
tokens are taken where there are some, and never decide. An error anywhere is a failure. No word of the endpoint leaves this file but the
answer, and an error's code.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from workers.errors import LLMCut, LLMError
from workers.llm.calls import Call, CallReader
from workers.llm.events import DONE, EventCutter, EventTooLarge, ServerEvent
from workers.llm.failures import failure_in, failure_told
from workers.llm.finish import FILTER, LENGTH, STOPPED, reason_in
from workers.llm.texts import Joiner, WithoutThoughts, without_thoughts_before

MOST_ANSWER_CHARACTERS: Final = 200_000
"""What is longer ends here, and says so: it is more than a model writes that has not lost its way, and is to be kept in a journal of 1 MiB."""

BROKE_OFF = "the model's answer broke off before its end"
_MOST_TOKENS = 10**12


class Usage(msgspec.Struct, frozen=True):
    """How many tokens the endpoint counted; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(msgspec.Struct, frozen=True):
    """A whole answer. `finish`: why it ended, in the endpoint's words, such as `stop`, `length` or `content_filter`; '' if it did not say.

    `text` is '' where the model wrote none. `calls`: the tools that it calls.
    """

    text: str
    finish: str = ""
    usage: Usage = Usage()
    calls: tuple[Call, ...] = ()

    def __repr__(self) -> str:
        return f"Completion(finish={self.finish!r}, usage={self.usage!r}, …)"


class AnswerReader:
    """Takes the bytes of a response's body. Once `failure` is set there is no answer. `takes_calls`: tools were offered."""

    def __init__(self, *, takes_calls: bool = False) -> None:
        self._takes_calls = takes_calls
        self._calls = CallReader()
        self._has_calls_in_deltas = False
        self.is_done = False
        self.finish = ""
        self.failure: LLMError | None = None
        self.usage = Usage()
        self.goes_on_after_finish = False
        """Whether text came after a finish reason: then that says nothing about the end."""
        self._cutter = EventCutter()
        self._joiner = Joiner()
        self._thoughts = WithoutThoughts()
        self._pieces: list[str] = []
        self._length = 0
        self._refusal: list[str] = []
        self._comes_in_deltas = False

    def feed(self, data: bytes) -> str:
        """Returns the text that `data` adds to what people see of the answer."""
        try:
            return self._read(self._cutter.feed(data))
        except EventTooLarge:
            self.fail(LLMCut("the model's endpoint sent an event that does not end"))
            return ""

    def end(self, *, is_whole: bool) -> Completion:
        """Returns the answer, after the body's end. `is_whole`: the body ended where it said that it would. Raises LLMError."""
        if not self.is_done:
            try:
                self._read(self._cutter.end())
            except EventTooLarge:
                self.fail(LLMCut(BROKE_OFF))
        if self.failure is not None:
            raise self.failure
        if not (self.is_done or is_whole):
            raise LLMCut(BROKE_OFF)
        self._show(self._thoughts.feed(self._joiner.end()) + self._thoughts.end())
        text = without_thoughts_before("".join(self._pieces))
        if not text.strip():
            text = "".join(map(_without_halves, self._refusal)).strip()
        calls = self._calls.end() if self.finish not in (LENGTH, FILTER) else ()
        return Completion(text, self.finish, self.usage, calls)

    def _read(self, events: list[ServerEvent]) -> str:
        before = len(self._pieces)
        for event in events:
            self._take(event)
        return "".join(self._pieces[before:])

    def _take(self, event: ServerEvent) -> None:
        if self.is_done or self.failure is not None or _says_nothing(event.data):
            return
        if event.is_error:
            value = _value(event.data)
            self.fail(failure_in(value if isinstance(value, dict) else event.data.decode(errors="replace")))
            return
        for value in _values_in(event.data):
            if value is UNREADABLE:
                self.fail(LLMCut("the model's endpoint sent something that is no JSON"))
            elif value is END:
                self.is_done = True
            else:
                self._take_value(value)

    def _take_value(self, value: object) -> None:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and self.failure is None:
                self._take_chunk(one)

    def _take_chunk(self, value: Mapping[str, object]) -> None:
        if failure := failure_told(value):
            self.fail(failure)
            return
        self._count(value.get("usage"))
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else [choices]:
            if isinstance(choice, dict) and choice.get("index") in (None, 0):
                self._take_choice(choice)

    def _take_choice(self, choice: Mapping[str, object]) -> None:
        if failure := failure_told(choice):
            self.fail(failure)
            return
        delta, message = choice.get("delta"), choice.get("message")
        for one in (delta, message):
            if isinstance(one, dict):
                self._take_calls(one, is_delta=one is delta)
        if isinstance(delta, dict):
            self._comes_in_deltas = self._comes_in_deltas or bool(_text_of(delta.get("content")))
            self._take_message(delta)
        elif isinstance(message, dict) and not self._comes_in_deltas:  # some repeat the whole answer behind its deltas
            self._take_message(message)
        elif isinstance(choice.get("text"), str) and not self._comes_in_deltas:
            self._take_message({"content": choice["text"]})
        self.finish = _finish_after(self.finish, reason_in(choice))

    def _take_calls(self, message: Mapping[str, object], *, is_delta: bool) -> None:
        found = message.get("tool_calls")
        if not found and isinstance(old := message.get("function_call"), dict):
            found = [{"index": 0, "function": old}]
        if not found or not self._takes_calls or (self._has_calls_in_deltas and not is_delta):
            return
        self._has_calls_in_deltas = is_delta
        self.goes_on_after_finish = self.goes_on_after_finish or bool(self.finish)
        self._calls.take(found)

    def _take_message(self, message: Mapping[str, object]) -> None:
        text = _text_of(message.get("content"))
        if text:
            self.goes_on_after_finish = self.goes_on_after_finish or bool(self.finish)
            self._show(self._thoughts.feed(self._joiner.feed(text)))
        elif isinstance(refusal := message.get("refusal"), str):
            self._refusal.append(refusal)

    def _show(self, text: str) -> None:
        if len(text) > MOST_ANSWER_CHARACTERS - self._length:
            text = text[: MOST_ANSWER_CHARACTERS - self._length]
            self.is_done, self.finish = True, LENGTH
        self._length += len(text)
        if text:
            self._pieces.append(text)

    def _count(self, usage: object) -> None:
        if isinstance(usage, dict):
            self.usage = Usage(
                _tokens(usage.get("prompt_tokens"), self.usage.prompt_tokens),
                _tokens(usage.get("completion_tokens"), self.usage.completion_tokens),
            )

    def fail(self, failure: LLMError) -> None:
        """Notes that there is no answer; the first failure counts."""
        self.failure = self.failure or failure


def not_empty(completion: Completion) -> Completion:
    """Returns an answer that has words or calls tools, or says why it has none. Raises LLMCut."""
    if not completion.text.strip() and not completion.calls and completion.finish not in (STOPPED, FILTER):
        raise LLMCut("the model's answer is empty")
    return completion


UNREADABLE = object()
END = object()
"""`[DONE]`."""


def _values_in(data: bytes) -> Iterator[object]:
    """Yields what the data of an event holds: one value, or one in each line where a blank line is missing between events."""
    value = _value(data)
    lines = [line for line in data.split(b"\n") if not _says_nothing(line)]
    if value is not UNREADABLE or len(lines) == 1:
        yield value
        return
    yield from map(_value, lines)


def _value(data: bytes) -> object:
    if data.strip() == DONE:
        return END
    try:
        # a character may be split over events: neither its bytes nor its halves need be whole here
        return json.loads(data.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        return UNREADABLE


def _says_nothing(data: bytes) -> bool:
    """Returns whether data is empty, or holds nothing but comments of another endpoint that were sent on as data."""
    return all(not line.strip() or line.lstrip().startswith(b":") for line in data.split(b"\n"))


def _finish_after(before: str, said: str) -> str:
    """Returns why an answer ended, where a later chunk says it again: that it was cut is not taken back by one that ends the stream."""
    return before if not said or before in (LENGTH, FILTER) else said


def _text_of(content: object) -> str:
    """Returns the text of a content: itself, or that of its parts."""
    return "".join(map(_text_of_part, content if isinstance(content, list) else [content]))


def _text_of_part(part: object) -> str:
    """Returns a part's text; of what is for nobody to read (thoughts, images) none."""
    if isinstance(part, dict):
        text = part.get("text") if part.get("type") in (None, "text", "output_text") else ""
        part = text.get("value") if isinstance(text, dict) else text
    return part if isinstance(part, str) else ""


def _without_halves(text: str) -> str:
    joiner = Joiner()
    return joiner.feed(text) + joiner.end()


def _tokens(count: Any, before: int | None) -> int | None:
    """Returns a number of tokens, the one before where this is none."""
    try:
        number = float(count)
    except (TypeError, ValueError, OverflowError):
        return before
    return math.ceil(number) if 0 <= number < _MOST_TOKENS else before
