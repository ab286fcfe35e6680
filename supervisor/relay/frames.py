"""Every frame of PROTOCOL §2, and the mirror of them that people speak (§6): frozen values and their JSON.

This room decides what a well-formed frame is and nothing else: it opens no payload, orders nothing. A frame of an
unknown type is a value (`UnknownFrame`), a malformed one an error that never carries its content.
Fields that PROTOCOL marks [doc] are required; its [profile] fields are optional on input, and what cannot be read of them is absent.
"""

import re
from typing import Annotated, TypeVar, get_args

import msgspec

from host.unreadable import UNREADABLE
from supervisor.relay.answers import NotTaken, Text, without_misfits, without_unreadable
from supervisor.relay.ids import Id, IdOrEmpty, IdOrNone

MAX_SEQ = 2**53 - 1  # sequence numbers are counted in Lua and JSON, which hold integers exactly up to here

MAX_TYPE_CHARS = 64  # an unknown frame's type goes into logs and counters: a stranger's text is cut there

Seq = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]


class MalformedFrame(Exception):
    """Raised for a frame that is not what PROTOCOL §2 says. Names the type and the field, never a value."""

    def __init__(self, frame_type: str, field: str) -> None:
        super().__init__(f"malformed frame: type {frame_type}, at {field}")
        self.frame_type = frame_type
        self.field = field


class UnknownFrame(msgspec.Struct, frozen=True):
    """A frame of a type that this version does not know: counted and passed over."""

    frame_type: str


class _Frame(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """The base of all frames. Optional fields that are absent are left out of the JSON; unknown ones are passed over."""


# --- opening and heartbeat, both directions ------------------------------------------


class Auth(_Frame, frozen=True, tag="auth"):
    """The first frame of a client: an agent names itself, a person (§6) names the device."""

    token: str
    agent_id: IdOrNone = None
    device_id: IdOrNone = None

    def __repr__(self) -> str:
        return f"Auth(agent_id={self.agent_id!r}, device_id={self.device_id!r}, token=…)"


class AuthOk(_Frame, frozen=True, tag="auth.ok"):
    pass


class AuthError(_Frame, frozen=True, tag="auth.error"):
    """The relay's refusal of an `auth`. `reason` is `invalid_token` (permanent) or `connection_limit` (a fourth connection)."""

    reason: str
    message: str = ""
    i18n_key: str = ""


class Ping(_Frame, frozen=True, tag="ping"):
    pass


class Pong(_Frame, frozen=True, tag="pong"):
    pass


# --- relay to agent ------------------------------------------------------------------


class MessageNew(_Frame, frozen=True, tag="message.new"):
    """A message, pushed or polled. All but the envelope is the relay's word: order by `conversation_seq`, decide by nothing else."""

    conversation_id: Id
    message_id: Id
    sender_id: Id
    sender_type: str
    content_type: str
    encrypted_payload: str
    conversation_seq: Seq
    created_at: str
    conversation_type: str | None = None
    sender_device_id: IdOrNone = None
    sender_display_name: str | None = None


class ArtifactResponse(_Frame, frozen=True, tag="artifact_response"):
    """A person's answer to an artifact; numbered and ordered like a message."""

    conversation_id: Id
    message_id: Id
    sender_id: Id
    encrypted_payload: str
    conversation_seq: Seq
    created_at: str
    sender_device_id: IdOrNone = None


class MessageAck(_Frame, frozen=True, tag="message.ack"):
    client_message_id: Id
    message_id: Id
    conversation_seq: Seq


class MessageError(_Frame, frozen=True, tag="message.error"):
    """The relay's refusal of a frame. `retry_after` in seconds. `client_message_id` is empty where the refused frame had none."""

    code: str
    client_message_id: IdOrEmpty = ""
    message: str = ""
    retry_after: float | None = None


class MessageRead(_Frame, frozen=True, tag="message.read"):
    conversation_id: Id
    user_id: Id
    seq: Seq


class MessageRecalled(_Frame, frozen=True, tag="message.recalled"):
    message_id: Id
    conversation_id: Id
    recalled_by: Id


class StreamError(_Frame, frozen=True, tag="stream.error"):
    """The relay has ended a stream. `reason` is `timeout` or `limit`."""

    stream_id: Id
    reason: str


class Relation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `payload` of the relation frames and an entry of `GET /agents/:id/relations` (which has `status`).

    `public_key` and `signing_public_key` are base64 as the relay gave them: unchecked.
    """

    user_id: Id
    display_name: str | None = None
    avatar_url: str | None = None
    language: str | None = None
    referral_source: str | None = None
    public_key: str | None = None
    signing_public_key: str | None = None
    conversation_id: IdOrNone = None
    scopes: tuple[str, ...] = ()
    status: str | None = None


class RelationEstablished(_Frame, frozen=True, tag="relation.established"):
    payload: Relation


class RelationRevoked(_Frame, frozen=True, tag="relation.revoked"):
    """Somebody may talk to this agent no longer; the older `relation.terminated` decodes to this too."""

    payload: Relation


class _RelationTerminated(_Frame, frozen=True, tag="relation.terminated"):
    payload: Relation


class RelationSuspended(_Frame, frozen=True, tag="relation.suspended"):
    payload: Relation


class RelationRestored(_Frame, frozen=True, tag="relation.restored"):
    payload: Relation


class GroupKeyRotated(_Frame, frozen=True, tag="system.group_key_rotated"):
    group_id: Id
    key_version: Seq


class PrekeysLow(_Frame, frozen=True, tag="system.prekeys_low"):
    left: Seq = 0


class PlatformEvent(msgspec.Struct, frozen=True):
    """A frame of which only the name is documented, with its fields as they came. Nothing is done with it yet."""

    frame_type: str
    fields: dict[str, object]


PASSED_ON = frozenset(
    {
        "message.status_updated",
        "message.pinned",
        "reaction.update",
        "group.updated",
        "agent.governance",
        "artifact.expired",
        "session.invalidated",
        "auth.expiring",
    }
)

# --- agent to relay; the relay passes typing and streams on to people with `sender_id`


class MessageSend(_Frame, frozen=True, tag="message.send"):
    client_message_id: Id
    conversation_id: Id
    content_type: str
    encrypted_payload: str


class ArtifactAnswer(_Frame, frozen=True, tag="artifact_response"):
    """A person's side of `artifact_response`, acknowledged like a `message.send` (§6)."""

    client_message_id: Id
    conversation_id: Id
    encrypted_payload: str


class TypingStart(_Frame, frozen=True, tag="typing.start"):
    conversation_id: Id
    sender_id: IdOrNone = None


class TypingStop(_Frame, frozen=True, tag="typing.stop"):
    conversation_id: Id
    sender_id: IdOrNone = None


class StreamStart(_Frame, frozen=True, tag="stream.start"):
    stream_id: Id
    conversation_id: Id
    encrypted_payload: str
    sender_id: IdOrNone = None


class StreamDelta(_Frame, frozen=True, tag="stream.delta"):
    stream_id: Id
    conversation_id: Id
    seq: Seq
    encrypted_payload: str
    sender_id: IdOrNone = None


class StreamDone(_Frame, frozen=True, tag="stream.done"):
    stream_id: Id
    conversation_id: Id
    client_message_id: Id
    content_type: str
    encrypted_payload: str
    sender_id: IdOrNone = None


class StreamAbort(_Frame, frozen=True, tag="stream.abort"):
    stream_id: Id
    conversation_id: Id
    sender_id: IdOrNone = None


class MessageRecall(_Frame, frozen=True, tag="message.recall"):
    message_id: Id
    conversation_id: Id


class ReactionSet(_Frame, frozen=True, tag="reaction.set"):
    """Shows an emoji at a message, instead of the one before. `emoji` None: takes it back."""

    message_id: Id
    conversation_id: Id
    emoji: str | None


# --- who may say what -----------------------------------------------------------------------------

_KnownFromRelay = (
    AuthOk
    | AuthError
    | Ping
    | Pong
    | MessageNew
    | ArtifactResponse
    | MessageAck
    | MessageError
    | MessageRead
    | MessageRecalled
    | StreamError
    | RelationEstablished
    | RelationRevoked
    | RelationSuspended
    | RelationRestored
    | GroupKeyRotated
    | PrekeysLow
)
_Growing = TypingStart | TypingStop | StreamStart | StreamDelta | StreamDone | StreamAbort

FromRelay = _KnownFromRelay | PlatformEvent
"""What an agent may hear."""

ToPerson = FromRelay | _Growing
"""What a person may hear: also the agent's typing and streams."""

FromAgent = Auth | Ping | Pong | MessageSend | _Growing | MessageRecall | ReactionSet
FromPerson = Auth | Ping | Pong | MessageSend | ArtifactAnswer | TypingStart | TypingStop | MessageRecall

Frame = FromRelay | FromAgent | FromPerson
"""Any frame at all: what `encode` takes."""


class _TypeOnly(msgspec.Struct, frozen=True):
    type: str


_FIELD = re.compile(r" - at `(\$[^`]*)`")
_TO_AGENT = msgspec.json.Decoder(_KnownFromRelay | _RelationTerminated)
_TO_PERSON = msgspec.json.Decoder(_KnownFromRelay | _RelationTerminated | _Growing)
_BY_AGENT = msgspec.json.Decoder(FromAgent)
_BY_PERSON = msgspec.json.Decoder(FromPerson)


def encode(frame: Frame) -> str:
    """Returns the frame as one JSON text. Optional fields at their default are left out."""
    if isinstance(frame, PlatformEvent):
        return msgspec.json.encode({**frame.fields, "type": frame.frame_type}).decode()
    return msgspec.json.encode(frame).decode()


def decode_from_relay(text: str | Text) -> FromRelay | UnknownFrame:
    """Returns what the relay said to an agent, pushed or as an entry of a polled page. Raises `MalformedFrame`."""
    frame = _decode(_TO_AGENT, text)
    if isinstance(frame, _RelationTerminated):
        return RelationRevoked(frame.payload)
    return _passed_on(frame, text) if isinstance(frame, UnknownFrame) else frame


def decode_for_person(text: str | Text) -> ToPerson | UnknownFrame:
    """Returns what the relay said to a person. Raises `MalformedFrame`."""
    frame = _decode(_TO_PERSON, text)
    if isinstance(frame, _RelationTerminated):
        return RelationRevoked(frame.payload)
    return _passed_on(frame, text) if isinstance(frame, UnknownFrame) else frame


def decode_from_agent(text: str | Text) -> FromAgent | UnknownFrame:
    """Returns what an agent said to the relay. Raises `MalformedFrame`."""
    return _decode(_BY_AGENT, text)


def decode_from_person(text: str | Text) -> FromPerson | UnknownFrame:
    """Returns what a person said to the relay. Raises `MalformedFrame`."""
    return _decode(_BY_PERSON, text)


_T = TypeVar("_T")


def _decode(decoder: msgspec.json.Decoder[_T], text: str | Text) -> _T | UnknownFrame:
    try:
        return decoder.decode(text)
    except UNREADABLE:
        return _without_what_cannot_be_read(decoder, text)


def _without_what_cannot_be_read(decoder: msgspec.json.Decoder[_T], text: str | Text) -> _T | UnknownFrame:
    """Decodes once more, slowly, after a failure. Returns the frame without what cannot be read or does not fit, or an UnknownFrame.

    Raises `MalformedFrame` where the frame needs that.
    """
    try:
        readable = without_unreadable(text.encode() if isinstance(text, str) else text)
        frame_type = msgspec.json.decode(readable, type=_TypeOnly).type
    except (*UNREADABLE, NotTaken):
        raise MalformedFrame("unknown", "$") from None
    if frame_type not in _tags(decoder.type):
        return UnknownFrame(frame_type[:MAX_TYPE_CHARS])
    try:
        return without_misfits(decoder.decode, readable)
    except UNREADABLE as error:
        raise MalformedFrame(frame_type, _field_of(error)) from None


def _passed_on(unknown: UnknownFrame, text: str | Text) -> PlatformEvent | UnknownFrame:
    if unknown.frame_type not in PASSED_ON:
        return unknown
    readable = without_unreadable(text.encode() if isinstance(text, str) else text)
    fields = msgspec.json.decode(readable, type=dict[str, object])
    return PlatformEvent(unknown.frame_type, {name: fields[name] for name in fields if name != "type"})


def _tags(union: object) -> frozenset[str]:
    return frozenset(str(member.__struct_config__.tag) for member in get_args(union))


def _field_of(error: Exception) -> str:
    """Returns the path to the offending field. msgspec's own text may quote a value, so only the path is taken."""
    found = _FIELD.search(str(error))
    return found.group(1)[:MAX_TYPE_CHARS] if found else "$"
