"""Reads the calls of tools in an answer, in whatever pieces and shapes endpoints send them. No IO, and no opinion about what is called.

As specified a call has an `index`, comes with its id and name, and then with its arguments in pieces of text. Endpoints leave the index
out, give all calls the same one, repeat the name or the whole call, give each piece an id of its own, or send the arguments as an object.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from workers.llm.texts import Joiner

MOST_CALLS: Final = 32
"""Of one answer: a model that calls more has lost its way. What is beyond is not read."""

MOST_ARGUMENTS_BYTES: Final = 64 * 1024
"""Of all calls of an answer together, which are noted as one entry of the journal. A call that is beyond has no arguments that can be read."""

MOST_ID_CHARACTERS: Final = 128
MOST_BESIDE_BYTES: Final = 16 * 1024
_LEAKED: Final = "<|"
"""Begins a mark of the model's own format, which some servers leave in a call's name behind it (gpt-oss: `look<|channel|>commentary`)."""


class Call(msgspec.Struct, frozen=True):
    """A call of a tool as the model wrote it. `arguments`: JSON, if it is any. `beside`: what the endpoint put beside it and expects again, such
    as Gemini's `extra_content`; JSON.
    """

    id: str
    name: str
    arguments: str
    beside: str = ""

    def __repr__(self) -> str:
        return f"Call(name={self.name!r}, …)"


@dataclass(eq=False)
class _Open:
    index: object = None
    id: str = ""
    name: str = ""
    arguments: str = ""
    beside: str = ""
    is_cut: bool = False
    joiner: Joiner = field(default_factory=Joiner)

    def closed(self, number: int) -> Call:
        """Returns the call. An id of ours has nine letters and digits, as Mistral's endpoints demand."""
        arguments = "" if self.is_cut else _once(self.arguments + self.joiner.end())
        return Call(self.id or f"call{number:05d}", self.name, arguments if arguments.strip() else "{}", self.beside)


@dataclass(frozen=True)
class _Piece:
    """A piece of a call."""

    index: object
    id: str
    name: str
    arguments: object

    def begins_another_than(self, one: _Open) -> bool:
        """Returns whether it is no piece of this call, though it has its index or its id: only what has a name begins one."""
        if not self.name:
            return False
        if self.id and one.id and self.id != one.id:
            return True
        if self.name != one.name and one.arguments:
            return True
        before, now = _whole(one.arguments), _whole(self.arguments)
        return before is not None and now is not None and before != now


class CallReader:
    """Takes the `tool_calls` of deltas and messages as they come."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._size = 0

    @property
    def has_any(self) -> bool:
        """Whether a call has begun."""
        return bool(self._open)

    def take(self, calls: object) -> None:
        """Takes the calls, or pieces of them, of one delta or message."""
        for one in calls if isinstance(calls, list) else [calls]:
            if isinstance(one, dict):
                self._take_one(one)

    def end(self) -> tuple[Call, ...]:
        """Returns the calls, each with another id."""
        seen = set[str]()
        for one in self._open:
            if one.id in seen:
                one.id = ""
            seen.add(one.id)
        return tuple(one.closed(number) for number, one in enumerate(self._open, start=1) if one.name)

    def _take_one(self, value: dict[str, Any]) -> None:
        function = value.get("function")
        function = function if isinstance(function, dict) else {}
        piece = _Piece(
            value.get("index"),
            _text(value.get("id"))[:MOST_ID_CHARACTERS],
            _text(function.get("name")).partition(_LEAKED)[0],
            function.get("arguments"),
        )
        one = self._meant(piece)
        if one is None:
            return
        one.id = one.id or piece.id
        if piece.name != one.name:
            one.name = (one.name + piece.name)[:MOST_ID_CHARACTERS]
        self._add(one, piece.arguments)
        beside = {key: found for key, found in value.items() if key not in ("index", "id", "type", "function")}
        packed = json.dumps(beside) if beside else ""
        if packed and len(packed) <= MOST_BESIDE_BYTES:
            one.beside = packed

    def _meant(self, piece: "_Piece") -> _Open | None:
        """Returns the call that a piece belongs to: one that has begun, or a new one; None for one too many."""
        known = self._known(piece)
        if known is not None and not piece.begins_another_than(known):
            return known
        if len(self._open) == MOST_CALLS:
            return None
        self._open.append(_Open(piece.index))
        return self._open[-1]

    def _known(self, piece: "_Piece") -> _Open | None:
        """Returns the call that a piece names: by its index and its id, its index, its id; without any name, the latest."""
        of_index = [one for one in reversed(self._open) if one.index == piece.index]
        of_id = [one for one in self._open if piece.id and one.id == piece.id]
        if piece.index is not None:
            return next((one for one in of_index if one in of_id), next(iter(of_index), None))
        if of_id:
            return of_id[-1]
        return None if piece.name or not self._open else self._open[-1]

    def _add(self, one: _Open, arguments: object) -> None:
        if isinstance(arguments, dict | list):
            arguments = "" if one.arguments else json.dumps(arguments)
        if not isinstance(arguments, str):
            return
        self._size += len(arguments.encode(errors="replace"))
        if self._size > MOST_ARGUMENTS_BYTES:
            one.is_cut, one.arguments = True, ""
        else:
            one.arguments += one.joiner.feed(arguments)


def _text(value: object) -> str:
    """Returns a text that can be kept: half a character is none."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _whole(arguments: object) -> object:
    """Returns arguments that are a whole JSON object; None for all else."""
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _once(arguments: str) -> str:
    """Returns arguments that came whole again behind their pieces once."""
    half, odd = divmod(len(arguments), 2)
    if not odd and half > 1 and arguments[:half] == arguments[half:]:
        return arguments[:half]
    return arguments
