"""What an authenticated client may ask for over its WebSocket, frame by frame, for agents and for people.

Each frame is handled to its end before the next one of that connection is read. A refusal is a `message.error`;
it never ends the connection.
"""

import msgspec
import trio

from sandbox.relay.faults import FaultKind
from sandbox.relay.hub import Connection, Hub
from sandbox.relay.records import Agent, Person
from sandbox.relay.state import Draft, Refused
from sandbox.relay.streams import Streams
from supervisor.relay.frames import (
    ArtifactAnswer,
    Auth,
    MessageAck,
    MessageError,
    MessageRecall,
    MessageRecalled,
    MessageSend,
    Ping,
    PlatformEvent,
    Pong,
    ReactionSet,
    StreamAbort,
    StreamDelta,
    StreamDone,
    StreamStart,
    TypingStart,
    TypingStop,
    UnknownFrame,
    decode_from_agent,
    decode_from_person,
)

SENDS_PER_SECOND = 5.0
BURST = 6.0
"""One more than a second's worth: what left in time may arrive bunched."""

MAX_ENVELOPE_CHARS = 1024 * 1024


class RateLimit:
    """A token bucket over all connections of one agent."""

    def __init__(self) -> None:
        self._tokens = BURST
        self._at = trio.current_time()

    def take(self) -> float:
        """0 if the send is within the limit, else the seconds after which the next one would be."""
        now = trio.current_time()
        self._tokens = min(BURST, self._tokens + (now - self._at) * SENDS_PER_SECOND)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / SENDS_PER_SECOND
        self._tokens -= 1
        return 0.0


class Sending:
    """What both kinds of client do the same way: store, acknowledge, deliver."""

    def __init__(self, hub: Hub, *, enforce_rate: bool) -> None:
        self.hub = hub
        self.enforce_rate = enforce_rate
        self._rates: dict[str, RateLimit] = {}

    def send(self, connection: Connection, draft: Draft, *, rate_limited: bool) -> None:
        try:
            self._check(connection, draft, rate_limited=rate_limited)
            message, is_new = self.hub.state.store(draft)
        except Refused as refused:
            self.hub.stats.count("sends_refused", connection.owner_id)
            connection.push(MessageError(refused.code, draft.client_message_id, refused.message, refused.retry_after))
            return
        ack = MessageAck(draft.client_message_id, message.message_id, message.seq)
        self.hub.stats.count("messages" if is_new else "repeats", connection.owner_id)
        self.hub.acknowledge(connection, ack)
        if is_new:
            conversation = self.hub.state.conversations[draft.conversation_id]
            self.hub.deliver(message, conversation, connection)

    def recall(self, connection: Connection, frame: MessageRecall) -> None:
        try:
            message = self.hub.state.recall(connection.owner_id, frame.message_id)
        except Refused as refused:
            connection.push(MessageError(refused.code, message=refused.message))
            return
        self.hub.stats.count("recalls", connection.owner_id)
        conversation = self.hub.state.conversations[message.conversation_id]
        recalled = MessageRecalled(message.message_id, message.conversation_id, connection.owner_id)
        connection.push(recalled)
        self.hub.to_people(conversation, recalled, connection)
        for agent_id in conversation.agents:
            if connection.owner_id != agent_id:
                self.hub.to_agent(agent_id, conversation.conversation_id, recalled)

    def react(self, connection: Connection, frame: ReactionSet) -> None:
        try:
            conversation = self.hub.state.conversation_for(connection.owner_id, frame.conversation_id)
            self.hub.state.message_in(frame.conversation_id, frame.message_id)
        except Refused as refused:
            connection.push(MessageError(refused.code, message=refused.message))
            return
        self.hub.stats.count("reactions", connection.owner_id)
        fields = {"message_id": frame.message_id, "conversation_id": frame.conversation_id}
        update = PlatformEvent("reaction.update", {**fields, "user_id": connection.owner_id, "emoji": frame.emoji})
        connection.push(update)
        self.hub.to_people(conversation, update, connection)

    def _check(self, connection: Connection, draft: Draft, *, rate_limited: bool) -> None:
        owner_id = connection.owner_id
        if len(draft.encrypted_payload) > MAX_ENVELOPE_CHARS:
            raise Refused(413, "413", "the envelope is too large")
        if fault := self.hub.fault(FaultKind.SEND_429, owner_id):
            raise Refused(429, "429", "too many messages", fault.retry_after)
        if self.hub.fault(FaultKind.SEND_500, owner_id):
            raise Refused(500, "500", "internal error")
        if rate_limited and (wait := self._rates.setdefault(owner_id, RateLimit()).take()):
            self.hub.stats.count("over_rate", owner_id)
            if self.enforce_rate:
                raise Refused(429, "429", "at most 5 messages a second", wait)


class AgentSession:
    def __init__(self, agent: Agent, connection: Connection, sending: Sending, streams: Streams) -> None:
        self._agent = agent
        self._connection = connection
        self._sending = sending
        self._hub = sending.hub
        self._streams = streams

    def hear(self, text: str) -> None:
        """Handles one frame. Raises `MalformedFrame`."""
        frame = decode_from_agent(text)
        match frame:
            case MessageSend():
                self._send(frame)
            case StreamDone():
                self._streams.done(self._connection, frame)
                self._send(frame)
            case StreamDelta():
                self._streams.delta(self._connection, frame)
            case StreamAbort():
                self._streams.abort(self._connection, frame)
            case StreamStart() | TypingStart() | TypingStop():
                self._in_conversation(frame)
            case MessageRecall():
                self._sending.recall(self._connection, frame)
            case ReactionSet():
                self._sending.react(self._connection, frame)
            case Ping():
                self._connection.push(Pong())
            case UnknownFrame():
                self._hub.stats.count("unknown_frames", self._connection.owner_id)
            case Pong() | Auth():
                pass

    def _send(self, frame: MessageSend | StreamDone) -> None:
        draft = Draft(
            sender_id=self._agent.agent_id,
            sender_type="agent",
            sender_device_id=self._agent.agent_id,
            sender_display_name=self._agent.display_name,
            client_message_id=frame.client_message_id,
            conversation_id=frame.conversation_id,
            content_type=frame.content_type,
            encrypted_payload=frame.encrypted_payload,
        )
        self._sending.send(self._connection, draft, rate_limited=True)

    def _in_conversation(self, frame: StreamStart | TypingStart | TypingStop) -> None:
        agent_id = self._agent.agent_id
        try:
            conversation = self._hub.state.conversation_for(agent_id, frame.conversation_id)
        except Refused as refused:
            self._connection.push(MessageError(refused.code, message=refused.message))
            return
        if isinstance(frame, StreamStart):
            self._streams.start(self._connection, conversation, frame)
            return
        self._hub.stats.count("typing", agent_id)
        self._hub.to_people(conversation, msgspec.structs.replace(frame, sender_id=agent_id))


class PersonSession:
    def __init__(self, person: Person, connection: Connection, sending: Sending) -> None:
        self._person = person
        self._connection = connection
        self._sending = sending
        self._hub = sending.hub

    def hear(self, text: str) -> None:
        """Handles one frame. Raises `MalformedFrame`."""
        frame = decode_from_person(text)
        match frame:
            case MessageSend():
                self._send(frame, frame.content_type, artifact=False)
            case ArtifactAnswer():
                self._send(frame, "artifact", artifact=True)
            case TypingStart() | TypingStop():
                self._typing(frame)
            case MessageRecall():
                self._sending.recall(self._connection, frame)
            case Ping():
                self._connection.push(Pong())
            case UnknownFrame():
                self._hub.stats.count("unknown_frames", self._connection.owner_id)
            case Pong() | Auth():
                pass

    def _send(self, frame: MessageSend | ArtifactAnswer, content_type: str, *, artifact: bool) -> None:
        draft = Draft(
            sender_id=self._person.user_id,
            sender_type="human",
            sender_device_id=self._connection.device_id,
            sender_display_name=self._person.display_name,
            client_message_id=frame.client_message_id,
            conversation_id=frame.conversation_id,
            content_type=content_type,
            encrypted_payload=frame.encrypted_payload,
            artifact=artifact,
        )
        self._sending.send(self._connection, draft, rate_limited=False)

    def _typing(self, frame: TypingStart | TypingStop) -> None:
        user_id = self._person.user_id
        try:
            conversation = self._hub.state.conversation_for(user_id, frame.conversation_id)
        except Refused:
            return
        if conversation.kind == "group":
            self._hub.to_people(conversation, msgspec.structs.replace(frame, sender_id=user_id), self._connection)
