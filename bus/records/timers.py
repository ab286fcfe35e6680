"""Timers as they lie in Redis: a job that is to be placed in a conversation at a time (bus/scripts/jobs/fire.lua).

Ids and times stand in the clear, what it is about is sealed with the bus key to (`timers`, agent, conversation, id).
"""

import hashlib
from datetime import date

import msgspec

from bus.records.daily import Daily
from bus.records.records import GROUP, BadRecord, InboundMessage, NewerRecord, Payload, PlacedKind, pack_placed_job
from bus.records.sealing import BusKey, SealBroken
from host.unreadable import UNREADABLE

TIMER_SCHEMA = 1
TIMERS = "timers"
ID_CHARACTERS = 32
LATELY_MS = 2 * 3_600_000
"""Redis goes back by an hour at most where nobody shall notice."""


def due_payload(kind: PlacedKind, name: str, data: bytes, due_ms: int) -> Payload:
    """Returns what the job of something that is due says for itself. It is never sent."""
    return {"type": kind, "name": name, "data": data, "due_ms": due_ms}


class Timer(msgspec.Struct, frozen=True, kw_only=True):
    """What is due at `due_ms`: a job of this kind, with this name and data (msgpack of the owner's own).

    `daily`, `every_ms`: it is due again. `set_by`: a name of the job that set it. `message_ms`: the time in the ids of what its job says, 0 for when
    it is due. The rest is of the message that set it: whom the conversation is with.
    """

    id: str
    conversation_id: str
    due_ms: int
    kind: PlacedKind
    name: str
    data: bytes = b""
    daily: Daily | None = None
    every_ms: int = 0
    conversation_type: str = ""
    sender_id: str = ""
    sender_type: str = ""
    sender_display_name: str | None = None
    hop_count: int = 0
    group_metadata: dict[str, object] | None = None
    set_by: str = ""
    message_ms: int = 0

    def __repr__(self) -> str:
        return f"Timer(id={self.id!r}, kind={self.kind!r}, due_ms={self.due_ms})"

    @property
    def job_id(self) -> str:
        """Returns the id of its job when it is due this time: another for each time.

        Of one that is due once it does not name the time: where Redis went back its job may set it once more, for later, and what
        people were told is told once.
        """
        is_once = self.set_by and self.daily is None and not self.every_ms
        return f"timer:{self.id}:{self.set_by if is_once else self.due_ms}"

    def says_at_ms(self, now_ms: int) -> int:
        """Returns the time in the ids of what its job says: the same if it is fired twice, since Redis went back, or a backup was restored.

        Where a group may hear it not a time of long ago, which its members may take for something that they have had.
        """
        is_said = self.conversation_type not in ("", GROUP) or now_ms - self.due_ms <= LATELY_MS
        return (self.message_ms or self.due_ms) if is_said else now_ms

    @property
    def date(self) -> date | None:
        """Returns the local date for which a daily one is due; None for another."""
        return None if self.daily is None else self.daily.date_of(self.due_ms)

    def next_after(self, now_ms: int) -> "Timer | None":
        """Returns it as it is due again after this time, on a later date; None if it is over. Raises NoSuchTime."""
        if self.every_ms:
            missed = max(0, now_ms - self.due_ms) // self.every_ms
            return msgspec.structs.replace(self, due_ms=self.due_ms + (missed + 1) * self.every_ms)
        if self.daily is None:
            return None
        due_ms, _ = self.daily.next_after(now_ms, self.date)
        return msgspec.structs.replace(self, due_ms=due_ms)

    def content(self) -> InboundMessage:
        """Returns what its job has for a message. `due_ms` in it: when it was due, which may be long ago."""
        return InboundMessage(
            message_id=self.job_id,
            conversation_id=self.conversation_id,
            conversation_type=self.conversation_type,
            sender_id=self.sender_id,
            sender_type=self.sender_type,
            sender_display_name=self.sender_display_name,
            payload=due_payload(self.kind, self.name, self.data, self.due_ms),
            hop_count=self.hop_count,
            group_metadata=self.group_metadata,
        )


class TimerRecord(msgspec.Struct, frozen=True, array_like=True):
    """A timer as it stands in the hash of its conversation, under its id."""

    schema: int
    conversation_id: str
    id: str
    due_ms: int
    sealed: bytes

    def place(self, agent_id: str) -> tuple[str, ...]:
        """Returns the place that its content is sealed for."""
        return (TIMERS, agent_id, self.conversation_id, self.id)


EVERY = "every "
"""What the name of a timer begins with that handlers declare; no reminder's name has a space."""


def keyed_id(conversation_id: str, key: str) -> str:
    """Returns the id of the timer with this key: setting it again replaces it. The key itself is the owner's and not in the clear."""
    return hashlib.sha256(f"{conversation_id}\x00{key}".encode()).hexdigest()[:ID_CHARACTERS]


def pack_timer(timer: Timer, *, key: BusKey, agent_id: str) -> bytes:
    """Seals a timer into its record."""
    record = TimerRecord(TIMER_SCHEMA, timer.conversation_id, timer.id, timer.due_ms, b"")
    sealed = key.seal(msgspec.msgpack.encode(timer), *record.place(agent_id))
    return msgspec.msgpack.encode(msgspec.structs.replace(record, sealed=sealed))


def pack_job_of(timer: Timer, now_ms: int, *, key: BusKey, agent_id: str, epoch: int | None = None) -> bytes:
    """Returns the record of the job that a timer becomes when it is fired."""
    return pack_placed_job(
        timer.kind,
        timer.content(),
        placed_ms=now_ms,
        key=key,
        agent_id=agent_id,
        message_ms=timer.says_at_ms(now_ms),
        epoch=epoch,
    )


def decode_timer_record(packed: bytes) -> TimerRecord:
    """Returns the readable part of a timer's record. Raises BadRecord; NewerRecord for one of a later version."""
    try:
        schema = msgspec.msgpack.decode(packed, type=_Schema).schema
        if schema > TIMER_SCHEMA:
            raise NewerRecord(f"timer: of schema {schema}, and this version of hashee-agent reads up to {TIMER_SCHEMA}")
        return msgspec.msgpack.decode(packed, type=TimerRecord)
    except UNREADABLE as error:
        raise BadRecord(f"timer: {error}") from None


def open_timer(packed: bytes, conversation_id: str, timer_id: str, *, key: BusKey, agent_id: str) -> Timer:
    """Opens the timer that stands in this place. Raises BadRecord; NewerRecord."""
    record = decode_timer_record(packed)
    place = TimerRecord(TIMER_SCHEMA, conversation_id, timer_id, 0, b"").place(agent_id)
    try:
        return msgspec.msgpack.decode(key.open(record.sealed, *place), type=Timer)
    except (SealBroken, *UNREADABLE) as error:
        raise BadRecord(f"timer {timer_id}: {error}") from None


class _Schema(msgspec.Struct, array_like=True):
    """The schema version, which every record begins with."""

    schema: int
