"""Takes the relay's JSON apart before anything in it is believed, so that an entry which cannot be read spoils no other.

msgspec reads whole texts, or not at all: half an escaped character in one name, and a page of a hundred messages is no JSON. So a
list is cut into its entries while it comes (supervisor/relay/listing.py), and an object here, by brackets and commas alone where there is no
other way; each part is read for itself.
"""

import re
from typing import Final, TypeVar

import msgspec

MOST_TOKENS: Final = 500_000
"""Brackets, commas and strings that are looked at one by one, a fifth of a second: no entry stops the loop for longer."""

MOST_NESTED: Final = 500
"""Lists and objects in each other. Up to Python 3.13 the interpreter's own limit, of about a thousand, came soon after; later ones have none."""

_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{},]', re.DOTALL)
_NAME: Final = re.compile(rb'\s*("(?:[^"\\]++|\\.)*+")\s*:\s*', re.DOTALL)
_SPACE: Final = b" \t\r\n"
UNREADABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for a text that it cannot read."""

Text = bytes | msgspec.Raw
Shape = TypeVar("Shape")


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
    """Returns an entry as a value of this kind, without the members that cannot be read; None where that is no such value."""
    try:
        return msgspec.json.decode(entry, type=kind)
    except UNREADABLE:
        pass
    try:
        return msgspec.json.decode(without_unreadable(entry), type=kind)
    except (*UNREADABLE, NotTaken):
        return None


def without_unreadable(text: Text, depth: int = 2) -> bytes:
    """Returns an object without the members that cannot be read, also in an object within it. Raises NotTaken."""
    kept = []
    for name, value in _members(bytes(text)):
        if _is_readable(value):
            kept.append((name, value))
        elif depth > 1 and value.startswith(b"{"):
            kept.append((name, without_unreadable(value, depth - 1)))
    return b"{%b}" % b",".join(b"%b:%b" % (msgspec.json.encode(name), value) for name, value in kept)


def _is_readable(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except UNREADABLE:
        return False
    return _depth(text) <= MOST_NESTED


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
