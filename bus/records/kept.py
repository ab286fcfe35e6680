"""What handlers keep between messages, as it lies in Redis: sealed with the bus key to (kind, agent, conversation, name).

A record names its place itself, so that whoever re-seals it need not know where it stands. What is inside is
the owner's own and opaque here; workers/ says what it means.
"""

import contextlib

import msgspec

from bus.records.records import BadRecord, NewerRecord
from bus.records.sealing import BusKey, SealBroken
from host.unreadable import UNREADABLE

KEPT_SCHEMA = 1
STATE = "state"
WAIT = "wait"
MOST_WAITS_BYTES = 1 << 26
"""Of all waits of an agent together, as bus/scripts/_library.lua counts them."""
EXCHANGE = "history"
"""A message, or those that were handled together, and what was said to it."""
STORE = "store"
"""What handlers keep for the whole agent, a value for each key of the owner's."""
STORE_BYTES_FIELD = ""
"""Beside the values: how many bytes they are together. No key is empty."""
VERSION_BYTES = 256
"""So much of a record's beginning tells one version of a value from every other: the seal's nonce is in it."""
DAY_MS = 86_400_000
EXCHANGES_KEPT_MS = 30 * DAY_MS
MOST_EXCHANGES = 100
"""Of a conversation, as bus/scripts/_library.lua counts them."""
OVERHEAD_BYTES = 200  # what Redis needs beside a record, as bus/scripts/_library.lua counts it


class KeptRecord(msgspec.Struct, frozen=True, array_like=True):
    """One kept value. `conversation_id`: '' for what belongs to the whole agent; `name`: '' where there is one value of its kind."""

    schema: int
    kind: str
    conversation_id: str
    name: str
    sealed: bytes

    def __repr__(self) -> str:
        return f"KeptRecord(kind={self.kind!r}, conversation_id={self.conversation_id!r}, {len(self.sealed)} bytes)"

    def place(self, agent_id: str) -> tuple[str, ...]:
        """Returns the place that the value is sealed for."""
        return (self.kind, agent_id, self.conversation_id, self.name)


def pack_kept(body: bytes, kind: str, conversation_id: str, name: str = "", *, key: BusKey, agent_id: str) -> bytes:
    """Seals a value into the record that stands in Redis."""
    sealed = key.seal(body, kind, agent_id, conversation_id, name)
    return msgspec.msgpack.encode(KeptRecord(KEPT_SCHEMA, kind, conversation_id, name, sealed))


def open_kept(packed: bytes, kind: str, conversation_id: str, name: str = "", *, key: BusKey, agent_id: str) -> bytes:
    """Returns the value of a record that stands in this place. Raises BadRecord; NewerRecord for one that a later version wrote."""
    return open_sealed(decode_kept(packed).sealed, (kind, agent_id, conversation_id, name), key)


def open_sealed(sealed: bytes, place: tuple[str, ...], key: BusKey) -> bytes:
    """Returns what a record holds that stands in this place. Raises BadRecord."""
    try:
        return key.open(sealed, *place)
    except SealBroken as error:
        raise BadRecord(f"{place[0]}: {error}") from None


def decode_kept(packed: bytes) -> KeptRecord:
    """Returns a record without opening it. Raises BadRecord; NewerRecord for one that a later version wrote."""
    try:
        record = _RECORD.decode(packed)
    except UNREADABLE as error:
        raise _newer(packed) or BadRecord(f"what a handler keeps: {error}") from None
    if record.schema > KEPT_SCHEMA:
        raise _newer(packed) or BadRecord("what a handler keeps: of no schema")
    return record


def _newer(packed: bytes) -> NewerRecord | None:
    with contextlib.suppress(*UNREADABLE):
        schema = msgspec.msgpack.decode(packed, type=_Schema).schema
        if schema > KEPT_SCHEMA:
            return NewerRecord(
                f"what a handler keeps: of schema {schema}, and this version of hashee-agent reads up to {KEPT_SCHEMA}"
            )
    return None


def is_wait(field: bytes) -> bool:
    """Returns whether a field of the waits of a conversation is a record, and not what scripts need to know beside one."""
    return b":" not in field


class _Schema(msgspec.Struct, array_like=True):
    """The schema version, which every record begins with."""

    schema: int


_RECORD = msgspec.msgpack.Decoder(KeptRecord)


def exchange_name(at_ms: int, thread_id: str) -> str:
    """Returns the name of an exchange's record: when it ended, and in which thread."""
    return f"{at_ms}:{thread_id}"


def when_and_where(record: KeptRecord) -> tuple[int, str]:
    """Returns when the exchange in a record ended (0 if it does not say so, as the scripts count it), and its thread."""
    at_ms, _, thread_id = record.name.partition(":")
    return int(at_ms) if at_ms.isdecimal() else 0, thread_id


def exchanged_ms(packed: bytes) -> int:
    """Returns when the exchange in a packed record ended; 0 if it does not say so, or cannot be read."""
    try:
        return when_and_where(decode_kept(packed))[0]
    except BadRecord:
        return 0


def size_of_exchange(packed: bytes) -> int:
    """Returns the bytes that an exchange counts for (`size_of` of bus/scripts/_library.lua)."""
    return len(packed) + OVERHEAD_BYTES
