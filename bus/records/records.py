"""The records that lie in Redis, and what a handler is given.

A record is a msgpack list: its schema version first, then what scripts and people may read (ids, seqs, times), then the
sealed body. Lua treats records as opaque bytes. One schema version back is read.

A job that no message began (a reminder, an event, a deadline) is *placed*. Its record is of PLACED_SCHEMA and names its kind, so that a
program that knows no such jobs leaves it to one that does; a message's record is the same as it always was.
"""

import contextlib
import hashlib
from typing import Literal, TypeVar, cast, get_args

import msgspec

from bus.records.sealing import BusKey, SealBroken
from host.unreadable import UNREADABLE

SCHEMA_VERSION = 1
PLACED_SCHEMA = 2
ACT_SCHEMA = 2
"""Of the record of an act, so that a supervisor that knows none leaves it to one that does."""

ACTS = ("recall", "reaction")
MOST_DELIVERIES = 20  # of all kinds together (DESIGN rule 8): what comes back more often is a dead letter

COMMAND = "command"
ANSWER = "answer"
"""How a message stands apart from what else is said to the agent; a JobRecord has the word in the clear, for scripts."""

STOP_ALL = "/stop"
"""What a person says who wants the answer that is being written to end; stands where else the card does whose Stop was pressed."""

AFTER_ALL = 2**53
"""The seq of a placed job: no message is later, so none interrupts it (`AFTER_ALL` in bus/scripts/_library.lua)."""
NOWHERE = "-"
"""The conversation of placed jobs that have none; they run one after the other, and nothing can be said there."""

PlacedKind = Literal["reminder", "event", "deadline"]
PLACED_KINDS = frozenset(get_args(PlacedKind))
JobKind = Literal["message", "reminder", "event", "deadline"]

AGENT_SENDER = "agent"
GROUP = "group"
"""The kind of a conversation of several people (PROTOCOL §4)."""

Payload = dict[str, object]


RUN = "run"
"""In the payload of a stream's start, whose content is made by who sends it: the entry of the run that makes the stream."""


class BadRecord(Exception):
    """A record in Redis that this program cannot read; the text names its kind and the reason."""


class NewerRecord(BadRecord):
    """A record that a later version of this program wrote: it is not damaged, and is left for that version."""


def mention_of(user_id: str) -> str:
    """Returns how somebody is mentioned in a text (PROTOCOL §4)."""
    return f"@<U:{user_id}>"


class InboundMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler sees of a message (PROTOCOL §4).

    `is_overheard`: people say it to each other, and it is no handler's unless it is the answer to a question.
    """

    message_id: str
    conversation_id: str
    conversation_type: str
    sender_id: str
    sender_type: str
    sender_display_name: str | None = None
    payload: Payload
    mentions: list[str] = msgspec.field(default_factory=list)
    mention_all: bool = False
    reply_to: str | None = None
    hop_count: int = 0
    created_at: str = ""
    client_message_id: str = ""
    group_metadata: Payload | None = None
    attachments: list[Payload] = msgspec.field(default_factory=list)
    envelope_version: str = ""
    is_overheard: bool = False

    def __repr__(self) -> str:
        return f"InboundMessage(message_id={self.message_id!r}, conversation_id={self.conversation_id!r}, …)"

    @property
    def answering_hops(self) -> int:
        """Returns the `hop_count` of a reply to this message."""
        return answering_hops(self.sender_type, self.hop_count)

    def mentions_agent(self, agent_id: str) -> bool:
        """Returns whether a group's message is for this agent: it mentions it, or everybody (PROTOCOL §4)."""
        return self.mention_all or agent_id in self.mentions or mention_of(agent_id) in self.text

    @property
    def text(self) -> str:
        """The text of a text message, else an empty string. In a group it is without the mention of the agent."""
        text = self.payload.get("text", self.payload.get("content", ""))
        return text if isinstance(text, str) else ""


SUSPECTED = -1
"""The strikes of a job that is one of many which ran when their worker died by itself (rule 8)."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One message to handle. `entry_id` is the fencing token (DESIGN rule 6).

    `strikes`: how many workers have died by themselves while they ran it alone or with few others (rule 8); a job with a strike runs alone.
    SUSPECTED: one has died that ran it with many; it runs with few others.
    `has_past`: it may be a dead letter that was brought back and has sent something before, or the answer that a thread waits for.
    `trace`: the parent span of the job and of its replies (bus/telemetry/traces.py); '' if nobody traces. `kind`: of a placed job what it
    is; then `message` has its content as payload, and its sender is who the conversation is with, '' in a group.
    `seq`: the message's place in its conversation. `continues`: the first job of the thread, if it is an earlier one. `epoch`: in which the
    thread's message was taken in; None where that is not known.
    """

    entry_id: str
    job_id: str
    conversation_id: str
    attempt: int
    deliveries: int
    accepted_ms: int
    message_ms: int
    message: InboundMessage
    strikes: int = 0
    has_past: bool = False
    trace: str = ""
    kind: JobKind = "message"
    seq: int = 0
    continues: str = ""
    epoch: int | None = None

    @property
    def thread_id(self) -> str:
        """Returns the id of the thread that it runs: its own, or that of an earlier job which it continues."""
        return self.continues or self.job_id

    @property
    def short_id(self) -> str:
        """Returns a name of the job that is short enough to stand in others: the same in every run of it."""
        return hashlib.sha256(self.job_id.encode()).hexdigest()[:16]

    @property
    def is_first_run(self) -> bool:
        """Returns True if no handler has begun with it before, so that nothing was sent for it."""
        return self.deliveries == 1 and not self.has_past


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler sends at one place of its job, or what the supervisor sends by itself (`system`).

    `new_session_with`: a device with which a new session is started for this reply.
    """

    kind: Literal["message", "stream_start", "stream_done", "system", "recall", "reaction"]
    content_type: str
    payload: Payload
    stream_id: str | None = None
    new_session_with: str | None = None

    def __repr__(self) -> str:
        return f"Reply(kind={self.kind!r}, content_type={self.content_type!r}, …)"


class JobRecord(msgspec.Struct, frozen=True, array_like=True):
    """A job as it lies in a mailbox and in `jobs`. `message_ms`: time in the inbound client_message_id (ULID).

    `sender_id`: against whose share of the waiting bytes it counts. `trace`: W3C traceparent of the span that received it; '' and not
    written if nobody traces. A former version wrote neither and ignores both. `kind`: '' for a message, and not written then.
    `apart`: COMMAND, ANSWER (to a card of ours) or '', and not written then: neither is handled together with other messages, and an answer
    neither interrupts nor is interrupted. `taken_in`: one more than the epoch in which it was taken in, 0 if that is not known; a former version
    wrote none.
    """

    schema: int
    job_id: str
    conversation_id: str
    seq: int
    accepted_ms: int
    message_ms: int
    sealed: bytes
    sender_id: str = ""
    trace: str = ""
    kind: str = ""
    apart: str = ""
    taken_in: int = 0


class ReplyRecord(msgspec.Struct, frozen=True, array_like=True):
    """A reply as it lies in an out-box and in `replies`. `trace`: the span that made it, as in JobRecord."""

    schema: int
    job_id: str
    conversation_id: str
    place: str
    message_ms: int
    emitted_ms: int
    sealed: bytes
    trace: str = ""


class OutboxRecord(msgspec.Struct, frozen=True, array_like=True):
    """The exact bytes of one committed send, kept until the relay has acknowledged them."""

    schema: int
    client_message_id: str
    conversation_id: str
    content_type: str
    encrypted_payload: str
    stream_id: str | None
    conversation_type: str
    payload_type: str
    emitted_ms: int


class SentNote(msgspec.Struct, frozen=True, array_like=True):
    """The part of an outbox record that its confirmation needs, so that the long record is not read again.

    `trace`: the span that made the reply, as in JobRecord.
    """

    emitted_ms: int
    conversation_type: str
    payload_type: str
    trace: str = ""

    @classmethod
    def of(cls, record: OutboxRecord, trace: str = "") -> "SentNote":
        """Makes the note of an outbox record."""
        return cls(record.emitted_ms, record.conversation_type, record.payload_type, trace)


_ALWAYS_WRITTEN = {JobRecord: 8, ReplyRecord: 7, SentNote: 3}
"""How many of a record's fields are written though they are empty."""


def encode_record(record: JobRecord | ReplyRecord | SentNote) -> bytes:
    """Encodes a record for Redis. Fields at the end that are empty are left out: the bytes are those of a version that knew none of them."""
    parts = msgspec.structs.astuple(record)
    least = _ALWAYS_WRITTEN[type(record)]
    while len(parts) > least and not parts[-1]:
        parts = parts[:-1]
    return msgspec.msgpack.encode(parts)


def pack_job(
    message: InboundMessage,
    *,
    seq: int,
    accepted_ms: int,
    message_ms: int,
    key: BusKey,
    agent_id: str,
    trace: str = "",
    epoch: int | None = None,
) -> bytes:
    """Seals a message into the record that `accept` puts into the mailbox. `epoch`: in which it is taken in."""
    sealed = key.seal(msgspec.msgpack.encode(message), "job", agent_id, message.message_id)
    record = JobRecord(
        SCHEMA_VERSION,
        message.message_id,
        message.conversation_id,
        seq,
        accepted_ms,
        message_ms,
        sealed,
        message.sender_id,
        trace,
        apart=stands_apart(message),
        taken_in=_taken_in(epoch),
    )
    return encode_record(record)


def _taken_in(epoch: int | None) -> int:
    return 0 if epoch is None else epoch + 1


def stands_apart(message: InboundMessage) -> str:
    """Returns COMMAND for a text that begins with a slash, ANSWER for an answer to a card, '' for all else."""
    if message.payload.get("type") == "text":
        return COMMAND if message.text.lstrip().startswith("/") else ""
    return ANSWER if is_answer_to_card(message.payload) else ""


def is_answer_to_card(payload: Payload) -> bool:
    """Returns whether it answers a card or a tool call of ours (PROTOCOL §4.1)."""
    artifact = payload.get("artifact")
    subtype = artifact.get("subtype") if isinstance(artifact, dict) else None
    return payload.get("type") == "artifact" and subtype in ("response", "tool_response")


def pack_placed_job(
    kind: PlacedKind,
    content: InboundMessage,
    *,
    placed_ms: int,
    key: BusKey,
    agent_id: str,
    trace: str = "",
    message_ms: int | None = None,
    epoch: int | None = None,
) -> bytes:
    """Seals a job that no message began into its record; `content.message_id` is the job's id.

    `message_ms`: the time in the ids of its replies; None for that of its placing. With the same id and time the relay passes over what it has had.
    It counts against nobody's share of what waits: its record names no sender.
    """
    sealed = key.seal(msgspec.msgpack.encode(content), "job", agent_id, content.message_id)
    return encode_record(
        JobRecord(
            PLACED_SCHEMA,
            content.message_id,
            content.conversation_id,
            AFTER_ALL,
            placed_ms,
            placed_ms if message_ms is None else message_ms,
            sealed,
            "",
            trace,
            kind,
            taken_in=_taken_in(epoch),
        )
    )


def unpack_job(
    packed: bytes,
    *,
    entry_id: str,
    attempt: int,
    deliveries: int,
    key: BusKey,
    agent_id: str,
    strikes: int = 0,
    has_past: bool = False,
) -> Job:
    """Opens a record of `jobs`; raises BadRecord."""
    record = decode_job_record(packed)
    message = _open_message(record, key, agent_id)
    return Job(
        entry_id=entry_id,
        job_id=record.job_id,
        conversation_id=record.conversation_id,
        attempt=attempt,
        deliveries=deliveries,
        accepted_ms=record.accepted_ms,
        message_ms=record.message_ms,
        message=message,
        strikes=strikes,
        has_past=has_past,
        trace=record.trace,
        kind=cast("JobKind", record.kind or "message"),
        seq=record.seq,
        epoch=record.taken_in - 1 if record.taken_in else None,
    )


def open_job(packed: bytes, *, key: BusKey, agent_id: str) -> InboundMessage:
    """Returns the message in a job's record; raises BadRecord."""
    return _open_message(decode_job_record(packed), key, agent_id)


def message_of(record: JobRecord, *, key: BusKey, agent_id: str) -> InboundMessage | None:
    """Returns the message of a job's record; None if it does not open."""
    try:
        return _open_message(record, key, agent_id)
    except BadRecord:
        return None


def _open_message(record: JobRecord, key: BusKey, agent_id: str) -> InboundMessage:
    try:
        body = key.open(record.sealed, "job", agent_id, record.job_id)
        return msgspec.msgpack.decode(body, type=InboundMessage)
    except (SealBroken, *UNREADABLE) as error:
        raise BadRecord(f"job {record.job_id}: {error}") from None


def answering_hops(sender_type: str, hop_count: int) -> int:
    """Returns the `hop_count` of a reply: one more than the message's own if an agent sent it, 0 for a person's (PROTOCOL §4)."""
    return hop_count + 1 if sender_type == AGENT_SENDER or hop_count else 0


def with_hops(payload: Payload, hops: int) -> Payload:
    """Returns the payload with this `hop_count`, unchanged for 0."""
    return {**payload, "hop_count": hops} if hops else payload


def decode_job_record(packed: bytes) -> JobRecord:
    """Returns the readable part of a job's record; raises BadRecord."""
    record = _decode(packed, JobRecord, "job", newest=PLACED_SCHEMA)
    if record.kind and record.kind not in PLACED_KINDS:
        raise NewerRecord(f"job: of kind {record.kind[:32]!r}, which this version of hashee-agent does not know")
    return record


class ReplyPlace(msgspec.Struct, frozen=True):
    """The conversation, job and place of a reply. `message_ms`: time of the message that it answers."""

    job_id: str
    conversation_id: str
    place: str
    message_ms: int


def pack_reply(at: ReplyPlace, reply: Reply, *, emitted_ms: int, key: BusKey, agent_id: str, trace: str = "") -> bytes:
    """Seals a reply into the record that `emit` puts into the out-box."""
    sealed = key.seal(msgspec.msgpack.encode(reply), "reply", agent_id, at.job_id, at.place)
    schema = ACT_SCHEMA if reply.kind in ACTS else SCHEMA_VERSION
    record = ReplyRecord(schema, at.job_id, at.conversation_id, at.place, at.message_ms, emitted_ms, sealed, trace)
    return encode_record(record)


def decode_reply_record(packed: bytes) -> ReplyRecord:
    """Returns the readable part of a reply's record; raises BadRecord."""
    return _decode(packed, ReplyRecord, "reply", newest=ACT_SCHEMA)


def open_reply(record: ReplyRecord, *, key: BusKey, agent_id: str) -> Reply:
    """Opens the reply in its record; raises BadRecord."""
    try:
        body = key.open(record.sealed, "reply", agent_id, record.job_id, record.place)
        return msgspec.msgpack.decode(body, type=Reply)
    except (SealBroken, *UNREADABLE) as error:
        raise BadRecord(f"reply {record.place} of job {record.job_id}: {error}") from None


def decode_outbox_record(packed: bytes) -> OutboxRecord:
    """Decodes an outbox record; raises BadRecord."""
    return _decode(packed, OutboxRecord, "outbox")


def decode_sent_note(packed: bytes) -> SentNote:
    """Decodes the note of a committed send; raises BadRecord."""
    try:
        return msgspec.msgpack.decode(packed, type=SentNote)
    except UNREADABLE as error:
        raise BadRecord(f"note of a send: {error}") from None


Record = TypeVar("Record", JobRecord, ReplyRecord, OutboxRecord)


def _decode(packed: bytes, shape: type[Record], kind: str, *, newest: int = SCHEMA_VERSION) -> Record:
    try:
        record = msgspec.msgpack.decode(packed, type=shape)
    except UNREADABLE as error:
        raise _newer(packed, kind, newest) or BadRecord(f"{kind}: {error}") from None
    if not SCHEMA_VERSION - 1 <= record.schema <= newest:
        unknown = BadRecord(f"{kind}: schema version {record.schema} is not known to this program")
        raise _newer(packed, kind, newest) or unknown
    return record


class _Schema(msgspec.Struct, array_like=True):
    """The schema version, which every record begins with."""

    schema: int


def _newer(packed: bytes, kind: str, newest: int) -> NewerRecord | None:
    with contextlib.suppress(*UNREADABLE):
        schema = msgspec.msgpack.decode(packed, type=_Schema).schema
        if schema > newest:
            return NewerRecord(f"{kind}: of schema {schema}, and this version of hashee-agent reads up to {newest}")
    return None


class LiveDelta(msgspec.Struct, frozen=True, tag="delta"):
    """A piece of a streamed text, for the supervisor that started the stream."""

    conversation_id: str
    stream_id: str
    seq: int
    text: str

    def __repr__(self) -> str:
        return f"LiveDelta(stream_id={self.stream_id!r}, seq={self.seq}, …)"


class LiveTyping(msgspec.Struct, frozen=True, tag="typing"):
    """A handler has begun or stopped to work on an answer."""

    conversation_id: str
    active: bool


class LiveAbort(msgspec.Struct, frozen=True, tag="abort"):
    """The stream that a conversation is shown has ended early: its job was interrupted, or lost its worker. `stream_id`: only this one, if it is named."""

    conversation_id: str
    stream_id: str = ""


Live = LiveDelta | LiveTyping | LiveAbort


def pack_live(live: Live, *, key: BusKey, agent_id: str) -> bytes:
    """Seals a message of the live channel."""
    return key.seal(msgspec.msgpack.encode(live), "live", agent_id)


def unpack_live(packed: bytes, *, key: BusKey, agent_id: str) -> Live:
    """Opens a message of the live channel; raises BadRecord."""
    try:
        live: Live = msgspec.msgpack.decode(key.open(packed, "live", agent_id), type=Live)
        return live
    except (SealBroken, *UNREADABLE) as error:
        raise BadRecord(f"live: {error}") from None
