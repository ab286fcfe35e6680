"""Cuts the body of a streamed answer into events. It reads what the specification of server-sent events says, and what endpoints make of it.

No IO, and no opinion about what an event says. That differs from the specification: an event at the end needs no empty line, a line without
a field that begins as JSON does is an event, and so is the field `error`, by which llama.cpp told errors until 2025.
"""

import re
from typing import NamedTuple

MOST_EVENT_BYTES = 16 * 1024 * 1024
"""Of one event, and of a whole answer that is no stream: ten times what any model writes at once."""

DONE = b"[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"
_JSON_BEGINS = (b"{", b"[")


class EventTooLarge(Exception):
    """One event has more than MOST_EVENT_BYTES."""


class ServerEvent(NamedTuple):
    """What stands in the data lines of an event. `is_error`: it was sent as an error."""

    data: bytes
    is_error: bool = False


class EventCutter:
    """Takes bytes as they come; returns the events that they complete."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_first_line = True
        self._skips_newline = False
        self._lines: list[bytes] = []
        self._size = 0
        self._kind = b""
        self._is_bare = False

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Raises EventTooLarge."""
        if self._skips_newline and data.startswith(b"\n"):
            data = data[1:]
            self._skips_newline = False
        if not data:
            return []
        self._skips_newline = data.endswith(b"\r")
        *whole, rest = _LINE_END.split(data)
        found = list[ServerEvent]()
        for line in whole:
            self._rest += line
            found += self._take(bytes(self._rest))
            self._rest.clear()
        self._rest += rest
        if len(self._rest) + self._size > MOST_EVENT_BYTES:
            raise EventTooLarge
        return found

    def end(self) -> list[ServerEvent]:
        """Returns what stands behind the last empty line."""
        rest = bytes(self._rest)
        self._rest.clear()
        return [*self._take(rest), *self._dispatch()]

    def _take(self, line: bytes) -> list[ServerEvent]:
        if self._is_first_line:
            line, self._is_first_line = line.removeprefix(_BOM), False
        if not line:
            return [] if self._is_bare else self._dispatch()
        name, _, value = line.partition(b":")
        if name in (b"data", b"event", b"error", b""):
            before = self._dispatch() if self._is_bare else []
            return [*before, *self._take_field(name, value.removeprefix(b" "))]
        if self._is_bare or line.lstrip().startswith(_JSON_BEGINS):
            before = [] if self._is_bare else self._dispatch()
            self._is_bare = True
            self._add(line)
            return before
        return []

    def _take_field(self, name: bytes, value: bytes) -> list[ServerEvent]:
        if name == b"error":
            return [*self._dispatch(), ServerEvent(value, is_error=True)]
        if name == b"event":
            self._kind = value
        elif name == b"data":
            self._add(value)
            if value.strip() == DONE:  # some send no empty line behind it, and keep the connection open
                return self._dispatch()
        return []

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size > MOST_EVENT_BYTES:
            raise EventTooLarge

    def _dispatch(self) -> list[ServerEvent]:
        lines, kind = self._lines, self._kind
        self._lines, self._size, self._kind, self._is_bare = [], 0, b"", False
        return [ServerEvent(b"\n".join(lines), kind == b"error")] if lines else []
