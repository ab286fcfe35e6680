"""Who is connected, and what goes to whom: routing over an agent's connections, pushes, and the faults in them.

A push is a hint, never the only copy: whatever is lost here, `poll` and `messages` still have. It decides nothing
about who may talk to whom (`state.py`) and reads no sockets (`sockets.py`).
"""

import hashlib

import trio

from sandbox.relay.faults import FaultKind, FaultRequest, Faults
from sandbox.relay.records import Conversation, Message
from sandbox.relay.state import RelayState
from sandbox.relay.stats import Stats
from supervisor.relay.frames import Frame, encode

MAX_AGENT_CONNECTIONS = 3
MAX_QUEUED_FRAMES = 10_000
"""A client that stops reading loses its connection here rather than the relay its memory."""

REORDER_WAIT_SECONDS = 0.3
"""How long a frame held back for reordering waits for one to overtake it."""


class Connection:
    """The relay's end of one authenticated connection: a queue that one task writes out, in order."""

    def __init__(self, owner_id: str, device_id: str) -> None:
        self.owner_id = owner_id
        self.device_id = device_id
        self.heard_at = trio.current_time()
        self.close_code = 1000
        self.ended = trio.Event()
        self._queue, self.outgoing = trio.open_memory_channel[str](MAX_QUEUED_FRAMES)

    def push(self, frame: Frame) -> None:
        try:
            self._queue.send_nowait(encode(frame))
        except trio.WouldBlock:
            self.end(1013)

    def end(self, code: int) -> None:
        """The tasks that serve it stop soon; nothing more is written but the close frame."""
        if not self.ended.is_set():
            self.close_code = code
            self.ended.set()


class Hub:
    def __init__(self, state: RelayState, faults: Faults, stats: Stats, nursery: trio.Nursery) -> None:
        self.state = state
        self.faults = faults
        self.stats = stats
        self._nursery = nursery
        self._connections: dict[str, list[Connection]] = {}
        self._held_back: dict[str, tuple[Connection, Frame]] = {}

    # --- coming and going ---

    def is_full(self, agent_id: str) -> bool:
        return len(self._connections.get(agent_id, ())) >= MAX_AGENT_CONNECTIONS

    def join(self, connection: Connection) -> None:
        self._connections.setdefault(connection.owner_id, []).append(connection)
        self.stats.joined(connection.owner_id)

    def leave(self, connection: Connection) -> None:
        connections = self._connections.get(connection.owner_id, [])
        if connection in connections:
            connections.remove(connection)
            self.stats.left(connection.owner_id)
        connection.end(1000)

    def disconnect(self, owner_id: str | None, code: int) -> int:
        """Ends the connections of one owner, or of every agent; says how many there were."""
        owners = (
            [owner_id] if owner_id is not None else [owner for owner in self._connections if owner in self.state.agents]
        )
        return self._end(owners, code)

    def disconnect_all(self, code: int) -> int:
        return self._end(list(self._connections), code)

    def _end(self, owners: list[str], code: int) -> int:
        ended = 0
        for owner in owners:
            for connection in list(self._connections.get(owner, ())):
                connection.end(code)
                self.leave(connection)
                ended += 1
        return ended

    # --- pushing ---

    def fault(self, kind: FaultKind, owner_id: str) -> FaultRequest | None:
        """The fault that bites this owner now, if one is armed."""
        names = (None, owner_id) if owner_id in self.state.agents else (owner_id,)
        return self.faults.take(kind, names, trio.current_time())

    def deliver(self, message: Message, conversation: Conversation, sender: Connection | None) -> None:
        """Pushes a stored message to everyone in the conversation but the connection that sent it."""
        frame = message.frame()
        for agent_id in conversation.agents:
            if message.sender_id != agent_id:
                self.to_agent(agent_id, conversation.conversation_id, frame)
        if message.sender_id == conversation.agent_id or conversation.kind == "group":
            self.to_people(conversation, frame, sender)

    def to_people(self, conversation: Conversation, frame: Frame, sender: Connection | None = None) -> None:
        """To every connected device of every person in the conversation."""
        for member in conversation.members:
            for connection in self._connections.get(member, ()):
                if connection is not sender:
                    connection.push(frame)
                    self.stats.count("pushes", member)

    def to_agent(self, agent_id: str, conversation_id: str, frame: Frame) -> None:
        """To the one of the agent's connections that this conversation belongs to, with what faults are armed."""
        connection = self._route(agent_id, conversation_id)
        if connection is None:
            return
        if self.fault(FaultKind.LOSE_PUSHES, agent_id):
            self.stats.count("pushes_lost", agent_id)
            return
        if agent_id not in self._held_back and self.fault(FaultKind.REORDER, agent_id):
            self._held_back[agent_id] = (connection, frame)
            self._nursery.start_soon(self._release_later, agent_id)
            return
        self._push(connection, frame)
        self._release(agent_id)
        if self.fault(FaultKind.DUPLICATE, agent_id):
            self.stats.count("pushes_duplicated", agent_id)
            self._push(connection, frame)

    def notify_agent(self, agent_id: str, frame: Frame) -> None:
        """What belongs to no conversation: over the oldest connection, and no fault touches it."""
        for connection in self._connections.get(agent_id, ())[:1]:
            connection.push(frame)

    def acknowledge(self, connection: Connection, frame: Frame) -> None:
        """Answers a send on the connection it came by: now, later or never, as faults have it."""
        owner_id = connection.owner_id
        if self.fault(FaultKind.LOSE_ACKS, owner_id):
            self.stats.count("acks_lost", owner_id)
            return
        self.stats.count("acks", owner_id)
        delay = self.fault(FaultKind.DELAY_ACKS, owner_id)
        if delay is None:
            connection.push(frame)
        else:
            self.stats.count("acks_delayed", owner_id)
            self._nursery.start_soon(self._push_later, connection, frame, delay.delay_seconds)

    def _route(self, agent_id: str, conversation_id: str) -> Connection | None:
        connections = self._connections.get(agent_id)
        if not connections:
            return None
        digest = hashlib.sha256(conversation_id.encode()).digest()
        return connections[int.from_bytes(digest[:8], "big") % len(connections)]

    def _push(self, connection: Connection, frame: Frame) -> None:
        connection.push(frame)
        self.stats.count("pushes", connection.owner_id)

    def _release(self, agent_id: str) -> None:
        held = self._held_back.pop(agent_id, None)
        if held is not None:
            self.stats.count("pushes_reordered", agent_id)
            self._push(*held)

    async def _release_later(self, agent_id: str) -> None:
        await trio.sleep(REORDER_WAIT_SECONDS)
        self._release(agent_id)

    async def _push_later(self, connection: Connection, frame: Frame, seconds: float) -> None:
        await trio.sleep(seconds)
        connection.push(frame)
