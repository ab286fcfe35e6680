"""Streams under way: passed on in order, never stored, ended after their time (PROTOCOL §1: 5 minutes, 30 s orphaned)."""

import msgspec
import trio

from sandbox.relay.hub import Connection, Hub
from sandbox.relay.records import Conversation
from supervisor.relay.frames import StreamAbort, StreamDelta, StreamDone, StreamError, StreamStart

MAX_STREAM_SECONDS = 300.0
ORPHAN_SECONDS = 30.0
FIRST_GROUP_SIZE_WITHOUT_STREAMS = 201


class StreamLimits(msgspec.Struct, frozen=True):
    max_seconds: float = MAX_STREAM_SECONDS
    orphan_seconds: float = ORPHAN_SECONDS


class _Live:
    def __init__(self, owner: Connection, conversation: Conversation) -> None:
        self.owner = owner
        self.conversation = conversation
        self.next_seq = 0
        self.started_at = trio.current_time()
        self.heard_at = self.started_at


class Streams:
    def __init__(self, hub: Hub, limits: StreamLimits) -> None:
        self._hub = hub
        self._limits = limits
        self._live: dict[str, _Live] = {}

    def start(self, owner: Connection, conversation: Conversation, frame: StreamStart) -> None:
        if len(conversation.members) >= FIRST_GROUP_SIZE_WITHOUT_STREAMS or frame.stream_id in self._live:
            owner.push(StreamError(frame.stream_id, "limit"))
            return
        self._live[frame.stream_id] = _Live(owner, conversation)
        self._hub.stats.count("streams_started", owner.owner_id)
        self._hub.to_people(conversation, msgspec.structs.replace(frame, sender_id=owner.owner_id))

    def delta(self, owner: Connection, frame: StreamDelta) -> None:
        """Passes on the next delta; one out of order or of no stream is counted and passed over."""
        live = self._of(owner, frame.stream_id)
        if live is None or frame.seq != live.next_seq:
            self._hub.stats.count("deltas_refused", owner.owner_id)
            return
        live.next_seq += 1
        live.heard_at = trio.current_time()
        self._hub.stats.count("deltas", owner.owner_id)
        self._hub.to_people(live.conversation, msgspec.structs.replace(frame, sender_id=owner.owner_id))

    def done(self, owner: Connection, frame: StreamDone) -> None:
        live = self._of(owner, frame.stream_id)
        if live is not None:
            del self._live[frame.stream_id]
            self._hub.stats.count("streams_done", owner.owner_id)
            self._hub.to_people(live.conversation, msgspec.structs.replace(frame, sender_id=owner.owner_id))

    def abort(self, owner: Connection, frame: StreamAbort) -> None:
        """Any connection of the agent may abort: the one that started it may be gone."""
        live = self._of(owner, frame.stream_id)
        if live is not None:
            self._hub.stats.count("streams_aborted", owner.owner_id)
            self._end(frame.stream_id, live)

    async def watch(self) -> None:
        """Ends what has run too long or has been silent too long."""
        while True:
            await trio.sleep(min(1.0, self._limits.orphan_seconds / 4))
            now = trio.current_time()
            for stream_id, live in list(self._live.items()):
                too_long = now - live.started_at > self._limits.max_seconds
                if too_long or now - live.heard_at > self._limits.orphan_seconds:
                    self._hub.stats.count("streams_expired", live.owner.owner_id)
                    self._hub.notify_agent(live.owner.owner_id, StreamError(stream_id, "timeout"))
                    self._end(stream_id, live)

    def _end(self, stream_id: str, live: _Live) -> None:
        del self._live[stream_id]
        sender_id = live.owner.owner_id
        conversation_id = live.conversation.conversation_id
        self._hub.to_people(live.conversation, StreamAbort(stream_id, conversation_id, sender_id=sender_id))

    def _of(self, owner: Connection, stream_id: str) -> _Live | None:
        live = self._live.get(stream_id)
        return live if live is not None and live.owner.owner_id == owner.owner_id else None
