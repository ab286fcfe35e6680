"""A reply on its way out, as values: taken, addressed, encrypted. None of them shows its content when printed."""

import msgspec

from bus.records.records import ACTS, Payload, Reply, ReplyRecord
from bus.steps.store import SessionWrite
from crypto.groups import GroupKeys
from crypto.records import DeviceRecord
from supervisor.peers.owners import Owner
from supervisor.relay.own_words import RENEWED, system_event

Recipient = Owner | GroupKeys


class Head(msgspec.Struct, frozen=True):
    """A reply that was taken: the head of its conversation's out-box."""

    entry_id: str
    record: ReplyRecord
    reply: Reply
    client_message_id: str

    def __repr__(self) -> str:
        return f"Head(entry_id={self.entry_id!r}, job_id={self.record.job_id!r}, place={self.record.place!r})"

    @property
    def answers(self) -> tuple[str, str]:
        """Job id and place: what the reply answers."""
        return self.record.job_id, self.record.place

    @property
    def begins_stream(self) -> bool:
        """Whether it shows that an answer begins, and is no answer itself."""
        return self.reply.kind == "stream_start"

    @property
    def trace(self) -> str:
        """What it is traced under; '' for what the relay does not acknowledge: the beginning of a stream, a recall, a reaction."""
        return "" if self.reply.kind in ("stream_start", *ACTS) else self.record.trace


class Addressed(msgspec.Struct, frozen=True):
    """A payload and where it goes: to a person's devices, or to a group under its highest key."""

    recipient: Recipient
    conversation_id: str
    conversation_type: str
    client_message_id: str
    payload: Payload
    new_session_with: str | None = None

    def __repr__(self) -> str:
        return f"Addressed(conversation_id={self.conversation_id!r}, client_message_id={self.client_message_id!r}, …)"

    @property
    def is_offer(self) -> bool:
        """Whether it opens sessions and says nothing else."""
        return system_event(self.payload) == RENEWED

    @property
    def recipient_id(self) -> str:
        """What stands in the envelope's `to`."""
        return self.recipient.group_id if isinstance(self.recipient, GroupKeys) else self.recipient.owner_id


class SealedFor(msgspec.Struct, frozen=True):
    """One envelope, the records that making it moved, the same sealed for its commit, and the epoch they are of."""

    encrypted_payload: str
    moved: list[DeviceRecord]
    writes: list[SessionWrite]
    epoch: int

    def __repr__(self) -> str:
        return f"SealedFor({len(self.moved)} devices)"


class CommittedReply(msgspec.Struct, frozen=True):
    """A reply whose commit has happened: what may leave, and the stream that the conversation showed before it ('' for none)."""

    sealed: SealedFor
    shown_stream_id: str
