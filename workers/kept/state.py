"""One value of the owner's own struct for each conversation: `Agent(state=Lunch)`.

A handler that asks for it gets the struct as the last finished run left it, and changes it in place. What has changed is written
together with the job's end; a run that fails or is superseded writes nothing. Two versions of the struct may run beside each other: fields
that this one does not know are kept aside and written back.
"""

import re
from collections.abc import Iterable, Mapping
from typing import cast, get_args, get_origin

import msgspec

from host.unreadable import UNREADABLE, UNWRITABLE
from workers.errors import BadHandler, BadState, StateTooLarge

MOST_STATE_BYTES = 64 * 1024
"""Encoded. It is read and sealed anew for a message: 64 KiB cost a tenth of a millisecond; what is larger belongs into a database."""

Tree = object
"""What msgpack holds where no type is named: dicts, lists and plain values."""

# What msgspec says without quoting a value; field names and types stand in backticks.
_WITHOUT_VALUES = re.compile(r"(Expected|Object (missing|contains)) [^']*")
_AT = re.compile(r" - at `[^`]*`$")


class StateShape:
    """An agent's state class. It encodes and decodes, and keeps nothing. Raises BadHandler for a class that cannot be a state."""

    def __init__(self, shape: type) -> None:
        if not (isinstance(shape, type) and issubclass(shape, msgspec.Struct)):
            raise BadHandler(f"Agent(state=…) takes a msgspec.Struct class, not {shape!r}")
        name = shape.__name__
        config = shape.__struct_config__
        if config.frozen:
            raise BadHandler(f"{name} is frozen: a handler changes its state in place, so take `frozen=True` off")
        if config.array_like:
            raise BadHandler(f"{name} is array_like: without names a field that another version added would be lost")
        needed = [field.name for field in msgspec.structs.fields(shape) if field.required]
        if needed:
            raise BadHandler(
                f"{name} begins without values: give a default to {', '.join(needed)} (a new conversation has none)"
            )
        self.shape = shape
        self._decoder = msgspec.msgpack.Decoder(shape)
        self._encoder = msgspec.msgpack.Encoder()
        try:
            begins = self._encoder.encode(shape())
            self._decoder.decode(begins)
        except (TypeError, ValueError) as error:
            raise BadHandler(f"{name} cannot be stored: {error}") from None
        self._may_be_left_out = _names_left_out(shape)

    @property
    def name(self) -> str:
        return self.shape.__name__

    def begin(self) -> "RunningState":
        """Returns the state of a conversation that has none yet."""
        value = self.shape()
        return RunningState(self, value, self._encoder.encode(value), {})

    def read(self, body: bytes) -> "RunningState":
        """Returns the state that was kept. Raises BadState if it is not of this class."""
        try:
            value = self._decoder.decode(body)
        except UNREADABLE as error:
            raise BadState(self.name, _said_of(error)) from None
        as_read = self._encoder.encode(value)
        aside = {} if as_read == body else self._unknown(_tree(body), _tree(as_read))
        return RunningState(self, value, as_read, aside)

    def encode(self, value: msgspec.Struct) -> bytes:
        """Returns the value encoded. Raises BadState for what msgpack does not have."""
        try:
            return self._encoder.encode(value)
        except UNWRITABLE:
            # without the cause, which may quote the value
            raise BadState(self.name, "it holds something that msgpack does not have") from None

    def with_what_is_aside(self, encoded: bytes, aside: Mapping[str, Tree]) -> bytes:
        """Returns the encoded value with the fields that another version of the class had written."""
        whole = cast("dict[str, Tree]", _tree(encoded))
        _put_back(whole, aside)
        return self._encoder.encode(whole)

    def _unknown(self, stored: Tree, known: Tree) -> dict[str, Tree]:
        """Returns what of the stored mapping this class passes over, as a tree of mappings. Raises BadState where it cannot be put back."""
        aside: dict[str, Tree] = {}
        if isinstance(stored, dict) and isinstance(known, dict):
            for name, value in stored.items():
                if name not in known:
                    aside[name] = value
                elif inner := self._unknown(value, known[name]):
                    aside[name] = _Within(inner)
        elif isinstance(stored, list) and isinstance(known, list) and len(stored) == len(known):
            for one, other in zip(stored, known, strict=True):
                self._refuse_unknown_in_lists(self._unknown(one, other))
        return aside

    def _refuse_unknown_in_lists(self, aside: Mapping[str, Tree]) -> None:
        for name, value in aside.items():
            if isinstance(value, _Within):
                self._refuse_unknown_in_lists(value.fields)
            elif name not in self._may_be_left_out:
                raise BadState(
                    self.name,
                    f"an item of a list has the field `{name}`, which this version does not know and could not keep",
                )


class RunningState:
    """The state of one run: the owner's value, and how it was when the run began."""

    def __init__(self, shape: StateShape, value: msgspec.Struct, as_read: bytes, aside: Mapping[str, Tree]) -> None:
        self.value = value
        self._shape = shape
        self._as_read = as_read
        self._aside = aside

    def __repr__(self) -> str:
        return f"RunningState({self._shape.name}, {len(self._as_read)} bytes)"

    def changed(self) -> bytes | None:
        """Returns what is to be kept, None if nothing has changed. Raises StateTooLarge, BadState."""
        encoded = self._shape.encode(self.value)
        if encoded == self._as_read:
            return None
        body = self._shape.with_what_is_aside(encoded, self._aside) if self._aside else encoded
        if len(body) > MOST_STATE_BYTES:
            raise StateTooLarge(self._shape.name, len(body), MOST_STATE_BYTES)
        return body


class _Within(msgspec.Struct, frozen=True):
    """Unknown fields within a field that is known."""

    fields: dict[str, Tree]


def _tree(body: bytes) -> Tree:
    return msgspec.msgpack.decode(body)


def _put_back(whole: dict[str, Tree], aside: Mapping[str, Tree]) -> None:
    """Adds the fields that were kept aside; where the owner's code took the mapping away that held them, they are gone with it."""
    for name, value in aside.items():
        if not isinstance(value, _Within):
            whole.setdefault(name, value)
        elif isinstance(inner := whole.get(name), dict):
            _put_back(inner, value.fields)


def _said_of(error: Exception) -> str:
    """What msgspec says of a stored value, without any part of it: some of its texts quote one."""
    text = str(error)
    if _WITHOUT_VALUES.fullmatch(text):
        return text
    at = _AT.search(text)
    return "it holds a value that this class does not allow" + (at.group() if at else "")


def _names_left_out(shape: type) -> frozenset[str]:
    """The names of fields that some struct in this class does not write while they have their defaults."""
    found: set[str] = set()
    for struct in _structs_in(shape, set()):
        if struct.__struct_config__.omit_defaults:
            found |= {field.encode_name for field in msgspec.structs.fields(struct)}
    return frozenset(found)


def _structs_in(annotation: object, seen: set[object]) -> Iterable[type[msgspec.Struct]]:
    """Yields each struct that an annotation names, and those that its fields name."""
    for inner in (get_origin(annotation), *get_args(annotation)) if get_origin(annotation) else ():
        yield from _structs_in(inner, seen)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for field in msgspec.structs.fields(annotation):
            yield from _structs_in(field.type, seen)
