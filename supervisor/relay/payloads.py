"""Payloads (PROTOCOL §4) on their way to a handler, and the ids and frames of what goes back. Pure: values in, values out."""

import re

import msgspec

from bus.records import ulid
from bus.records.records import STOP_ALL, InboundMessage, Payload, is_answer_to_card, mention_of
from crypto.envelope import Envelope
from supervisor.relay.frames import ArtifactResponse, MessageNew

MOST_HOPS = 2**31 - 1
"""A larger number is read as this one: whatever stands there, it fits into what we store."""

LAST_HOP = 3
"""A message with so many hops is given to no handler (PROTOCOL §4), so that two agents which answer each other come to an end."""


def inbound_message(frame: MessageNew | ArtifactResponse, envelope: Envelope, payload: Payload) -> InboundMessage:
    """Returns what the handler sees of a message. Where both say something, the signed envelope wins over the frame."""
    said = frame if isinstance(frame, MessageNew) else None
    return InboundMessage(
        message_id=frame.message_id,
        conversation_id=envelope.conversation_id,
        conversation_type=conversation_kind(frame),
        sender_id=envelope.sender_id,
        sender_type=sender_type_of(frame),
        sender_display_name=said.sender_display_name if said else None,
        payload=_in_new_names(payload),
        mentions=_strings(payload.get("mentions")),
        mention_all=payload.get("mention_all") is True,
        reply_to=_reply_to(payload),
        hop_count=hop_count(payload),
        created_at=frame.created_at,
        client_message_id=envelope.client_message_id,
        attachments=_objects(payload.get("attachments")),
        envelope_version=envelope.v,
    )


def without_mention(message: InboundMessage, agent_id: str) -> InboundMessage:
    """Returns a group's message with its text as a handler wants it: without the mention of this agent, which `mentions` keeps."""
    if mention_of(agent_id) not in message.text:
        return message
    text = re.sub(rf"{re.escape(mention_of(agent_id))}[,:]? ?", "", message.text).strip()
    mentions = [*message.mentions, *([] if agent_id in message.mentions else [agent_id])]
    return msgspec.structs.replace(message, payload={**message.payload, "text": text}, mentions=mentions)


def answered_card(payload: Payload) -> str:
    """Returns the id of the card, or of the tool call, that an answer to a card names; '' for none."""
    artifact = payload.get("artifact")
    if not isinstance(artifact, dict):
        return ""
    inside = artifact.get("payload")
    named = artifact.get("ref_artifact") or (inside.get("call_id") if isinstance(inside, dict) else None)
    return named if isinstance(named, str) else ""


def stopped_card(payload: Payload) -> str:
    """Returns the card whose Stop button (PROTOCOL §4.1: the action `cancel`) it says was pressed; '' for anything else."""
    artifact = payload.get("artifact")
    if not is_answer_to_card(payload) or not isinstance(artifact, dict):
        return ""
    card_id, inside = artifact.get("ref_artifact"), artifact.get("payload")
    is_stop = isinstance(inside, dict) and inside.get("action") == "cancel"
    return card_id if is_stop and isinstance(card_id, str) else ""


def stops(message: InboundMessage) -> str:
    """Returns what a message wants to stop: the card whose Stop button was pressed, STOP_ALL for the words `/stop`, else ''."""
    words = message.text.split(maxsplit=1) if message.payload.get("type") == "text" else []
    return STOP_ALL if words and words[0].lower() == STOP_ALL else stopped_card(message.payload)


def sender_type_of(frame: MessageNew | ArtifactResponse) -> str:
    """Returns `human`, `agent` or `system`: the relay's word."""
    return frame.sender_type if isinstance(frame, MessageNew) else "human"


def conversation_kind(frame: MessageNew | ArtifactResponse) -> str:
    """Returns `h2a`, `group` or `h2h`; h2a where the relay says nothing, or nothing that we know."""
    kind = frame.conversation_type if isinstance(frame, MessageNew) else None
    return kind if kind in ("h2a", "group", "h2h") else "h2a"


def payload_type_of(payload: Payload) -> str:
    """Returns the payload's `type`, which wins over the frame's content_type; `unknown` without one."""
    kind = payload.get("type")
    return kind if isinstance(kind, str) else "unknown"


def message_ms(client_message_id: str) -> int:
    """Returns the time in a client_message_id as Unix milliseconds, 0 when it is no ULID."""
    return ulid.time_ms(client_message_id) or 0


def _in_new_names(payload: Payload) -> Payload:
    renamed = dict(payload)
    if "text" not in renamed and isinstance(renamed.get("content"), str):
        renamed["text"] = renamed.pop("content")
    return renamed


def _reply_to(payload: Payload) -> str | None:
    reply_to = payload.get("reply_to")
    message_id = reply_to.get("message_id") if isinstance(reply_to, dict) else payload.get("quote_id")
    return message_id if isinstance(message_id, str) else None


def hop_count(payload: Payload) -> int:
    """Returns how many agents have answered an agent before this was said; 0 where the payload has no such number."""
    value = payload.get("hop_count")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(min(max(value, 0), MOST_HOPS))


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _objects(value: object) -> list[Payload]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
