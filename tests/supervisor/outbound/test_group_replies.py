"""What goes out to a group, and under which key."""

import os
from pathlib import Path

import msgspec
import pytest
import trio

from bus.records.records import LiveDelta, Payload, Reply, pack_live
from bus.steps.store import now_ms
from crypto.errors import Unreadable
from crypto.streams import StreamReader as Growing
from supervisor.relay.frames import MessageSend, StreamDelta, StreamDone, StreamStart
from supervisor.relay.payloads import message_ms
from tests.supervisor.builders import KEYS, WAIT_SECONDS, Core, reply_to_next, sending, until, worker
from tests.supervisor.peers.group_scene import GROUP, fetches, new_id, opened, scene, spoken_to
from tests.supervisor.person import AGENT, CONVERSATION
from tests.waiting import waiting_for


async def test_a_reply_goes_to_the_group_in_one_envelope_and_moves_no_session(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (core, circle, *_):
        await reply_to_next(core, "to all")
        [frame] = await core.connection.wait_sent(1)
        assert isinstance(frame, MessageSend)
        assert circle.read(frame, 1) == {"type": "text", "text": "to all"}
        assert (
            await core.client.command("HGET", core.keys.sent(CONVERSATION), "cmid") == frame.client_message_id.encode()
        )
        assert await core.client.command("KEYS", core.keys.session("*", "*")) == []


async def test_an_answer_is_dated_by_our_clock_whatever_the_senders_says(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada, cmid=new_id(time_ms=1)))
        core.connection.connect()
        async with sending(core):
            await reply_to_next(core, "now")
            [frame] = await core.connection.wait_sent(1)
        assert isinstance(frame, MessageSend)
        assert now_ms() - message_ms(frame.client_message_id) < WAIT_SECONDS * 1000


async def test_a_rotation_that_was_missed_is_found_before_the_first_reply_of_a_connection(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (core, circle, _, ben):
        circle.make(2, ben)
        await reply_to_next(core, "under two")
        [frame] = await core.connection.wait_sent(1)
        assert circle.read(frame, 2) == {"type": "text", "text": "under two"}
        before = fetches(core)
        await core.groups.to_write(GROUP)
        assert fetches(core) == before
        core.groups.connected()
        await core.groups.to_write(GROUP)
        assert fetches(core) == before + 1


async def test_a_relay_that_does_not_tell_the_key_does_not_keep_us_from_writing_under_the_one_we_have(
    tmp_path: Path,
) -> None:
    async with spoken_to(tmp_path) as (core, circle, *_):
        core.rest.fail_next("group_key")
        await reply_to_next(core, "under one")
        [frame] = await core.connection.wait_sent(1)
        assert circle.read(frame, 1) == {"type": "text", "text": "under one"}


async def test_a_reply_to_a_group_whose_key_is_gone_is_a_dead_letter(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (core, *_):
        await core.client.command("DEL", core.keys.group(GROUP))
        core.rest.group_keys.clear()
        await reply_to_next(core, "to nobody")

        async def is_dead() -> bool:
            return [letter.reason for letter in await core.dead.first()] == ["no_group_key"]

        await until(is_dead)
        assert core.connection.sent == []


async def streamed(core: Core, *words: str) -> None:
    """A worker answers the next job with a stream."""
    async with worker(core) as jobs:
        with waiting_for("a job to answer", WAIT_SECONDS):
            [job] = await jobs.take(1)
        start = Reply(kind="stream_start", content_type="text", payload={}, stream_id="s1")
        await jobs.emit(job, "0:start:1", start)
        for seq, word in enumerate(words):
            delta = LiveDelta(CONVERSATION, "s1", seq, word)
            core.streams.heard(pack_live(delta, key=KEYS.bus, agent_id=AGENT))
        whole: Payload = {"type": "text", "text": "".join(words)}
        await jobs.emit(job, "0", Reply(kind="stream_done", content_type="text", payload=whole, stream_id="s1"))
        await jobs.finish(job)
        jobs.release(job)


async def test_a_stream_in_a_group_grows_under_a_key_that_the_group_can_read(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (core, circle, *_), trio.open_nursery() as nursery:
        nursery.start_soon(core.streams.run)
        await streamed(core, "word ", "by word")
        sent = await core.connection.wait_sent(4)
        start, done = sent[0], sent[-1]
        assert isinstance(start, StreamStart)
        growing = Growing.start(opened(start), circle.read(start, 1), stream_id="s1")
        for frame, expected in zip(sent[1:3], ("word ", "by word"), strict=True):
            assert isinstance(frame, StreamDelta)
            growing, text = growing.read(opened(frame), seq=frame.seq)
            assert text == expected
        assert isinstance(done, StreamDone)
        assert circle.read(done, 1) == {"type": "text", "text": "word by word"}
        nursery.cancel_scope.cancel()


async def test_a_group_of_more_than_two_hundred_sees_the_whole_message_only(tmp_path: Path) -> None:
    async with spoken_to(tmp_path, others=198) as (core, circle, *_), trio.open_nursery() as nursery:
        nursery.start_soon(core.streams.run)
        await streamed(core, "word ", "by word")
        [only] = await core.connection.wait_sent(1)
        assert isinstance(only, MessageSend)
        assert circle.read(only, 1) == {"type": "text", "text": "word by word"}
        nursery.cancel_scope.cancel()


async def test_nobody_outside_can_read_what_goes_to_the_group(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (core, circle, *_):
        await reply_to_next(core, "among us")
        [frame] = await core.connection.wait_sent(1)
        circle.versions[1] = msgspec.structs.replace(circle.versions[1], key=os.urandom(32))
        with pytest.raises(Unreadable, match="bad_ciphertext"):
            circle.read(frame, 1)
