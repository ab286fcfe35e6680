"""Two supervisors of one agent on one Redis: a conversation's frames come through either, at any time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bus.records import ulid
from bus.records.records import Reply
from host.instance import Instance
from supervisor.relay.frames import MessageAck, MessageSend, StreamDone, StreamStart
from tests.redis_server import redis_server
from tests.supervisor.builders import WAIT_SECONDS, Core, open_core, reply_to_next, sending, worker
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import Person
from tests.waiting import waiting_for

"""Of now: one of long ago is nobody's any more."""


def instance(number: int) -> Instance:
    """The process of a host of its own."""
    return Instance(f"{number:08x}", number, 1)


@asynccontextmanager
async def two_supervisors(directory: Path) -> AsyncIterator[tuple[Core, Core, Person]]:
    rest = FakeRest()
    with redis_server(directory) as url:
        async with open_core(url, rest, instance(1)) as first, open_core(url, rest, instance(2)) as second:
            await first.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            yield first, second, ada


async def test_a_conversation_moves_between_supervisors_and_no_frame_is_out_of_step(tmp_path: Path) -> None:
    async with two_supervisors(tmp_path) as (first, second, ada):
        for number in range(6):
            await (first, second)[number % 2].push(ada.say(f"message {number}"))
        assert await first.jobs() == [f"message {number}" for number in range(6)]
        assert (first.polls.times, second.polls.times) == (0, 0)


async def test_an_acknowledgement_counts_wherever_it_is_heard(tmp_path: Path) -> None:
    async with two_supervisors(tmp_path) as (first, second, ada):
        await first.push(ada.say())
        async with sending(first), sending(second):
            first.connection.connect()
            await reply_to_next(first, "one", "two")
            [one] = await first.connection.wait_sent(1)
            assert isinstance(one, MessageSend)
            second.delivery.heard(MessageAck(one.client_message_id, "m1", 2))
            _, two = await first.connection.wait_sent(2)
            assert [ada.read(frame)["text"] for frame in (one, two)] == ["one", "two"]


async def test_a_stream_is_ended_as_one_by_whoever_sends_its_end(tmp_path: Path) -> None:
    async with two_supervisors(tmp_path) as (first, second, ada):
        await first.push(ada.say())
        stream_id = ulid.new()  # of now: an old stream is nobody's
        async with worker(first) as jobs:
            with waiting_for("a job to answer", WAIT_SECONDS):
                [job] = await jobs.take(1)
            async with sending(first):
                first.connection.connect()
                await jobs.emit(job, "0:start", reply("stream_start", stream_id, {"type": "stream"}))
                [start] = await first.connection.wait_sent(1)
                assert isinstance(start, StreamStart)
                await first.taking.stop()
                async with sending(second):
                    second.connection.connect()
                    await jobs.emit(job, "0", reply("stream_done", stream_id, {"type": "text", "text": "whole"}))
                    [done] = await second.connection.wait_sent(1)
            await jobs.finish(job)
            jobs.release(job)
        assert isinstance(done, StreamDone)
        assert done.stream_id == stream_id
        assert await second.outbox.open_streams() == {}


def reply(kind: str, stream_id: str, payload: dict[str, object]) -> Reply:
    return Reply(kind=kind, content_type="text", payload=payload, stream_id=stream_id)  # type: ignore[arg-type]
