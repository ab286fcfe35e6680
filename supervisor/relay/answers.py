"""Takes the relay's JSON apart before anything in it is believed, so that an entry which cannot be read spoils no other.

msgspec reads whole texts, or not at all: half an escaped character in one name, and a page of a hundred messages is no JSON. So a
list is cut into its entries while it comes (supervisor/relay/listing.py), and an object here, by brackets and commas alone where there is no
other way; each part is read for itself.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec

from host.unreadable import UNREADABLE, can_be_kept

MOST_TOKENS: Final = 500_000
"""Brackets, commas and strings that are looked at one by one, a fifth of a second: no entry stops the loop for longer."""

MOST_NESTED: Final = 500
"""Lists and objects in each other. Up to Python 3.13 the interpreter's own limit, of about a thousand, came soon after; later ones have none."""

_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{},]', re.DOTALL)
_NAME: Final = re.compile(rb'\s*("(?:[^"\\]++|\\.)*+")\s*:\s*', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_AT_MEMBER: Final = re.compile(r" - at `\$((?:\.[A-Za-z_0-9]+){1,2})")

MOST_MISFITS: Final = 16
"""Members of one entry that are left out; it is decoded once more for each. No shape has more that it need not have."""

TELLING: Final = frozenset({"client_message_id"})
"""What an entry is about: one that is there and does not fit does not count as absent, or it would be about something else."""

Text = bytes | msgspec.Raw
Shape = TypeVar("Shape")
_Members = dict[str, "bytes | _Members"]
"""An object by the names of its members, each as it stands there or taken apart in its turn."""


class NotTaken(Exception):
    """Raised for a text that is not the JSON object, or list, that it should be."""


def members_of(text: Text) -> dict[str, Text]:
    """Returns the members of an object by name, each as it stands there, unread. Raises NotTaken."""
    try:
        return dict(msgspec.json.decode(text, type=dict[str, msgspec.Raw]))
    except msgspec.ValidationError:
        raise NotTaken from None
    except UNREADABLE:
        return dict(_members(bytes(text)))


def value_of(text: Text | None) -> object:
    """Returns the value of a JSON text; None for one that is absent, or cannot be read."""
    try:
        return None if text is None else msgspec.json.decode(text)
    except UNREADABLE:
        return None


def read_as(kind: type[Shape], entry: Text) -> Shape | None:
    """Returns an entry as a value of this kind, without the members that cannot be read or do not fit; None where that is no such value."""
    try:
        return msgspec.json.decode(entry, type=kind)
    except UNREADABLE:
        pass
    try:
        return without_misfits(lambda text: msgspec.json.decode(text, type=kind), without_unreadable(entry))
    except (*UNREADABLE, NotTaken):
        return None


def without_misfits(decode: Callable[[bytes], Shape], text: bytes) -> Shape:
    """Returns what an object is decoded to without the members that it need not have and that are null, or not what they should be.

    `text` has no member that cannot be read. Raises the first of UNREADABLE that `decode` raised, where it needs what does not fit.
    """
    try:
        return decode(text)
    except UNREADABLE as error:
        first, misfit = error, error
    taken_apart: _Members = dict(_members(text))
    for _ in range(MOST_MISFITS):
        found = _AT_MEMBER.search(str(misfit))
        if not found or not _leave_out(taken_apart, found[1][1:].split(".")):
            break
        try:
            return decode(_put_together(taken_apart))
        except UNREADABLE as error:
            misfit = error
    raise first


def without_unreadable(text: Text, depth: int = 2) -> bytes:
    """Returns an object without the members that cannot be read, also in an object within it. Raises NotTaken."""
    kept = []
    for name, value in _members(bytes(text)):
        if _is_readable(value):
            kept.append((name, value))
        elif depth > 1 and value.startswith(b"{"):
            kept.append((name, without_unreadable(value, depth - 1)))
    return _object_of(kept)


def _leave_out(members: _Members, path: list[str]) -> bool:
    """Takes the member at a path of names out. Returns whether it was there, and is none that tells what this is about."""
    name, *inner = path
    value = members.get(name)
    if value is None or (name in TELLING and value != b"null"):
        return False
    if not inner:
        del members[name]
        return True
    if isinstance(value, bytes):
        if not value.startswith(b"{"):
            return False
        value = members[name] = dict(_members(value))
    return _leave_out(value, inner)


def _put_together(members: _Members) -> bytes:
    return _object_of(
        (name, value if isinstance(value, bytes) else _put_together(value)) for name, value in members.items()
    )


def _object_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    return b"{%b}" % b",".join(b"%b:%b" % (msgspec.json.encode(name), value) for name, value in members)


def _is_readable(text: bytes) -> bool:
    try:
        value = msgspec.json.decode(text)
    except UNREADABLE:
        return False
    return _depth(text) <= MOST_NESTED and can_be_kept(value)


def _depth(text: bytes) -> int:
    """Returns how deep lists and objects stand in each other; MOST_TOKENS, which is too deep, for a text with too many tokens."""
    depth = deepest = 0
    for number, token in enumerate(_TOKEN.finditer(text)):
        first = text[token.start()]
        depth += (first in b"[{") - (first in b"]}")
        deepest = max(deepest, depth)
        if number >= MOST_TOKENS:
            return MOST_TOKENS
    return deepest


def _members(text: bytes) -> list[tuple[str, bytes]]:
    members = []
    for part in _parts(text):
        named = _NAME.match(part)
        name = value_of(named.group(1)) if named else None
        if named and isinstance(name, str):
            members.append((name, part[named.end() :].strip(_SPACE)))
    return members


def _parts(text: bytes) -> list[bytes]:
    """Returns what stands between the brackets of an object, cut at its commas. Raises NotTaken."""
    text = text.strip(_SPACE)
    if len(text) < 2 or text[:1] + text[-1:] != b"{}":
        raise NotTaken
    parts, start, depth = list[bytes](), 1, 0
    for number, token in enumerate(_TOKEN.finditer(text)):
        first = text[token.start()]
        if first in b"[{":
            depth += 1
        elif first in b"]}":
            depth -= 1
        elif first == ord(",") and depth == 1:
            parts.append(text[start : token.start()])
            start = token.end()
        is_over = depth == 0 and token.end() < len(text)
        if is_over or number >= MOST_TOKENS:
            raise NotTaken
    if depth != 0:
        raise NotTaken
    last = text[start:-1]
    return [*parts, last] if parts or last.strip(_SPACE) else []
