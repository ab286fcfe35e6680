"""Splits an answer `{"data": [entry, …], …}` into its entries while it is read, each as the bytes that stand there.

Only the outer shape of JSON is known here: strings, brackets, commas. What an entry says, and whether it is JSON at all, is found out by
whoever decodes it, so that a bad entry spoils no other. Nothing is held but the entry that is being read.
"""

import re
from typing import Final

import msgspec

LISTED: Final = b"data"
"""The name under which the list stands (PROTOCOL §1)."""

ELIDED: Final = b'""'
"""What stands for a string that is too long. The rest of its entry is read: polling needs its id to come past it."""

LIST_DEPTH: Final = 2
"""Brackets that are open between two entries: the answer's and the list's."""

_STRING: Final = re.compile(rb'(?s)(?:[^"\\]++|\\.)*+')
"""The inside of a string, up to its end, the end of what came, or a backslash that is the last byte which came."""

_MARK: Final = re.compile(rb'["{}\[\],:]')
_DEEP_MARK: Final = re.compile(rb'["{}\[\]]')
_BLANK: Final = b" \t\r\n"
_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_OPENING, _CLOSING = frozenset(b"{["), frozenset(b"}]")


class Limits(msgspec.Struct, frozen=True):
    """What an entry may weigh in bytes: a longer string is replaced by an empty one, a longer entry is cut, and so is no JSON."""

    entry_bytes: int
    string_bytes: int


class Listing:
    """Takes the bytes of one answer as they come and gives whole entries."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._name = bytearray()
        self._is_named = False
        self._entry = bytearray()
        self._string_at = 0
        self._is_eliding = False
        self._in_list = False
        self.was_found = False
        """Whether a list stands where it should."""

    @property
    def is_whole(self) -> bool:
        """Whether the answer has come to its end."""
        return self.was_found and self._depth == 0

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the entries that end in these bytes."""
        ended = list[bytes]()
        at = 0
        while at < len(data):
            if self._in_string:
                at = self._read_string(data, at)
            elif self._in_list:
                at = self._read_entry(data, at, ended)
            else:
                at = self._read_outside(data, at)
        return ended

    def _read_outside(self, data: bytes, at: int) -> int:
        """Reads up to the next mark of what surrounds the list. Returns the place behind it."""
        found = _MARK.search(data, at)
        if found is None:
            return len(data)
        mark = data[found.start()]
        if mark == _QUOTE:
            self._in_string = True
            self._name.clear()
        elif mark in _OPENING:
            self._depth += 1
            if self._depth == LIST_DEPTH and self._is_named and mark == ord("[") and not self.was_found:
                self._in_list = self.was_found = True
        elif mark in _CLOSING:
            self._depth -= 1
        self._is_named = mark == _COLON and self._depth == 1 and self._name == LISTED
        return found.end()

    def _read_entry(self, data: bytes, at: int, ended: list[bytes]) -> int:
        """Reads up to the next mark in the list. Returns the place behind it."""
        found = (_MARK if self._depth == LIST_DEPTH else _DEEP_MARK).search(data, at)
        if found is None:
            self._keep(data[at:])
            return len(data)
        mark, behind = data[found.start()], found.end()
        if self._depth == LIST_DEPTH and (mark == _COMMA or mark in _CLOSING):
            self._keep(data[at : found.start()])
            self._end_entry(ended, is_last=mark != _COMMA)
            return behind
        if mark == _QUOTE:
            self._in_string = True
            self._string_at = len(self._entry) + found.start() - at
        elif mark in _OPENING:
            self._depth += 1
        elif mark in _CLOSING:
            self._depth -= 1
        self._keep(data[at:behind])
        return behind

    def _end_entry(self, ended: list[bytes], *, is_last: bool) -> None:
        entry = bytes(self._entry.strip(_BLANK))
        self._entry.clear()
        if entry or not is_last:
            ended.append(entry)
        if is_last:
            self._in_list = False
            self._depth -= 1

    def _read_string(self, data: bytes, at: int) -> int:
        """Reads up to the string's end, or the end of what came. Returns the place behind it."""
        end = at
        if self._is_escaped:
            self._is_escaped = False
            end += 1
        found = _STRING.match(data, end)
        end = len(data) if found is None else found.end()
        if end < len(data):
            self._in_string = data[end] != _QUOTE
            self._is_escaped = data[end] == _BACKSLASH
            end += 1
        if not self._in_list:
            room = len(LISTED) + 1 - len(self._name)
            self._name += data[at : end if self._in_string else end - 1][:room]
        else:
            self._keep_string(data[at:end])
        return end

    def _keep_string(self, part: bytes) -> None:
        if not self._is_eliding:
            self._keep(part)
            if len(self._entry) - self._string_at > self._limits.string_bytes:
                del self._entry[self._string_at :]
                self._keep(ELIDED)
                self._is_eliding = True
        if not self._in_string:
            self._is_eliding = False

    def _keep(self, part: bytes) -> None:
        self._entry += part[: max(0, self._limits.entry_bytes - len(self._entry))]
