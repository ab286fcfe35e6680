"""The relay's one copy of the truth: who exists, who may talk to whom, every message and its number.

Synchronous and without sockets: an operation is done, in memory and in storage, when it returns, so that no
other connection sees half of it. It trusts no claim of a sender; membership is asked of here.
"""

import secrets
import string
import uuid

import msgspec

from crypto.groups import MOST_VERSIONS_AHEAD
from sandbox.relay.records import (
    Agent,
    Attachment,
    Conversation,
    DeviceKeys,
    GroupKey,
    Message,
    OneTimePrekey,
    Person,
    Record,
    RelationRecord,
    age_seconds,
    iso_now,
)
from sandbox.relay.shelf import NamelessShelf, Shelf
from sandbox.relay.storage import Storage

RECALL_SECONDS = 120.0
TOKEN_CHARS = 40
MAX_DEVICES = 5
BASE62 = string.ascii_letters + string.digits


class Refused(Exception):
    """Something that this caller may not do or that does not exist: an HTTP status and a code for people to read."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


class Draft(msgspec.Struct, frozen=True):
    """A message on its way in: who sends what where."""

    sender_id: str
    sender_type: str
    sender_device_id: str
    sender_display_name: str
    client_message_id: str
    conversation_id: str
    content_type: str
    encrypted_payload: str
    artifact: bool = False


class RelayState:
    def __init__(self, storage: Storage, shelf: Shelf | None = None) -> None:
        self.storage = storage
        self.shelf: Shelf = shelf or NamelessShelf()
        self.agents: dict[str, Agent] = {}
        self.people: dict[str, Person] = {}
        self.conversations: dict[str, Conversation] = {}
        self.messages: dict[str, Message] = {}
        self.uploads: dict[str, Attachment] = {}
        self._attachments: dict[str, str] = {}
        self._people_by_token: dict[str, str] = {}
        self._agents_by_token: dict[str, str] = {}
        self._devices: dict[str, dict[str, DeviceKeys]] = {}
        self._relations: dict[tuple[str, str], RelationRecord] = {}
        self._group_keys: dict[str, GroupKey] = {}
        self._log: dict[str, list[str]] = {}
        self._inbox: dict[str, list[str]] = {}
        self._place: dict[tuple[str, str], int] = {}
        self._sent: dict[tuple[str, str], str] = {}
        for record in storage.load():
            self._index(record)

    # --- owners ---

    def add_agent(self, display_name: str, agent_id: str | None = None) -> Agent:
        """`agent_id`: of one that has keys and a store already (a drill of a backup); else a new one."""
        token = "hsk_" + "".join(secrets.choice(BASE62) for _ in range(TOKEN_CHARS))
        agent = Agent(agent_id or str(uuid.uuid4()), token, display_name)
        self._put(agent.agent_id, agent)
        return agent

    def add_person(self, display_name: str) -> Person:
        person = Person(str(uuid.uuid4()), secrets.token_urlsafe(24), display_name)
        self._put(person.user_id, person)
        return person

    def set_manifest(self, agent: Agent, manifest: dict[str, object]) -> Agent:
        changed = msgspec.structs.replace(agent, capability_manifest=manifest)
        self._put(agent.agent_id, changed)
        return changed

    def agent_by_token(self, token: str) -> Agent | None:
        agent_id = self._agents_by_token.get(token)
        return self.agents[agent_id] if agent_id else None

    def person_by_token(self, token: str) -> Person | None:
        user_id = self._people_by_token.get(token)
        return self.people[user_id] if user_id else None

    # --- public keys ---

    def register_device(self, keys: DeviceKeys, *, replace: bool = False) -> DeviceKeys:
        """Replaces the signed prekey and adds the one-time prekeys, or replaces them too. Raises `Refused` for a sixth device."""
        devices = self._devices.setdefault(keys.owner_id, {})
        known = devices.get(keys.device_id)
        if known is None and len(devices) >= MAX_DEVICES:
            raise Refused(409, "TOO_MANY_DEVICES", f"at most {MAX_DEVICES} devices")
        if known is not None and not replace:
            fresh = {prekey.id for prekey in keys.one_time_prekeys}
            kept = tuple(prekey for prekey in known.one_time_prekeys if prekey.id not in fresh)
            keys = msgspec.structs.replace(keys, one_time_prekeys=kept + keys.one_time_prekeys)
        self._put(f"{keys.owner_id}/{keys.device_id}", keys)
        return keys

    def devices_of(self, owner_id: str) -> tuple[DeviceKeys, ...]:
        return tuple(self._devices.get(owner_id, {}).values())

    def take_one_time_prekey(self, keys: DeviceKeys) -> tuple[OneTimePrekey | None, int]:
        """One of them, which no other caller gets, and how many are left."""
        if not keys.one_time_prekeys:
            return None, 0
        taken, *rest = keys.one_time_prekeys
        self._put(f"{keys.owner_id}/{keys.device_id}", msgspec.structs.replace(keys, one_time_prekeys=tuple(rest)))
        return taken, len(rest)

    def group_key(self, group_id: str) -> GroupKey | None:
        return self._group_keys.get(group_id)

    def put_group_key(self, key: GroupKey) -> None:
        known = self._group_keys.get(key.group_id)
        last = 0 if known is None else known.key_version
        # Further, and one member could leave no version for a next key.
        if not last < key.key_version <= last + MOST_VERSIONS_AHEAD:
            raise Refused(409, "KEY_VERSION", f"key versions only rise, by at most {MOST_VERSIONS_AHEAD}")
        self._put(key.group_id, key)

    # --- who talks to whom ---

    def relate(self, user_id: str, agent_id: str, scopes: tuple[str, ...]) -> RelationRecord:
        """The relation of the two, active, with a conversation that stays the same for good."""
        if user_id not in self.people or agent_id not in self.agents:
            raise Refused(404, "NOT_FOUND", "no such person or agent")
        known = self._relations.get((agent_id, user_id))
        if known is None:
            conversation = Conversation(str(uuid.uuid4()), "h2a", agent_id, (user_id,))
            self._put(conversation.conversation_id, conversation)
            relation = RelationRecord(user_id, agent_id, conversation.conversation_id, scopes)
        else:
            relation = msgspec.structs.replace(known, scopes=scopes, status="active")
        self._put(f"{agent_id}/{user_id}", relation)
        return relation

    def set_relation_status(self, user_id: str, agent_id: str, status: str) -> RelationRecord:
        known = self._relations.get((agent_id, user_id))
        if known is None:
            raise Refused(404, "NOT_FOUND", "no such relation")
        relation = msgspec.structs.replace(known, status=status)
        self._put(f"{agent_id}/{user_id}", relation)
        return relation

    def relations_of(self, agent_id: str) -> tuple[RelationRecord, ...]:
        return tuple(relation for relation in self._relations.values() if relation.agent_id == agent_id)

    def add_group(self, agent_id: str, members: tuple[str, ...], other_agents: tuple[str, ...] = ()) -> Conversation:
        agents = (agent_id, *other_agents)
        if any(agent not in self.agents for agent in agents) or any(member not in self.people for member in members):
            raise Refused(404, "NOT_FOUND", "no such person or agent")
        conversation = Conversation(
            str(uuid.uuid4()), "group", agent_id, members, str(uuid.uuid4()), other_agents=other_agents
        )
        self._put(conversation.conversation_id, conversation)
        return conversation

    def set_members(self, conversation_id: str, members: tuple[str, ...]) -> Conversation:
        """Changes who is in a group. Raises `Refused`."""
        known = self.conversations.get(conversation_id)
        if known is None or known.kind != "group" or any(member not in self.people for member in members):
            raise Refused(404, "NOT_FOUND", "no such group or person")
        changed = msgspec.structs.replace(known, members=members)
        self._put(conversation_id, changed)
        return changed

    def conversation_for(self, owner_id: str, conversation_id: str) -> Conversation:
        """The conversation, if this owner is in it and its relation stands. Raises `Refused`."""
        conversation = self.conversations.get(conversation_id)
        if conversation is None:
            raise Refused(404, "NOT_FOUND", "no such conversation")
        if owner_id not in conversation.agents and owner_id not in conversation.members:
            raise Refused(403, "NOT_A_MEMBER", "not a member of this conversation")
        if conversation.kind == "h2a":
            relation = self._relations.get((conversation.agent_id, conversation.members[0]))
            if relation is None or relation.status != "active":
                raise Refused(403, "NO_RELATION", "the relation is not active")
        return conversation

    # --- messages ---

    def store(self, draft: Draft) -> tuple[Message, bool]:
        """Stores and numbers it; a repeat of (sender, client_message_id) gives the first one and `False`."""
        known = self._sent.get((draft.sender_id, draft.client_message_id))
        if known is not None:
            return self.messages[known], False
        conversation = self.conversation_for(draft.sender_id, draft.conversation_id)
        message = Message(
            message_id=str(uuid.uuid4()),
            conversation_type=conversation.kind,
            seq=len(self._log.get(draft.conversation_id, ())) + 1,
            created_at=iso_now(),
            **msgspec.structs.asdict(draft),
        )
        self._put(message.message_id, message)
        return message, True

    def poll(self, agent_id: str, cursor: str | None, limit: int) -> tuple[list[Message], bool]:
        """What others said to the agent after `cursor`, oldest first, and whether there is more."""
        inbox = self._inbox.get(agent_id, [])
        start = 0
        if cursor is not None:
            last = self.messages.get(cursor)
            if last is None or agent_id not in self.conversations[last.conversation_id].agents:
                raise Refused(400, "INVALID_CURSOR", "cursor is not a message of this agent")
            start = self._place[agent_id, cursor] + 1
        page: list[Message] = []
        for place in range(start, len(inbox)):
            if len(page) == limit:
                return page, True
            message = self.messages[inbox[place]]
            if message.recalled_by is None:
                page.append(message)
        return page, False

    def messages_after(self, conversation_id: str, seq: int, limit: int) -> list[Message]:
        log = self._log.get(conversation_id, [])
        return [self.messages[message_id] for message_id in log[seq : seq + limit]]

    def message_in(self, conversation_id: str, message_id: str) -> Message:
        """The message, if it is one of this conversation. Raises `Refused`."""
        message = self.messages.get(message_id)
        if message is None or message.conversation_id != conversation_id:
            raise Refused(404, "NOT_FOUND", "no such message in this conversation")
        return message

    def recall(self, owner_id: str, message_id: str) -> Message:
        message = self.messages.get(message_id)
        if message is None or message.sender_id != owner_id:
            raise Refused(404, "NOT_FOUND", "no such message of this sender")
        if age_seconds(message.created_at) > RECALL_SECONDS:
            raise Refused(409, "RECALL_EXPIRED", "messages can be recalled within two minutes")
        recalled = msgspec.structs.replace(message, recalled_by=owner_id)
        self._put(message_id, recalled)
        return recalled

    # --- files ---

    def save_upload(self, upload: Attachment) -> None:
        self._put(upload.upload_id, upload)

    def forget_upload(self, upload: Attachment) -> None:
        """From now on it was never announced."""
        self._put(upload.upload_id, msgspec.structs.replace(upload, is_forgotten=True))

    def attachment(self, attachment_id: str) -> Attachment:
        """The upload that was confirmed as this attachment. Raises `Refused`."""
        upload = self.uploads.get(self._attachments.get(attachment_id, ""))
        if upload is None:
            raise Refused(404, "NOT_FOUND", "no such file")
        return upload

    # --- the index ---

    def _put(self, record_id: str, record: Record) -> None:
        self.storage.save(record_id, record)
        self._index(record)

    def _index(self, record: Record) -> None:
        match record:
            case Agent():
                self.agents[record.agent_id] = record
                self._agents_by_token[record.token] = record.agent_id
            case Person():
                self.people[record.user_id] = record
                self._people_by_token[record.access_token] = record.user_id
            case DeviceKeys():
                self._devices.setdefault(record.owner_id, {})[record.device_id] = record
            case RelationRecord():
                self._relations[record.agent_id, record.user_id] = record
            case Conversation():
                self.conversations[record.conversation_id] = record
            case GroupKey():
                self._group_keys[record.group_id] = record
            case Attachment():
                self._index_upload(record)
            case Message():
                self._index_message(record)

    def _index_upload(self, upload: Attachment) -> None:
        if upload.is_forgotten:
            self.uploads.pop(upload.upload_id, None)
            return
        self.uploads[upload.upload_id] = upload
        if upload.attachment_id is not None:
            self._attachments[upload.attachment_id] = upload.upload_id

    def _index_message(self, message: Message) -> None:
        if message.message_id not in self.messages:
            self._log.setdefault(message.conversation_id, []).append(message.message_id)
            self._sent[message.sender_id, message.client_message_id] = message.message_id
            for agent_id in self.conversations[message.conversation_id].agents:
                inbox = self._inbox.setdefault(agent_id, [])
                if message.sender_id != agent_id:
                    inbox.append(message.message_id)
                # The agent may use one of its own messages as a cursor: it stands after all that came before it.
                self._place[agent_id, message.message_id] = len(inbox) - 1
        self.messages[message.message_id] = message
