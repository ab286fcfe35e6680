"""Replies that begin a stream or end one (DESIGN rule 15), and which streams of their conversation are told to be over.

What is shown of a stream while it grows is supervisor/outbound/streams.py.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus.records.records import GROUP, RUN
from bus.steps.outbox import Outbox
from crypto.envelope import V1_1, V1_2
from crypto.streams import StreamKey
from supervisor.outbound.decisions import ends_former_stream, is_end_of_stream
from supervisor.outbound.outgoing import Addressed, CommittedReply, Head
from supervisor.outbound.recipients import shows_streams
from supervisor.outbound.sender import Sender
from supervisor.outbound.stream_ends import StreamEnds
from supervisor.outbound.streams import LiveStream, Streams
from supervisor.relay.frames import Frame, MessageSend, StreamAbort, StreamDone, StreamStart

STREAM_START = ":start:"
"""Stands in the place of a stream's beginning between the place of its answer and the number of the run (workers/talk/sending.py)."""


class StreamReplies:
    """Begins and ends the streams of one supervisor."""

    def __init__(self, streams: Streams, stream_ends: StreamEnds, outbox: Outbox, sender: Sender) -> None:
        self._streams = streams
        self._stream_ends = stream_ends
        self._outbox = outbox
        self._sender = sender

    @asynccontextmanager
    async def beginning(self, head: Head) -> AsyncIterator[None]:
        """Within the block a stream's start is committed and sent: no later reply of its conversation ends the stream before."""
        async with self._streams.beginning(head.record.conversation_id, head.reply.stream_id or ""):
            yield

    async def begin(self, head: Head, addressed: Addressed, key: StreamKey, committed: CommittedReply) -> None:
        """Tells the relay that a stream begins; notes its end at once if nobody can be shown it."""
        conversation, shown = head.record.conversation_id, committed.shown_stream_id
        stream_id = head.reply.stream_id or ""
        if shown and not self._streams.is_of_present_connection(shown):  # who began it may be gone
            await self._sender.send(StreamAbort(shown, conversation))
        stream = LiveStream(
            stream_id,
            conversation,
            answer=(head.record.job_id, head.record.place.rpartition(STREAM_START)[0]),
            to=addressed.recipient_id,
            v=V1_1 if addressed.conversation_type == GROUP else V1_2,
            key=key,
            connection_number=self._sender.connection_number,
            run=str(head.reply.payload.get(RUN, "")),
        )
        start = StreamStart(stream_id, conversation, committed.sealed.encrypted_payload)
        if not shows_streams(addressed.recipient) or not await self._streams.begin(stream, start):
            await self._outbox.end_stream(conversation, f"{stream_id} {self._outbox.consumer}")

    async def final_frame(self, head: Head, committed: CommittedReply) -> Frame:
        """Returns the frame of an answer: as its stream's end, also if another supervisor shows that, else as a plain message.

        A stream that a first run of the job began is told to be over.
        """
        conversation, reply, shown = head.record.conversation_id, head.reply, committed.shown_stream_id
        encrypted = committed.sealed.encrypted_payload
        is_ours = await self._streams.end(conversation, head.answers, reply.stream_id)
        if ends_former_stream(reply.stream_id, shown):
            await self._sender.send(StreamAbort(shown, conversation))
        if reply.stream_id is not None and is_end_of_stream(reply.stream_id, shown, is_ours=is_ours):
            if not is_ours:
                self._stream_ends.ended_for_another(reply.stream_id, conversation)
            return StreamDone(reply.stream_id, conversation, head.client_message_id, reply.content_type, encrypted)
        return MessageSend(head.client_message_id, conversation, reply.content_type, encrypted)
