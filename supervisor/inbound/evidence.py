"""Makes what is kept of an unreadable message without its frame: what an operator can use, in less than a kilobyte and a half.

A frame is kept whole only while a retry may help (supervisor/peers/retry_triggers.py) and its sender's share of the quarantine has room.
"""

import hashlib

import msgspec
import structlog

from bus.steps.letters import Quarantined
from host.unreadable import UNREADABLE
from supervisor.relay.frames import ArtifactResponse, MalformedFrame, MessageNew, decode_from_relay

HEAD_BYTES = 256
"""Of the frame's beginning, and of each text of the relay's: enough to see what it is."""

MOST_PLAINTEXT_BYTES = 16_384
"""Kept of a payload that was decrypted in vain: enough to see what it is."""

log = structlog.get_logger()


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of a frame as the relay sent it: who sent it, when, how large it is, its SHA-256, its first bytes."""

    sender_device_id: str
    conversation_seq: int
    created_at: str
    encrypted_characters: int
    frame_bytes: int
    sha256: str
    head: str
    conversation_type: str = ""
    content_type: str = ""


def evidence_of(frame: MessageNew | ArtifactResponse, encoded: bytes) -> bytes:
    """Returns the evidence of a frame and its bytes, encoded as it stands in quarantine."""
    kind = (frame.conversation_type or "", frame.content_type) if isinstance(frame, MessageNew) else ("", "")
    return msgspec.json.encode(
        Evidence(
            sender_device_id=frame.sender_device_id or "",
            conversation_seq=frame.conversation_seq,
            created_at=frame.created_at[:HEAD_BYTES],
            encrypted_characters=len(frame.encrypted_payload),
            frame_bytes=len(encoded),
            sha256=hashlib.sha256(encoded).hexdigest(),
            head=encoded[:HEAD_BYTES].decode("utf-8", "replace"),
            conversation_type=kind[0][:HEAD_BYTES],
            content_type=kind[1][:HEAD_BYTES],
        )
    )


def decode_evidence(evidence: bytes) -> Evidence | None:
    """Returns what was kept; None if nothing was (by a former version) or a defect spoiled it."""
    try:
        return msgspec.json.decode(evidence, type=Evidence)
    except UNREADABLE:
        return None


def kept_frame(message: Quarantined) -> MessageNew | ArtifactResponse | None:
    """Returns the frame as the relay sent it; None if it is not kept whole, or cannot be decoded, which only a defect makes."""
    if not message.frame:
        return None
    try:
        frame = decode_from_relay(message.frame)
    except MalformedFrame as error:
        log.error("quarantine: the kept frame is not readable", message_id=message.message_id, field=error.field)
        return None
    return frame if isinstance(frame, MessageNew | ArtifactResponse) else None
