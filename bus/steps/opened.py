"""What of the histories was opened lately, so that a conversation's whole history is not opened anew for each of its messages.

It holds plaintext, in this process alone: little of it, and for a short time after its last use.
"""

import time
from collections import OrderedDict
from typing import Final

import msgspec

MOST_BYTES: Final = 1 << 20
"""Of all bodies: the histories of a hundred people who write at the same time, at 10 KiB each."""

KEPT_SECONDS: Final = 60.0
"""After its last use. Who writes less often costs no CPU that matters."""


class OpenedExchange(msgspec.Struct):
    """The opened body of a record, and what the record says of itself."""

    conversation_id: str
    at_ms: int
    thread_id: str
    body: bytes
    used_at: float = 0.0

    def __repr__(self) -> str:
        return f"OpenedExchange(conversation_id={self.conversation_id!r}, {len(self.body)} bytes)"


class OpenedExchanges:
    """Those of one worker, by what tells a record's version from every other. What was used least lately leaves first."""

    def __init__(self, *, most_bytes: int = MOST_BYTES, kept_seconds: float = KEPT_SECONDS) -> None:
        self._most_bytes = most_bytes
        self._kept_seconds = kept_seconds
        self._by_version: OrderedDict[bytes, OpenedExchange] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._by_version)

    def get(self, version: bytes, conversation_id: str) -> OpenedExchange | None:
        """Returns what was opened of this record in this conversation; None if it is not here."""
        found = self._by_version.get(version)
        if found is None or found.conversation_id != conversation_id:
            return None
        found.used_at = time.monotonic()
        self._by_version.move_to_end(version)
        return found

    def put(self, version: bytes, opened: OpenedExchange) -> None:
        """Keeps what was opened."""
        self._drop(version)
        opened.used_at = time.monotonic()
        self._by_version[version] = opened
        self._bytes += len(opened.body)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._by_version)))

    def sweep(self) -> None:
        """Drops what was not used for a while; called every few seconds."""
        until = time.monotonic() - self._kept_seconds
        while self._by_version and next(iter(self._by_version.values())).used_at < until:
            self._drop(next(iter(self._by_version)))

    def forget(self, conversation_id: str) -> None:
        """Drops what is of a conversation."""
        for version in [one for one, opened in self._by_version.items() if opened.conversation_id == conversation_id]:
            self._drop(version)

    def _drop(self, version: bytes) -> None:
        dropped = self._by_version.pop(version, None)
        if dropped is not None:
            self._bytes -= len(dropped.body)
