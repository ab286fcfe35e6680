"""Streams through the relay: passed on in order, stored once at the end, ended when they last or stay silent too long."""

from pathlib import Path

from supervisor.relay.frames import (
    MessageAck,
    MessageNew,
    StreamAbort,
    StreamDelta,
    StreamDone,
    StreamError,
    StreamStart,
)
from tests.sandbox.relay import Talk, agent_client, message, person_client, talk


def start(it: Talk, stream_id: str = "S") -> StreamStart:
    return StreamStart(stream_id, it.conversation_id, "KEY")


def delta(it: Talk, seq: int, stream_id: str = "S") -> StreamDelta:
    return StreamDelta(stream_id, it.conversation_id, seq, f"D{seq}")


def done(it: Talk, stream_id: str = "S") -> StreamDone:
    return StreamDone(stream_id, it.conversation_id, f"CM-{stream_id}", "text", "WHOLE")


async def test_a_stream_arrives_in_order_and_its_end_is_stored_as_one_message(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent, person_client(it) as person:
        for frame in (start(it), delta(it, 0), delta(it, 1), done(it)):
            await agent.send(frame)
        ack = await agent.receive()
        assert isinstance(ack, MessageAck)
        seen = [await person.receive() for _ in range(5)]
        assert [type(frame).__name__ for frame in seen] == [
            "StreamStart",
            "StreamDelta",
            "StreamDelta",
            "StreamDone",
            "MessageNew",
        ]
        assert isinstance(seen[0], StreamStart)
        assert seen[0].sender_id == it.agent.agent_id
        assert isinstance(seen[-1], MessageNew)
        assert (seen[-1].message_id, seen[-1].encrypted_payload) == (ack.message_id, "WHOLE")
        assert (await api.stats()).messages_stored == 1


async def test_a_delta_out_of_order_is_passed_over(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), agent_client(it) as agent, person_client(it) as person:
        for frame in (start(it), delta(it, 1), delta(it, 0), delta(it, 0), delta(it, 1)):
            await agent.send(frame)
        seen = [await person.receive() for _ in range(3)]
        assert [frame.seq for frame in seen if isinstance(frame, StreamDelta)] == [0, 1]
        assert await person.silent()


async def test_a_stream_left_alone_is_ended_for_both_sides(tmp_path: Path) -> None:
    orphan = ("--stream-orphan-seconds", "0.2")
    async with talk(tmp_path, *orphan) as (it, _), agent_client(it) as agent, person_client(it) as person:
        await agent.send(start(it))
        assert isinstance(await person.receive(), StreamStart)
        assert await agent.receive() == StreamError("S", "timeout")
        assert await person.receive() == StreamAbort("S", it.conversation_id, it.agent.agent_id)
        await agent.send(done(it))
        assert isinstance(await agent.receive(), MessageAck)
        assert isinstance(await person.receive(), MessageNew)


async def test_a_stream_over_its_time_is_ended_though_it_is_lively(tmp_path: Path) -> None:
    limit = ("--stream-seconds", "0.3", "--stream-orphan-seconds", "0.4")
    async with talk(tmp_path, *limit) as (it, _), agent_client(it) as agent:
        await agent.send(start(it))
        assert await agent.receive() == StreamError("S", "timeout")


async def test_another_connection_of_the_agent_may_abort_what_a_dead_one_started(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), person_client(it) as person:
        async with agent_client(it) as first:
            await first.send(start(it))
            assert isinstance(await person.receive(), StreamStart)
        async with agent_client(it) as second:
            await second.send(StreamAbort("S", it.conversation_id))
            assert isinstance(await person.receive(), StreamAbort)
            await second.send(message(it, "plain"))
            assert isinstance(await person.receive(), MessageNew)


async def test_a_stream_that_is_already_live_is_not_started_again(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), agent_client(it) as agent:
        await agent.send(start(it))
        await agent.send(start(it))
        assert await agent.receive() == StreamError("S", "limit")
