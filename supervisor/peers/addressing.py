"""Checks for whom an envelope may be: its version by the kind of its conversation, its `to`, and the pins (PROTOCOL §5, §5.1).

Pure. A conversation's kind is the pinned one, else the frame's word, else what the signed version says; whatever the relay says
of a conversation that is pinned must agree with the pin.
"""

from typing import Final

from bus.records.records import GROUP
from bus.steps.store import ConversationSnapshot
from crypto.envelope import V1_1, Envelope, check_recipient
from crypto.errors import Reason, Unreadable
from supervisor.relay.frames import ArtifactResponse, MessageNew

KINDS: Final = frozenset({"h2a", GROUP, "h2h"})


def check_addressed(
    frame: MessageNew | ArtifactResponse, envelope: Envelope, snapshot: ConversationSnapshot, agent_id: str
) -> None:
    """Checks version, `to` and pins. Raises Unreadable `unsupported_version` (v1.1 outside a group, or another one in it) or `not_for_us`."""
    told = told_kind(frame)
    kind = snapshot.kind or told or (GROUP if envelope.v == V1_1 else "h2a")
    if (envelope.v == V1_1) != (kind == GROUP):
        raise Unreadable(Reason.UNSUPPORTED_VERSION, f"{envelope.v} in a conversation of kind {kind}")
    if kind == GROUP:
        _check_group(envelope, snapshot, agent_id)
    else:
        check_recipient(envelope, agent_id)
        if snapshot.kind is not None and snapshot.person != envelope.sender_id:
            raise Unreadable(Reason.NOT_FOR_US, "another person than this conversation's")
    if snapshot.kind is not None and told not in (None, snapshot.kind):
        raise Unreadable(Reason.NOT_FOR_US, "another kind than this conversation's")


def told_kind(frame: MessageNew | ArtifactResponse) -> str | None:
    """Returns the kind that the relay says a conversation has; None for one that is not known, and for an artifact_response."""
    kind = frame.conversation_type if isinstance(frame, MessageNew) else None
    return kind if kind in KINDS else None


def _check_group(envelope: Envelope, snapshot: ConversationSnapshot, agent_id: str) -> None:
    if envelope.to == agent_id:
        raise Unreadable(Reason.NOT_FOR_US, "not addressed to the group")
    check_recipient(envelope, agent_id, envelope.to if snapshot.person is None else snapshot.person)
