"""What a worker knows of the histories that it has read lately, so that a conversation's history is not read, opened and decoded anew for each of
its messages.

What is opened is plaintext, in this process alone, bounded in bytes and for a short time after its last use. What is known is never taken for
true by itself: each read asks Redis for the last record that is known, and what stands behind it.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import msgspec

from bus.records.kept import MOST_EXCHANGES, decode_kept, size_of_exchange, when_and_where
from bus.records.records import BadRecord
from host.budgets import memory_limit_bytes

MOST_BYTES: Final = 1 << 24
"""Of all records as they lie in Redis: those of 64 conversations, which is as many as a worker has at once, of 256 KiB each."""

SHARE: Final = 32
"""At most this part of the memory that the process may use: 16 MiB of 512, and 8 of 256. In memory they may be up to 3.5 times as much."""

KEPT_SECONDS: Final = 60.0
"""After its last use. Who writes less often costs no CPU that matters."""

BUSY_SECONDS: Final = 1.0
"""What was used within it is not dropped for another: where more conversations are busy at once than there is room for, some of them stay, while the
least lately used one would always be the next that is needed.
"""

MOST_GONE: Final = 4
"""So many of a full history's oldest may have gone since it was read here, each for one that other workers have added; after more it is read whole."""


class Exchange(msgspec.Struct):
    """A record of a history: when it ended (0 if it does not say so, or cannot be read), and its thread. `sealed`: b"" once it is `decoded`.

    `size`: what the record counts for in Redis.
    """

    at_ms: int
    thread_id: str
    sealed: bytes
    size: int = 0
    decoded: object = None

    def __repr__(self) -> str:
        return f"Exchange(thread_id={self.thread_id!r}, {self.size} bytes)"


def exchange_in(packed: bytes) -> Exchange:
    """Returns what a packed record says of itself; what cannot be read (of a later version, or damaged) has no thread and no time."""
    size = size_of_exchange(packed)
    try:
        record = decode_kept(packed)
    except BadRecord:
        return Exchange(0, "", b"", size)
    at_ms, thread_id = when_and_where(record)
    return Exchange(at_ms, thread_id, record.sealed, size)


class HistoryRead(msgspec.Struct):
    """A history as it was read. `last`: its last record. `has_lost`: its oldest have gone lately."""

    exchanges: list[Exchange]
    last: bytes
    size: int
    has_lost: bool = False
    used_at: float = 0.0

    def __repr__(self) -> str:
        return f"HistoryRead({len(self.exchanges)} exchanges, {self.size} bytes)"


class HistoriesLately:
    """The histories that one worker has read lately, by conversation.

    A history only grows at its end and shrinks at its beginning, and no two of its records are the same: each is sealed with a nonce of its own. So
    whoever finds the last record that is known here again, and where, knows how many of the oldest have gone.
    """

    @classmethod
    def here(cls, limit_bytes: int | None = None) -> "HistoriesLately":
        """Returns one that suits `limit_bytes`, or else what the kernel lets this process use."""
        return cls(most_bytes=min(MOST_BYTES, (limit_bytes or memory_limit_bytes()) // SHARE))

    def __init__(
        self,
        *,
        most_bytes: int = MOST_BYTES,
        kept_seconds: float = KEPT_SECONDS,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self.most_bytes = most_bytes
        self._kept_seconds = kept_seconds
        self._busy_seconds = busy_seconds
        self._by_conversation: OrderedDict[str, HistoryRead] = OrderedDict()
        self._bytes = 0

    def ask_from(self, conversation_id: str) -> int:
        """Returns the place in the list from which on its records are to be read; 0 if nothing is known of it."""
        read = self._by_conversation.get(conversation_id)
        if read is None:
            return 0
        known = len(read.exchanges)
        may_lose = read.has_lost or known >= MOST_EXCHANGES
        return max(0, known - 1 - (MOST_GONE if may_lose else 0))

    def follow(self, conversation_id: str, place: int, records: list[bytes]) -> list[Exchange] | None:
        """Returns a history of which these are the records from this place on, as it follows from what is known, and keeps it; None if it does not."""
        read = self._by_conversation.get(conversation_id)
        if read is None or read.last not in records:
            return None
        at = records.index(read.last)
        gone = len(read.exchanges) - 1 - place - at
        if gone < 0:
            return None
        went, came = read.exchanges[:gone], [exchange_in(one) for one in records[at + 1 :]]
        exchanges = [*read.exchanges[gone:], *came]
        size = read.size + _size_of(came) - (_size_of(went) if went else 0)
        self._put(conversation_id, HistoryRead(exchanges, records[-1], size, has_lost=read.has_lost or gone > 0))
        return exchanges

    def begin(self, conversation_id: str, records: list[bytes]) -> list[Exchange]:
        """Returns a history that was read whole, and keeps it."""
        exchanges = [exchange_in(one) for one in records]
        self.forget(conversation_id)
        if exchanges:
            self._put(conversation_id, HistoryRead(exchanges, records[-1], _size_of(exchanges)))
        return exchanges

    def sweep(self) -> None:
        """Drops what was not read for a while; called every few seconds."""
        self._drop_unused_since(time.monotonic() - self._kept_seconds)

    def forget(self, conversation_id: str) -> None:
        """Drops what is known of a conversation."""
        dropped = self._by_conversation.pop(conversation_id, None)
        self._bytes -= 0 if dropped is None else dropped.size

    def _put(self, conversation_id: str, read: HistoryRead) -> None:
        """Keeps what was read, if there is room."""
        self.forget(conversation_id)
        read.used_at = time.monotonic()
        self._drop_unused_since(read.used_at - self._busy_seconds, to_free=read.size)
        if self._bytes + read.size <= self.most_bytes:
            self._by_conversation[conversation_id] = read
            self._bytes += read.size

    def _drop_unused_since(self, since: float, *, to_free: int | None = None) -> None:
        """Drops those that were not used since then, the least lately used first; `to_free`: only as many as it takes to have room for so many bytes."""
        while self._by_conversation:
            conversation_id, read = next(iter(self._by_conversation.items()))
            if read.used_at >= since or (to_free is not None and self._bytes + to_free <= self.most_bytes):
                return
            self.forget(conversation_id)


def _size_of(exchanges: Iterable[Exchange]) -> int:
    return sum([one.size for one in exchanges])
