"""What of the histories was read and opened lately, so that a conversation's whole history is not read and opened anew for each of its messages.

What is opened is plaintext, in this process alone: little of it, and for a short time after its last use.
"""

import time
from collections import OrderedDict
from typing import Final, NamedTuple

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
    decoded: object = None
    """What the body was decoded into, once it was."""

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


class RecordsRead(NamedTuple):
    """The records of one history, their bytes, and when they were read."""

    records: list[bytes]
    size: int
    read_at: float


class RecordsLately:
    """The records of histories as they were read lately, sealed as they lie in Redis. What was read least lately leaves first.

    A history only grows at its end and shrinks at its beginning, and no two of its records are the same: each is sealed with a nonce of its own. So whoever
    finds the last record that is known here among the newest ones, and how many there are, knows them all.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES, kept_seconds: float = KEPT_SECONDS) -> None:
        self._most_bytes = most_bytes
        self._kept_seconds = kept_seconds
        self._by_conversation: OrderedDict[str, RecordsRead] = OrderedDict()
        self._bytes = 0

    def knows(self, conversation_id: str) -> bool:
        """Returns whether something is known of a conversation's history."""
        return conversation_id in self._by_conversation

    def whole(self, conversation_id: str, count: int, newest: list[bytes]) -> list[bytes] | None:
        """Returns a history of `count` records whose newest are these; None if that does not follow from what is known."""
        if count <= len(newest):
            return newest
        read = self._by_conversation.get(conversation_id)
        if read is None or read.records[-1] not in newest:
            return None
        whole = read.records + newest[newest.index(read.records[-1]) + 1 :]
        return whole[-count:] if len(whole) >= count else None

    def put(self, conversation_id: str, records: list[bytes]) -> None:
        """Keeps what was read."""
        self.forget(conversation_id)
        if records:
            read = RecordsRead(records, sum(map(len, records)), time.monotonic())
            self._by_conversation[conversation_id] = read
            self._bytes += read.size
        while self._bytes > self._most_bytes:
            self.forget(next(iter(self._by_conversation)))

    def sweep(self) -> None:
        """Drops what was not read for a while; called every few seconds."""
        until = time.monotonic() - self._kept_seconds
        while self._by_conversation and next(iter(self._by_conversation.values())).read_at < until:
            self.forget(next(iter(self._by_conversation)))

    def forget(self, conversation_id: str) -> None:
        """Drops what is known of a conversation."""
        dropped = self._by_conversation.pop(conversation_id, None)
        self._bytes -= 0 if dropped is None else dropped.size
