"""Shows streamed answers while they grow (PROTOCOL §5.8, DESIGN rule 15): best effort, since the message at the end has the whole text.

A stream belongs to the connection that sent `stream.start`. Its key lives here, in memory, and ends with it. Deltas come over the live
channel and may overtake the start: they wait for it a moment.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio

from bus.records import ulid
from bus.records.records import BadRecord, Live, LiveAbort, LiveDelta, LiveTyping, pack_live, unpack_live
from bus.records.sealing import BusKey
from bus.steps.outbox import Outbox
from bus.steps.store import now_ms
from bus.transport.acquire import acquire
from bus.transport.wire import RedisFailed
from crypto.envelope import V1_2
from crypto.errors import TooLarge
from crypto.identity import LocalDevice
from crypto.streams import StreamKey, seal_delta
from host.lines import MOST_TAGS_SAID
from supervisor.observe.metrics import Metrics
from supervisor.relay.connection import Connection, NotConnected
from supervisor.relay.frames import Frame, StreamAbort, StreamDelta, TypingStart, TypingStop

MOST_WAITING = 500
"""Messages of the live channel that wait at most: more come only if the relay is slower than the workers, and then most are stale."""

MOST_WAITING_BYTES = 4 << 20
"""Bytes of what waits. A delta is at most 100,000 characters; most are a few words."""

MOST_STREAM_SECONDS = 300.0
"""After so long a stream is shown no further: its job was given up, or its text comes whole."""

EARLY_SECONDS = 5.0
"""So long deltas wait for their stream's start, which goes through Redis and a commit."""

MOST_EARLY_DELTAS = 200
"""Of one stream: five seconds' worth of them, merged for 200 ms each, eight times over."""

MOST_EARLY_CHARACTERS = 1_000_000
"""Of all streams together, at most 4 MB."""

MOST_EARLY_STREAMS = 200
"""Most of them are other supervisors' streams: every supervisor hears every delta, and one of them sends it."""

log = structlog.get_logger()


class LiveStream:
    """One stream that this supervisor has started."""

    def __init__(
        self,
        stream_id: str,
        conversation_id: str,
        *,
        answer: tuple[str, str],
        to: str,
        key: StreamKey,
        connection_number: int,
        run: str = "",
        v: str = V1_2,
    ) -> None:
        """`answer`: job id and place of the reply that it shows; `connection_number`: of the connection that began it.

        `run`: the entry of its job's run; '' if a worker of a former version does not say it.
        """
        self.stream_id = stream_id
        self.conversation_id = conversation_id
        self.to = to
        self.v = v
        self.key = key
        self.connection_number = connection_number
        self.answer = answer
        self.run = run
        self.next_seq = 0
        self.started_at = self.grown_at = trio.current_time()


class Streams:
    """Shows the streams that one supervisor has started, and passes on typing."""

    def __init__(
        self,
        device: LocalDevice,
        bus_key: BusKey,
        connection: Connection,
        outbox: Outbox,
        metrics: Metrics,
        *,
        speaks: Callable[[], bool] = lambda: True,
    ) -> None:
        """`speaks`: whether typing, which every supervisor hears of, goes out from this one."""
        self._device = device
        self._outbox = outbox
        self._bus_key = bus_key
        self._connection = connection
        self._metrics = metrics
        self._speaks = speaks
        self._by_conversation: dict[str, LiveStream] = {}
        self._beginning: dict[str, trio.Event] = {}
        self._expected: dict[str, tuple[int, float]] = {}
        self._early: dict[str, tuple[float, list[LiveDelta]]] = {}
        self._waiting_bytes = 0
        self._order = trio.Lock()
        self._said: set[str] = set()
        self._send, self._receive = trio.open_memory_channel[bytes](MOST_WAITING)

    def heard(self, packed: bytes) -> None:
        """Called with each message of the live channel. Too many at once are passed over and counted."""
        has_room = self._waiting_bytes + len(packed) <= MOST_WAITING_BYTES
        try:
            if has_room:
                self._send.send_nowait(packed)
                self._waiting_bytes += len(packed)
        except trio.WouldBlock:
            has_room = False
        if not has_room:
            self._metrics.frames_dropped.labels("live_overflow").inc()

    async def run(self) -> None:
        """Passes on what is heard, until cancelled."""
        async for packed in self._receive:
            self._waiting_bytes -= len(packed)
            try:
                live = unpack_live(packed, key=self._bus_key, agent_id=self._device.owner_id)
            except BadRecord as error:
                self._pass_over(str(error))
                continue
            if isinstance(live, LiveTyping):
                await self._type(live)
            elif isinstance(live, LiveAbort):
                async with self._order:
                    await self._abort_one(live)
            else:
                async with self._order:
                    await self._grow(live)

    async def _abort_one(self, live: LiveAbort) -> None:
        stream = self._by_conversation.get(live.conversation_id)
        if stream is not None and live.stream_id in ("", stream.stream_id):
            await self.abort(live.conversation_id)

    def _pass_over(self, reason: str) -> None:
        """Counts what a worker of a later release says, or a stranger; logs each reason once."""
        self._metrics.frames_dropped.labels("live_unreadable").inc()
        if reason not in self._said and len(self._said) < MOST_TAGS_SAID:
            self._said.add(reason)
            log.warning("live: not readable, passed over", reason=reason)

    @asynccontextmanager
    async def beginning(self, conversation_id: str, stream_id: str) -> AsyncIterator[None]:
        """Within the block a stream's start is committed and sent.

        The commit lets the conversation's next reply go: until the block has ended, that waits if it begins a stream or ends one.
        From the commit on the stream belongs to the present connection, and is no orphan.
        """
        former, begun = self._beginning.get(conversation_id), trio.Event()
        self._beginning[conversation_id] = begun
        try:
            if former is not None:
                await former.wait()
            now = trio.current_time()
            self._expected = {one: kept for one, kept in self._expected.items() if self._is_present(*kept)}
            self._expected[stream_id] = (self._connection.number, now)
            yield
        finally:
            begun.set()
            if self._beginning.get(conversation_id) is begun:
                del self._beginning[conversation_id]

    def is_of_present_connection(self, stream_id: str) -> bool:
        """Whether the stream was begun here, on the connection that there is, not too long ago, and was not given up."""
        return stream_id in self._expected and self._is_present(*self._expected[stream_id])

    def shown(self) -> list[LiveStream]:
        """Returns the streams that are shown now: all were committed."""
        return list(self._by_conversation.values())

    async def begin(self, stream: LiveStream, start: Frame) -> bool:
        """Aborts an older stream of the conversation, sends `start`, then the deltas that came early. False without a connection.

        The caller is within `beginning`.
        """
        await acquire(self._order)
        try:
            await self.abort(stream.conversation_id)
            # One that is never ended, since its job was given up, does not keep its key for ever.
            self._by_conversation = {key: kept for key, kept in self._by_conversation.items() if self._is_alive(kept)}
            self._by_conversation[stream.conversation_id] = stream
            if not await self._try_send(start):
                del self._by_conversation[stream.conversation_id]
                return False
            _, early = self._early.pop(stream.stream_id, (0.0, []))
            for delta in early:
                await self._grow(delta)
            return True
        finally:
            self._order.release()

    async def end(self, conversation_id: str, answer: tuple[str, str], stream_id: str | None) -> bool:
        """Ends what is shown of an answer before its whole text goes out. True if that goes as its stream's end, False if as a plain message.

        Waits until the stream's start and what was heard of it have gone. A stream that a first run of the job began is aborted.
        """
        if (beginning := self._beginning.get(conversation_id)) is not None:
            await beginning.wait()
        if not self._shows(conversation_id, answer):
            return False
        async with self._order:
            return self._shows(conversation_id, answer) and await self._end(conversation_id, stream_id)

    def _shows(self, conversation_id: str, answer: tuple[str, str]) -> bool:
        stream = self._by_conversation.get(conversation_id)
        return stream is not None and stream.answer == answer

    async def _end(self, conversation_id: str, stream_id: str | None) -> bool:
        stream = self._by_conversation[conversation_id]
        if stream.stream_id != stream_id:
            await self.abort(conversation_id)
            return False
        del self._by_conversation[conversation_id]
        return self._is_alive(stream)

    async def give_up(self, stream: LiveStream) -> None:
        """Ends a stream that no message will end, unless it has ended meanwhile."""
        async with self._order:
            if self._by_conversation.get(stream.conversation_id) is stream:
                await self.abort(stream.conversation_id)

    async def abort(self, conversation_id: str) -> None:
        """Ends the conversation's stream, if one is shown, without its text, and tells the relay. The caller holds the order.

        One that the relay cannot be told of now stays in Redis, and is told over the next connection (stream_ends.py).
        """
        stream = self._by_conversation.pop(conversation_id, None)
        if stream is None:
            return
        self._expected.pop(stream.stream_id, None)
        if not self._is_alive(stream) or not await self._try_send(StreamAbort(stream.stream_id, conversation_id)):
            return
        try:
            await self._outbox.end_stream(conversation_id, f"{stream.stream_id} {self._outbox.consumer}")
        except RedisFailed as error:
            log.info("stream: its end is not noted", reason=str(error))  # the relay is told once more

    async def job_lost(self, conversation_id: str) -> None:
        """Called when a job has lost its worker: ends what is shown of it, here and at every other supervisor."""
        async with self._order:
            await self.abort(conversation_id)
        try:
            await self._publish(LiveAbort(conversation_id))
        except RedisFailed as error:
            log.info("stream: its end is not told", reason=str(error))

    async def kept_waiting(self, conversation_id: str) -> None:
        """Called while a conversation waits for the next try of its job: has typing shown by whichever supervisor speaks. Raises RedisFailed."""
        await self._publish(LiveTyping(conversation_id, active=True))

    async def _publish(self, live: Live) -> None:
        await self._outbox.publish_live(pack_live(live, key=self._bus_key, agent_id=self._device.owner_id))

    def _is_alive(self, stream: LiveStream) -> bool:
        return self._is_present(stream.connection_number, stream.started_at)

    def _is_present(self, connection_number: int, since: float) -> bool:
        return connection_number == self._connection.number and trio.current_time() - since < MOST_STREAM_SECONDS

    async def _grow(self, delta: LiveDelta) -> None:
        stream = self._by_conversation.get(delta.conversation_id)
        if stream is None or stream.stream_id != delta.stream_id:
            self._keep_early(delta)
            return
        if delta.seq != stream.next_seq:
            # A gap: the text would be wrong until the end. The whole message comes anyway.
            await self.abort(delta.conversation_id)
            return
        stream.next_seq += 1
        stream.grown_at = trio.current_time()
        try:
            payload = self._seal(stream, delta)
        except (TooLarge, ValueError):
            await self.abort(delta.conversation_id)
            return
        if self._is_alive(stream):
            await self._try_send(StreamDelta(stream.stream_id, stream.conversation_id, delta.seq, payload))

    def _seal(self, stream: LiveStream, delta: LiveDelta) -> str:
        return seal_delta(
            self._device,
            stream.key,
            v=stream.v,
            to=stream.to,
            conversation_id=stream.conversation_id,
            client_message_id=ulid.make(now_ms(), os.urandom(ulid.RANDOM_BYTES)),
            stream_id=stream.stream_id,
            seq=delta.seq,
            text=delta.text,
            random=os.urandom,
        )

    def _keep_early(self, delta: LiveDelta) -> None:
        now = trio.current_time()
        self._early = {key: kept for key, kept in self._early.items() if now - kept[0] < EARLY_SECONDS}
        _, deltas = self._early.get(delta.stream_id, (now, []))
        if sum(len(kept.text) for _, early in self._early.values() for kept in early) > MOST_EARLY_CHARACTERS:
            return  # the stream has a gap then, and is aborted: its text comes whole
        if len(deltas) < MOST_EARLY_DELTAS and (deltas or len(self._early) < MOST_EARLY_STREAMS):
            self._early.setdefault(delta.stream_id, (now, deltas))[1].append(delta)

    async def _type(self, live: LiveTyping) -> None:
        frame: Callable[[str], Frame] = TypingStart if live.active else TypingStop
        if self._connection.is_trusted and self._speaks():
            await self._try_send(frame(live.conversation_id))

    async def _try_send(self, frame: Frame) -> bool:
        try:
            await self._connection.send(frame)
        except NotConnected:
            return False  # best effort: the next connection shows what comes then
        return True
