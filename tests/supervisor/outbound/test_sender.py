"""What goes out over the connection, and when it went out last."""

import msgspec
import pytest

from bus.records.records import SCHEMA_VERSION, OutboxRecord
from supervisor.outbound.sender import MOST_TIMES, Sender, frames_again, resend_frame
from supervisor.relay.connection import NotConnected
from supervisor.relay.frames import MessageSend, StreamAbort, StreamDone
from tests.supervisor.doubles import FakeConnection

MESSAGE = MessageSend("cmid-1", "conversation", "text", "sealed")
END = StreamDone("s1", "conversation", "cmid-2", "text", "sealed")
RECORD = OutboxRecord(SCHEMA_VERSION, "cmid-3", "conversation", "text", "the same bytes", "s1", "h2a", "text", 1)


def connected_sender(most_times: int = MOST_TIMES) -> tuple[Sender, FakeConnection]:
    connection = FakeConnection()
    connection.connect()
    return Sender(connection, most_times=most_times), connection


async def test_a_message_is_sent_and_its_time_is_told_once() -> None:
    sender, connection = connected_sender()
    assert [await sender.send(frame) for frame in (MESSAGE, END, StreamAbort("s1", "conversation"))] == [True] * 3
    assert connection.sent == [MESSAGE, END, StreamAbort("s1", "conversation")]
    for client_message_id in ("cmid-1", "cmid-2"):
        assert sender.take_time(client_message_id) is not None
        assert sender.take_time(client_message_id) is None


async def test_without_a_connection_nothing_is_sent_and_a_resend_says_so() -> None:
    sender, connection = connected_sender()
    connection.disconnect()
    assert await sender.send(MESSAGE) is False
    with pytest.raises(NotConnected):
        await sender.resend(RECORD)
    assert connection.sent == []


async def test_a_resend_is_the_same_bytes_as_a_plain_message() -> None:
    sender, connection = connected_sender()
    plain = msgspec.structs.replace(RECORD, stream_id=None)
    await sender.resend(plain)
    assert connection.sent == [MessageSend("cmid-3", "conversation", "text", "the same bytes")]
    assert connection.sent == [resend_frame(plain)] == [*frames_again(plain)]
    assert sender.take_time("cmid-3") is not None


async def test_a_resend_ends_the_stream_whose_end_may_have_been_lost() -> None:
    sender, connection = connected_sender()
    await sender.resend(RECORD)
    assert connection.sent == [StreamAbort("s1", "conversation"), resend_frame(RECORD)] == [*frames_again(RECORD)]


async def test_times_are_kept_of_the_latest_messages_only() -> None:
    sender, _ = connected_sender(most_times=2)
    for number in (1, 2, 1, 3):
        await sender.send(MessageSend(f"cmid-{number}", "conversation", "text", "sealed"))
    assert [sender.take_time(f"cmid-{number}") is not None for number in (1, 2, 3)] == [True, False, True]
