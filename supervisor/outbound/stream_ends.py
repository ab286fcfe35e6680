"""Finds streams that no message will end, and ends them at the relay (DESIGN rule 15).

Whoever was to end a stream may be gone, or what it said lost: its supervisor, its connection, the run of its job, the live channel. What
cannot be lost is in Redis: the streams that were begun and not ended, and which run a conversation has. So each is ended within seconds;
one of a supervisor elsewhere, of which nobody here can tell whether it lives, by its age. An end may be told twice: the relay passes over
that of a stream which it does not show.
"""

from collections import deque

import trio

from bus.records import ulid
from bus.steps.outbox import Outbox
from bus.steps.store import now_ms
from host.instance import Instance
from supervisor.outbound.streams import MOST_STREAM_SECONDS, LiveStream, Streams
from supervisor.relay.connection import Connection
from supervisor.relay.frames import StreamAbort
from supervisor.settings.pauses import PAUSES, Pauses

MOST_AGAIN = 1000
"""Ends that are told once more, a hundred bytes each."""

OVER_MS = int(2 * MOST_STREAM_SECONDS * 1000)
"""At this age a stream is nobody's. Twice what one may take, since the clock that its id was made by need not agree with ours."""


class StreamEnds:
    """Looks after the streams that one supervisor has begun, and those of supervisors that are gone."""

    def __init__(
        self,
        streams: Streams,
        outbox: Outbox,
        connection: Connection,
        instance: Instance,
        pauses: Pauses = PAUSES,
    ) -> None:
        self._streams = streams
        self._outbox = outbox
        self._connection = connection
        self._instance = instance
        self._pauses = pauses
        self._missing: set[str] = set()
        self._again: deque[tuple[float, StreamAbort]] = deque(maxlen=MOST_AGAIN)

    def ended_for_another(self, stream_id: str, conversation_id: str) -> None:
        """Called when the end of a stream goes out that another supervisor shows: on its own connection the start may come later."""
        self._again.append(
            (trio.current_time() + self._pauses.stream_end_again, StreamAbort(stream_id, conversation_id))
        )

    async def look(self) -> None:
        """Called every second while connected. Raises NotConnected and RedisFailed; the next look does what is left."""
        shown = self._streams.shown()  # before Redis is asked, which knows each of them until it has ended
        noted = await self._outbox.open_streams()
        for conversation, note in noted.items():
            stream_id, _, holder = note.partition(" ")
            if self._is_orphan(stream_id, holder):
                await self._connection.send(StreamAbort(stream_id, conversation))
                await self._outbox.end_stream(conversation, note)
        missing = {one.stream_id for one in shown if noted.get(one.conversation_id) != self._note(one)}
        for stream in shown:
            # Another supervisor's end may have reached the relay before our start. Our own end is on its way: it has until the next look.
            ended_elsewhere = stream.stream_id in missing & self._missing
            if ended_elsewhere or (stream.stream_id not in missing and await self._is_given_up(stream)):
                await self._streams.give_up(stream)
        self._missing = missing
        for abort in [abort for due, abort in self._again if due <= trio.current_time()]:
            await self._connection.send(abort)
            self._again.popleft()

    def _note(self, stream: LiveStream) -> str:
        return f"{stream.stream_id} {self._outbox.consumer}"

    def _is_orphan(self, stream_id: str, holder: str) -> bool:
        if holder == self._outbox.consumer:
            return not self._streams.is_of_present_connection(stream_id)
        began_ms = ulid.time_ms(stream_id)
        return self._instance.knows_dead(holder) or (began_ms is not None and now_ms() - began_ms > OVER_MS)

    async def _is_given_up(self, stream: LiveStream) -> bool:
        """Whether its run is over and nothing waits to be sent that could end it. One of no run: whether the relay has ended it by itself."""
        quiet_seconds = trio.current_time() - stream.grown_at
        if not stream.run:
            return quiet_seconds >= self._pauses.stream_orphaned
        if quiet_seconds < self._pauses.stream_quiet:
            return False
        return not await self._outbox.may_end_stream(stream.conversation_id, stream.run)
