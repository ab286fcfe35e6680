"""What follows from reading a frame, as values: what is to be stored of it, or why nothing is. Reading itself is in reading.py."""

from collections.abc import Awaitable

import msgspec

from bus.records.records import COMMAND, InboundMessage, is_answer_to_card, pack_job, stands_apart
from bus.records.sealing import BusKey
from bus.steps.store import Arrival, ConversationSnapshot, InboundStore, Source, now_ms
from crypto.envelope import Envelope
from crypto.errors import DatedAhead, Unreadable
from crypto.records import DeviceRecord
from supervisor.inbound.incoming import Incoming
from supervisor.relay.payloads import LAST_HOP, answered_card

WORDS = "words"
CANCEL = "cancel"


class Readable(msgspec.Struct, frozen=True):
    """The message could be read. `job` None: nothing for a handler. `answer`: a reply of our own. `record`: what its session becomes.

    `begins_session`: the session that begins with it; b"" for none. `hops`: its hop_count. `is_overheard`: a group's, and not for us.
    `stops`: the card whose Stop button was pressed, or STOP_ALL; '' for neither. `answers`: the card that it answers, or `words` or `cancel`, by which a
    question that is a text may be answered, or any ended; '' for none.
    """

    arrival: Arrival
    payload_type: str
    job: bytes | None
    answer: bytes = b""
    record: DeviceRecord | None = None
    begins_session: bytes = b""
    hops: int = 0
    is_overheard: bool = False
    stops: str = ""
    answers: str = ""

    def __repr__(self) -> str:
        return f"Readable(message_id={self.arrival.message_id!r}, …)"


class Unread(msgspec.Struct, frozen=True):
    """The message could not be read. `plaintext`: sealed, if something was decrypted. `answer`: the first message of a new session.

    `waits_for`: the thing whose coming may make it readable (supervisor/peers/retry_triggers.py); '' for its sender.
    """

    arrival: Arrival
    error: Unreadable
    plaintext: bytes = b""
    answer: bytes = b""
    record: DeviceRecord | None = None
    waits_for: str = ""

    def __post_init__(self) -> None:
        """Keeps the error without its traceback, whose frames hold the message until cycles are collected, and without what it holds itself."""
        kind = DatedAhead if isinstance(self.error, DatedAhead) else Unreadable
        msgspec.structs.force_setattr(self, "error", kind(self.error.reason, self.error.detail))

    def __repr__(self) -> str:
        return f"Unread(message_id={self.arrival.message_id!r}, reason={self.error.reason.value!r}, …)"


class Old(msgspec.Struct, frozen=True):
    """The message is below its conversation's `next` and can no longer be read: most likely it was answered long ago."""

    arrival: Arrival
    reason: str


class Waits(msgspec.Struct, frozen=True):
    """The message waits at the relay: authentic and new behind others of its sender, or `by_itself`, for what the relay does not tell now.

    `otherwise`: what follows if too much waits there already, so that nobody else waits with it; None: all wait.
    """

    arrival: Arrival
    by_itself: bool = False
    otherwise: Unread | None = None


class Known(msgspec.Struct, frozen=True):
    """The message was taken in before, or is our own by way of another connection."""


Reading = Readable | Unread | Old | Waits | Known


def snapshot_of(store: InboundStore, incoming: Incoming, envelope: Envelope) -> Awaitable[ConversationSnapshot]:
    """Reads what Redis knows before the message is opened. Raises RedisFailed."""
    peer, seq = (envelope.sender_id, envelope.sender_device), incoming.frame.conversation_seq
    return store.look(envelope.conversation_id, peer, envelope.replay_id, seq)


def job_of(message: InboundMessage, arrival: Arrival, *, key: BusKey, agent_id: str) -> bytes:
    """Returns the record of the job that a handler gets."""
    return pack_job(
        message,
        seq=arrival.seq,
        accepted_ms=now_ms(),
        message_ms=arrival.message_ms,
        key=key,
        agent_id=agent_id,
        trace=arrival.trace,
        epoch=arrival.epoch,
    )


def answers_of(message: InboundMessage) -> str:
    """Returns the card that a message answers; WORDS or CANCEL, if it may answer a question that is a text, or end any; else ''."""
    if is_answer_to_card(message.payload):
        return answered_card(message.payload)
    if message.payload.get("type") != "text" or not message.text:
        return ""
    if stands_apart(message) != COMMAND:
        return WORDS
    return CANCEL if message.text.strip().lower() == f"/{CANCEL}" else ""


def is_for_a_handler(message: InboundMessage) -> bool:
    """Whether a handler may get it: it is no word of the protocol, and not one of agents that answer each other."""
    return message.payload.get("type") != "system" and message.hop_count < LAST_HOP


def without_the_relay(incoming: Incoming, error: Unreadable) -> Waits | Unread:
    """Returns what follows if the relay does not tell now what it takes to verify a message: it waits there, or stays in quarantine."""
    arrival = msgspec.structs.replace(incoming.arrival(), sender_id=incoming.frame.sender_id)
    return until_told(incoming, Unread(arrival, error))


def until_told(incoming: Incoming, unread: Unread) -> Waits | Unread:
    """Returns that a message waits at the relay for what that does not tell now; `unread` if it was in quarantine, and stays there."""
    return unread if incoming.source is Source.QUARANTINE else Waits(unread.arrival, by_itself=True, otherwise=unread)


def is_old(incoming: Incoming, snapshot: ConversationSnapshot) -> bool:
    """Whether the relay's order says that the message came before. Never of what stood in quarantine, or has waited at the relay."""
    return incoming.may_wait and incoming.frame.conversation_seq < snapshot.next_seq
