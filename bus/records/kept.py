"""What handlers keep between messages, as it lies in Redis: sealed with the bus key to (kind, agent, conversation, name).

A record names its place itself, so that whoever re-seals it need not know where it stands. What is inside is
the owner's own and opaque here; workers/ says what it means.
"""

import msgspec

from bus.records.records import BadRecord, NewerRecord
from bus.records.sealing import BusKey, SealBroken

KEPT_SCHEMA = 1
STATE = "state"
WAIT = "wait"


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
    record = KeptRecord(KEPT_SCHEMA, kind, conversation_id, name, b"")
    return msgspec.msgpack.encode(msgspec.structs.replace(record, sealed=key.seal(body, *record.place(agent_id))))


def open_kept(packed: bytes, kind: str, conversation_id: str, name: str = "", *, key: BusKey, agent_id: str) -> bytes:
    """Returns the value of a record that stands in this place. Raises BadRecord; NewerRecord for one that a later version wrote."""
    place = KeptRecord(KEPT_SCHEMA, kind, conversation_id, name, b"").place(agent_id)
    try:
        return key.open(decode_kept(packed).sealed, *place)
    except SealBroken as error:
        raise BadRecord(f"{kind}: {error}") from None


def decode_kept(packed: bytes) -> KeptRecord:
    """Returns a record without opening it. Raises BadRecord; NewerRecord for one that a later version wrote."""
    try:
        schema = msgspec.msgpack.decode(packed, type=_Schema).schema
        if schema > KEPT_SCHEMA:
            raise NewerRecord(
                f"what a handler keeps: of schema {schema}, and this version of hashee-agent reads up to {KEPT_SCHEMA}"
            )
        return msgspec.msgpack.decode(packed, type=KeptRecord)
    except msgspec.DecodeError as error:
        raise BadRecord(f"what a handler keeps: {error}") from None


def is_wait(field: bytes) -> bool:
    """Returns whether a field of the waits of a conversation is a record, and not what scripts need to know beside one."""
    return b":" not in field


class _Schema(msgspec.Struct, array_like=True):
    """The schema version, which every record begins with."""

    schema: int
