"""Sends to the relay, and remembers when each message went out that the relay has not acknowledged yet.

A message that could not be sent is not lost: its record stands in the outbox, and is sent again from there with the same bytes.
"""

from collections import OrderedDict
from typing import Final

from bus.records.records import OutboxRecord
from bus.steps.store import now_ms
from supervisor.relay.connection import Connection, NotConnected
from supervisor.relay.frames import Frame, MessageSend, StreamAbort, StreamDone

MOST_TIMES: Final = 10_000
"""Times that are remembered, some 2 MiB: more than a relay would ever owe us. One that is missing is missing in the ledger only."""


def resend_frame(record: OutboxRecord) -> MessageSend:
    """Returns the frame that sends a committed record again: the same bytes, as a plain message, since its stream is over if it had one."""
    return MessageSend(record.client_message_id, record.conversation_id, record.content_type, record.encrypted_payload)


def frames_again(record: OutboxRecord) -> tuple[Frame, ...]:
    """Returns what sends a committed record again; if its first frame, the end of a stream, was lost, the stream is ended before."""
    message = resend_frame(record)
    return (message,) if record.stream_id is None else (StreamAbort(record.stream_id, record.conversation_id), message)


class Sender:
    """Sends the messages of one supervisor over its connection."""

    def __init__(self, connection: Connection, *, most_times: int = MOST_TIMES) -> None:
        self._connection = connection
        self._most_times = most_times
        self._sent_ms: OrderedDict[str, int] = OrderedDict()

    @property
    def connection_number(self) -> int:
        """Number of the present connection."""
        return self._connection.number

    async def send(self, frame: Frame) -> bool:
        """Sends a frame. False without a connection: the next one sends what stands in the outbox."""
        if isinstance(frame, MessageSend | StreamDone):
            self._note(frame.client_message_id)
        try:
            await self._connection.send(frame)
        except NotConnected:
            return False
        return True

    async def resend(self, record: OutboxRecord) -> None:
        """Sends a committed record again. Raises NotConnected."""
        self._note(record.client_message_id)
        for frame in frames_again(record):
            await self._connection.send(frame)

    def take_time(self, client_message_id: str) -> int | None:
        """Returns when the message went out last (ms), and forgets it; None if another process sent it."""
        return self._sent_ms.pop(client_message_id, None)

    def _note(self, client_message_id: str) -> None:
        self._sent_ms[client_message_id] = now_ms()
        self._sent_ms.move_to_end(client_message_id)
        while len(self._sent_ms) > self._most_times:
            self._sent_ms.popitem(last=False)
