"""What a worker knows of the states and histories that it has read or written lately, so that they are not read, opened and decoded anew for each
message of a conversation.

What is opened is plaintext, in this process alone, bounded in bytes and for a short time after its last use. What is known is never taken for
true by itself: it is as old as the version that the job was handed out with, or Redis is asked for the last record that is known, and what stands
behind it.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
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

KNOWN_BYTES: Final = 512
"""What a conversation that is known takes beside its records."""

MOST_GONE: Final = 4
"""So many of a full history's oldest may have gone since it was read here, each for one that other workers have added; after more it is read whole."""


class Exchange(msgspec.Struct):
    """A record of a history: when it ended (0 if it does not say so, or cannot be read), and its thread. `sealed`: b"" once it is `decoded`.

    `size`: what the record counts for in Redis. `body`: what is sealed in it, where this worker has written it; b"" once it is `decoded`.
    """

    at_ms: int
    thread_id: str
    sealed: bytes
    size: int = 0
    decoded: object = None
    body: bytes = b""

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


class KeptRead(msgspec.Struct):
    """What is known of what is kept of a conversation: its history, and its state.

    `last`: the history's last record, b"" where it has none. `has_lost`: its oldest have gone lately. `version`, `state_version`: of what is kept
    when the history, and when the state was as it is here; '' where that is not known, and until a job has ended the entry of that in which it was
    read: had it been another one's meanwhile, it would not end here. `made`: what a running job is to write, by its effect.
    """

    exchanges: list[Exchange] = []
    last: bytes = b""
    size: int = 0
    has_lost: bool = False
    version: str = ""
    state: bytes | None = None
    state_version: str = ""
    made: dict[str, tuple[bytes, bytes | Exchange]] = {}
    used_at: float = 0.0

    @property
    def weight(self) -> int:
        """Returns the bytes that it is counted for."""
        return self.size + (0 if self.state is None else len(self.state)) + KNOWN_BYTES

    def __repr__(self) -> str:
        return f"KeptRead({len(self.exchanges)} exchanges, {self.size} bytes)"


class KeptLately:
    """What one worker knows of what it has read or written lately, by conversation.

    A version tells what is kept from all that was kept there before and after: it is drawn anew with each change, and handed out with the next job.
    A part that is known at the version of a job is as it is read from Redis, and is not asked for.

    Else: a history only grows at its end and shrinks at its beginning, and no two of its records are the same: each is sealed with a nonce of its
    own. So whoever finds the last record that is known here again, and where, knows how many of the oldest have gone.
    """

    @classmethod
    def here(cls, limit_bytes: int | None = None) -> "KeptLately":
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
        self._by_conversation: OrderedDict[str, KeptRead] = OrderedDict()
        self._bytes = 0

    def of(self, conversation_id: str) -> KeptRead | None:
        """Returns what is known of a conversation, which is used now."""
        read = self._by_conversation.get(conversation_id)
        if read is not None:
            read.used_at = time.monotonic()
            self._by_conversation.move_to_end(conversation_id)
        return read

    def ask_from(self, conversation_id: str) -> int:
        """Returns the place in the list from which on its records are to be read; 0 if nothing is known of it."""
        read = self._by_conversation.get(conversation_id)
        if read is None:
            return 0
        known = len(read.exchanges)
        may_lose = read.has_lost or known >= MOST_EXCHANGES
        return max(0, known - 1 - (MOST_GONE if may_lose else 0))

    def follow(
        self, conversation_id: str, place: int, records: list[bytes], version: str = ""
    ) -> list[Exchange] | None:
        """Returns a history of which these are the records from this place on, as it follows from what is known, and keeps it; None if it does not."""
        read = self._by_conversation.get(conversation_id)
        if read is None or read.last not in records:
            return None
        at = records.index(read.last)
        gone = len(read.exchanges) - 1 - place - at
        if gone < 0:
            return None
        self._bytes -= read.weight
        self._grow(read, gone, [exchange_in(one) for one in records[at + 1 :]], records[-1])
        read.version = version
        self._keep(conversation_id, read)
        return read.exchanges

    def begin(self, conversation_id: str, records: list[bytes], version: str = "") -> list[Exchange]:
        """Returns a history that was read whole, and keeps it."""
        exchanges = [exchange_in(one) for one in records]
        read = self._taken_out(conversation_id)
        read.exchanges, read.last, read.has_lost = exchanges, records[-1] if records else b"", False
        read.size, read.version = _size_of(exchanges), version
        self._keep(conversation_id, read)
        return exchanges

    def begin_state(self, conversation_id: str, state: bytes | None, version: str) -> None:
        """Keeps a state that was read."""
        read = self._taken_out(conversation_id)
        read.state, read.state_version = state, version
        self._keep(conversation_id, read)

    def is_to_write(self, conversation_id: str, operation: str, packed: bytes, made: bytes | Exchange) -> None:
        """Hears what a job is to write if it ends well: its record, and what is in that."""
        read = self._by_conversation.get(conversation_id)
        if read is not None:
            read.made[operation] = (packed, made)

    def wrote(
        self, conversation_id: str, before: tuple[str, str], after: str, packed: Mapping[str, bytes], count: int
    ) -> None:
        """Hears that a job has ended that was under way until then, and has written these records, each by its effect. `before`: its entry, and the
        version of what was kept, '' where it knew none; `after`: the version then, `count`: how many exchanges the history has then.
        """
        read = self._by_conversation.get(conversation_id)
        if read is None:
            return
        made = {name: one for name, (record, one) in read.made.items() if packed.get(name) is record}
        self._bytes -= read.weight
        read.made.clear()
        read.state_version = after if read.state_version and read.state_version in before else ""
        read.version = after if read.version and read.version in before else ""
        if "state" in packed:
            state = made.get("state")
            read.state, read.state_version = (state, after) if isinstance(state, bytes) else (None, "")
        if "exchange" in packed:
            exchange = made.get("exchange")
            gone = len(read.exchanges) + 1 - count
            if read.version and isinstance(exchange, Exchange) and gone >= 0:
                self._grow(read, gone, [exchange], packed["exchange"])
            else:
                read.version = ""
        self._keep(conversation_id, read)

    def end(self, entry_id: str, conversation_id: str) -> None:
        """Hears that the job of an entry has ended here, however: what was read under its name has no version any more."""
        read = self._by_conversation.get(conversation_id)
        if read is not None:
            read.version = "" if read.version == entry_id else read.version
            read.state_version = "" if read.state_version == entry_id else read.state_version
            read.made.clear()

    def sweep(self) -> None:
        """Drops what was not read for a while; called every few seconds."""
        self._drop_unused_since(time.monotonic() - self._kept_seconds)

    def forget(self, conversation_id: str) -> None:
        """Drops what is known of a conversation."""
        dropped = self._by_conversation.pop(conversation_id, None)
        self._bytes -= 0 if dropped is None else dropped.weight

    def _grow(self, read: KeptRead, gone: int, came: list[Exchange], last: bytes) -> None:
        """Makes a new list: whoever has read the former one has that."""
        went, stay = (read.exchanges[:gone], read.exchanges[gone:]) if gone else ([], read.exchanges)
        read.exchanges = [*stay, *came]
        read.size += _size_of(came) - _size_of(went)
        read.has_lost = read.has_lost or gone > 0
        read.last = last

    def _taken_out(self, conversation_id: str) -> KeptRead:
        read = self._by_conversation.pop(conversation_id, None)
        if read is None:
            return KeptRead()
        self._bytes -= read.weight
        return read

    def _keep(self, conversation_id: str, read: KeptRead) -> None:
        """Keeps what is not counted now, if there is room."""
        self._by_conversation.pop(conversation_id, None)
        read.used_at = time.monotonic()
        weight = read.weight
        self._drop_unused_since(read.used_at - self._busy_seconds, to_free=weight)
        if self._bytes + weight <= self.most_bytes:
            self._by_conversation[conversation_id] = read
            self._bytes += weight

    def _drop_unused_since(self, since: float, *, to_free: int | None = None) -> None:
        """Drops those that were not used since then, the least lately used first; `to_free`: only as many as it takes to have room for so many bytes."""
        while self._by_conversation:
            conversation_id, read = next(iter(self._by_conversation.items()))
            if read.used_at >= since or (to_free is not None and self._bytes + to_free <= self.most_bytes):
                return
            self.forget(conversation_id)


def _size_of(exchanges: Iterable[Exchange]) -> int:
    return sum([one.size for one in exchanges])
