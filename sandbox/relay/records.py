"""What the relay keeps, as frozen values: owners, their public keys, conversations, messages.

A change is a new value put in the old one's place (`state.py`); `storage.py` writes the same values to disk.
"""

from datetime import UTC, datetime

import msgspec

from supervisor.relay.frames import ArtifactResponse, MessageNew


class SignedPrekey(msgspec.Struct, frozen=True):
    id: int
    public_key: str
    signature: str


class OneTimePrekey(msgspec.Struct, frozen=True):
    id: int
    public_key: str


class DeviceKeys(msgspec.Struct, frozen=True):
    """One device's public keys, base64 as it uploaded them. An agent's device id is its agent id."""

    owner_id: str
    device_id: str
    public_key: str
    signing_public_key: str
    signed_prekey: SignedPrekey
    one_time_prekeys: tuple[OneTimePrekey, ...]


class Agent(msgspec.Struct, frozen=True):
    agent_id: str
    token: str
    display_name: str
    connection_mode: str = "websocket"
    capability_manifest: dict[str, object] | None = None

    def __repr__(self) -> str:
        return f"Agent({self.agent_id})"


class Person(msgspec.Struct, frozen=True):
    user_id: str
    access_token: str
    display_name: str

    def __repr__(self) -> str:
        return f"Person({self.user_id})"


class RelationRecord(msgspec.Struct, frozen=True):
    user_id: str
    agent_id: str
    conversation_id: str
    scopes: tuple[str, ...]
    status: str = "active"


class Conversation(msgspec.Struct, frozen=True):
    """`kind` is `h2a` or `group`; `members` are the people in it. `other_agents`: a group's, besides `agent_id`."""

    conversation_id: str
    kind: str
    agent_id: str
    members: tuple[str, ...]
    group_id: str | None = None
    other_agents: tuple[str, ...] = ()

    @property
    def agents(self) -> tuple[str, ...]:
        """All of them."""
        return (self.agent_id, *self.other_agents)


class GroupKey(msgspec.Struct, frozen=True):
    group_id: str
    key_version: int
    envelope: str


class Message(msgspec.Struct, frozen=True):
    """A stored message. `artifact` says which of the two frames it goes out as."""

    message_id: str
    conversation_id: str
    conversation_type: str
    seq: int
    sender_id: str
    sender_type: str
    sender_device_id: str
    sender_display_name: str
    client_message_id: str
    content_type: str
    encrypted_payload: str
    created_at: str
    artifact: bool = False
    recalled_by: str | None = None

    def frame(self) -> MessageNew | ArtifactResponse:
        """The frame that delivers it, by push and by poll alike."""
        if self.artifact:
            return ArtifactResponse(
                conversation_id=self.conversation_id,
                message_id=self.message_id,
                sender_id=self.sender_id,
                encrypted_payload=self.encrypted_payload,
                conversation_seq=self.seq,
                created_at=self.created_at,
                sender_device_id=self.sender_device_id,
            )
        return MessageNew(
            conversation_id=self.conversation_id,
            message_id=self.message_id,
            sender_id=self.sender_id,
            sender_type=self.sender_type,
            content_type=self.content_type,
            encrypted_payload=self.encrypted_payload,
            conversation_seq=self.seq,
            created_at=self.created_at,
            conversation_type=self.conversation_type,
            sender_device_id=self.sender_device_id,
            sender_display_name=self.sender_display_name,
        )


class Attachment(msgspec.Struct, frozen=True):
    """An upload from its announcement on; confirmed ones have an `attachment_id`."""

    upload_id: str
    owner_id: str
    filename: str
    content_type: str
    size: int
    conversation_id: str
    attachment_id: str | None = None
    signature: str = ""
    is_forgotten: bool = False


Record = Agent | Person | DeviceKeys | RelationRecord | Conversation | GroupKey | Message | Attachment


def iso_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age_seconds(created_at: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(created_at)).total_seconds()
