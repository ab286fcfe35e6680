"""What the relay tells an agent beside messages (PROTOCOL §2), as a handler sees it, and as the content of a job that is placed for it."""

from collections.abc import Mapping

import msgspec

from bus.records.records import NOWHERE, InboundMessage

EVENTS = frozenset(
    {
        *("relation.established", "relation.revoked", "relation.suspended", "relation.restored"),
        *("message.read", "message.recalled", "message.status_updated", "message.pinned", "reaction.update"),
        *("group.updated", "agent.governance", "artifact.expired", "session.invalidated", "auth.expiring"),
        *("stream.error", "system.group_key_rotated", "system.prekeys_low"),
    }
)
"""The names of all events, which are those of their frames."""

SYSTEM = "system"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the relay told. `fields`: all that it said, as it came: its word, which nobody has signed.

    `conversation_id` and `user_id` are None where the event names none.
    """

    name: str
    conversation_id: str | None = None
    user_id: str | None = None
    fields: Mapping[str, object] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Event(name={self.name!r}, conversation_id={self.conversation_id!r}, …)"


def content_of(
    event: Event, job_id: str, *, conversation_id: str = NOWHERE, kind: str = "h2a", person: str = ""
) -> InboundMessage:
    """Returns the content of the job that is placed for an event, in the conversation in which it runs."""
    return InboundMessage(
        message_id=job_id,
        conversation_id=conversation_id,
        conversation_type=kind,
        sender_id=person,
        sender_type=SYSTEM,
        payload={"event": msgspec.to_builtins(event)},
    )


def event_in(content: InboundMessage) -> Event:
    """Returns the event in the content of such a job. Raises msgspec.ValidationError."""
    return msgspec.convert(content.payload.get("event"), type=Event)
