"""A streamed answer's start and end, as Redis and the relay see them: shown here, elsewhere, by a first run, or nowhere."""

from pathlib import Path

import pytest

from bus.records.records import SCHEMA_VERSION, Payload, Reply, ReplyRecord
from supervisor.outbound.outgoing import Head
from supervisor.relay.connection import NotConnected
from supervisor.relay.frames import Frame, MessageSend, StreamAbort, StreamDone, StreamStart
from tests.supervisor.builders import Core, sending, until, worker
from tests.supervisor.outbound.test_outbound import scene
from tests.supervisor.person import CONVERSATION

WHOLE: Payload = {"type": "text", "text": "the whole"}
START = Reply(kind="stream_start", content_type="text", payload={}, stream_id="s1")
DONE = Reply(kind="stream_done", content_type="text", payload=WHOLE, stream_id="s1")


async def emitted(core: Core, **replies: Reply) -> None:
    """A worker answers the next job with these, each under its place."""
    async with worker(core) as jobs:
        [job] = await jobs.take(1)
        for place, reply in replies.items():
            await jobs.emit(job, place, reply)
        await jobs.finish(job)
        jobs.release(job)


async def shown(core: Core, stream_id: str) -> None:
    """Another supervisor shows a stream in the conversation."""
    await core.client.command("HSET", core.keys.streams, CONVERSATION, f"{stream_id} another-supervisor")


def kinds(frames: list[Frame]) -> list[type[Frame]]:
    return [type(frame) for frame in frames]


async def test_the_whole_text_is_the_end_of_the_stream_that_another_supervisor_shows(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await shown(core, "s1")
        await emitted(core, done=DONE)
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert isinstance(frame, StreamDone)
        assert frame.stream_id == "s1"


async def test_an_answer_whose_stream_nobody_shows_is_a_plain_message(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.connection.connect()
        await emitted(core, done=DONE)
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert ada.read(frame) == WHOLE


async def test_an_answer_ends_the_stream_of_its_first_run_which_another_supervisor_shows(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await shown(core, "s0")
        await emitted(core, done=DONE)
        async with sending(core):
            first, second = await core.connection.wait_sent(2)
        assert first == StreamAbort("s0", CONVERSATION)
        assert isinstance(second, MessageSend)


async def test_a_second_run_that_begins_its_stream_first_ends_the_one_that_was_shown(tmp_path: Path) -> None:
    """The supervisor that showed it is gone, and nobody has found that out yet."""
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await shown(core, "s0")
        await emitted(core, start=START)
        async with sending(core):
            first, second = await core.connection.wait_sent(2)
        assert first == StreamAbort("s0", CONVERSATION)
        assert isinstance(second, StreamStart)
        assert second.stream_id == "s1"


async def test_a_stream_of_ours_that_never_came_to_its_end_is_ended_once_by_the_next(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        next_start = Reply(kind="stream_start", content_type="text", payload={}, stream_id="s2")
        await emitted(core, **{"0:start:1": START, "0:start:2": next_start})
        async with sending(core):
            frames = await core.connection.wait_sent(3)
        assert kinds(frames) == [StreamStart, StreamAbort, StreamStart]


async def test_a_stream_whose_start_did_not_leave_is_none_and_its_text_a_plain_message(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        send = core.connection.send

        async def lose_starts(frame: Frame) -> None:
            if isinstance(frame, StreamStart):
                raise NotConnected
            await send(frame)

        core.connection.send = lose_starts  # type: ignore[method-assign]
        async with sending(core):
            await emitted(core, start=START)
            await until(lambda: is_over(core))
        assert core.connection.sent == []


async def is_over(core: Core) -> bool:
    """The start was taken out of the out-box, and no stream stands."""
    taken = await core.client.command("XLEN", core.keys.replies) == 0
    return taken and core.taking.under_way == 0 and await core.outbox.open_streams() == {}


async def test_a_start_and_its_end_leave_one_message_that_waits_for_its_acknowledgement(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        async with sending(core):
            await emitted(core, **{"0:start:1": START, "0": DONE})
            frames = await core.connection.wait_sent(2)
            assert kinds(frames) == [StreamStart, StreamDone]
            assert await core.outbox.all() == [CONVERSATION]
            assert await core.outbox.open_streams() == {}


@pytest.mark.pure
def test_an_answer_is_traced_by_its_end_since_nobody_acknowledges_its_beginning() -> None:
    record = ReplyRecord(SCHEMA_VERSION, "job", CONVERSATION, "0", 1, 1, b"", "a trace")
    assert [Head("1-1", record, reply, "c").trace for reply in (START, DONE)] == ["", "a trace"]
