"""Every stream that was begun at the relay is done or aborted within seconds, whatever was lost of who was to end it (DESIGN rule 15)."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from bus.records import ulid
from bus.records.records import RUN, Job, Reply
from bus.steps.jobs import JobStore
from bus.steps.store import now_ms
from bus.transport.wire import RedisUnavailable
from crypto.streams import StreamKey
from host.instance import Instance
from supervisor.outbound.stream_ends import OVER_MS
from supervisor.outbound.streams import LiveStream
from supervisor.relay.connection import NotConnected
from supervisor.relay.frames import Frame, MessageSend, StreamAbort, StreamDone, StreamStart
from supervisor.settings.pauses import Pauses
from tests.supervisor.builders import Core, dead_instance, sending, until, worker
from tests.supervisor.outbound.test_outbound import OTHER_CONVERSATION, scene
from tests.supervisor.outbound.test_outbound_streams import DONE
from tests.supervisor.person import CONVERSATION, PERSON

LIVING_ELSEWHERE = Instance("00000000", 1, 1).name
IMPATIENT = Pauses(due_look=0.02, stream_quiet=0.1)


def start_of(job: Job) -> Reply:
    return Reply(kind="stream_start", content_type="text", payload={RUN: job.entry_id}, stream_id="s1")


@asynccontextmanager
async def working(core: Core) -> AsyncIterator[tuple[JobStore, Job]]:
    """A worker has the next job."""
    async with worker(core) as jobs:
        [job] = await jobs.take(1)
        await jobs.start(job)
        yield jobs, job
        jobs.release(job)


def slow(core: Core, kind: type[Frame]) -> trio.Event:
    """The sending of each frame of this kind waits for this event."""
    send, go_on = core.connection.send, trio.Event()

    async def slowly(frame: Frame) -> None:
        if isinstance(frame, kind):
            await go_on.wait()
        await send(frame)

    core.connection.send = slowly  # type: ignore[method-assign]
    return go_on


async def other_stream(core: Core) -> LiveStream:
    """One of another conversation, which is shown."""
    stream = LiveStream(
        "s0",
        OTHER_CONVERSATION,
        answer=("another job", "0"),
        to=PERSON,
        key=StreamKey(bytes(32)),
        connection_number=core.connection.number,
    )
    async with core.streams.beginning(OTHER_CONVERSATION, "s0"):
        assert await core.streams.begin(stream, StreamStart("s0", OTHER_CONVERSATION, "sealed"))
    return stream


@pytest.mark.parametrize("is_said_at_once", [True, False])
async def test_a_stream_starts_before_it_ends_however_slowly_its_start_leaves(
    tmp_path: Path, is_said_at_once: bool
) -> None:
    """The commit of a start lets the next reply go. Under load seven of sixty streams were left open so."""
    async with scene(tmp_path, pauses=IMPATIENT) as (core, _):
        core.connection.connect()
        others = await other_stream(core)
        go_on = slow(core, StreamAbort)
        async with trio.open_nursery() as nursery, working(core) as (jobs, job), sending(core):
            nursery.start_soon(
                core.streams.give_up, others
            )  # which the relay does not take: whatever is streamed waits for it
            await jobs.emit(job, "0:start:1", start_of(job))
            if is_said_at_once:
                await jobs.emit(job, "0", DONE)
                await jobs.finish(job)
            await until(lambda: is_noted(core, is_said_at_once))
            go_on.set()
            if not is_said_at_once:
                await jobs.emit(job, "0", DONE)
                await jobs.finish(job)
            frames = await core.connection.wait_sent(4)
        assert [type(frame) for frame in frames] == [StreamStart, StreamAbort, StreamStart, StreamDone]


async def is_noted(core: Core, has_ended: bool) -> bool:
    """The stream, or its end, is committed."""
    sent = await core.outbox.all() == [CONVERSATION]
    return sent if has_ended else await core.outbox.open_streams() != {}


async def test_what_another_supervisor_ended_before_it_began_here_is_ended_once_more(tmp_path: Path) -> None:
    async with scene(tmp_path, pauses=IMPATIENT) as (core, _):
        core.connection.connect()
        async with working(core) as (jobs, job), sending(core):
            await jobs.emit(job, "0:start:1", start_of(job))
            await core.connection.wait_sent(1)
            stream = (await core.outbox.open_streams())[CONVERSATION]
            assert await core.outbox.end_stream(CONVERSATION, stream)  # as the other's commit of its end does
            assert await core.connection.wait_sent(2) == [core.connection.sent[0], StreamAbort("s1", CONVERSATION)]


async def test_an_end_that_overtook_another_supervisors_start_is_told_once_more_though_that_one_is_gone(
    tmp_path: Path,
) -> None:
    """A reload under load: the old supervisor's start left after the new one's end, and then the old one was gone."""
    async with scene(tmp_path, pauses=Pauses(due_look=0.02, stream_end_again=0.2)) as (core, _):
        core.connection.connect()
        await core.client.command("HSET", core.keys.streams, CONVERSATION, f"s1 {LIVING_ELSEWHERE}")
        async with working(core) as (jobs, job), sending(core):
            began = trio.current_time()
            await jobs.emit(job, "0", DONE)
            await jobs.finish(job)
            done, abort = await core.connection.wait_sent(2)
            assert trio.current_time() - began >= 0.2
        assert isinstance(done, StreamDone)
        assert abort == StreamAbort("s1", CONVERSATION)


async def test_an_end_that_is_to_be_told_once_more_waits_for_a_connection(tmp_path: Path) -> None:
    async with scene(tmp_path, pauses=Pauses(stream_end_again=0.0)) as (core, _):
        core.stream_ends.ended_for_another("s1", CONVERSATION)
        with pytest.raises(NotConnected):
            await core.stream_ends.look()
        core.connection.connect()
        for _ in range(2):
            await core.stream_ends.look()
        assert core.connection.sent == [StreamAbort("s1", CONVERSATION)]


async def failed(jobs: JobStore, job: Job) -> None:
    await jobs.fail(job, "error", 60_000)


async def handed_back(jobs: JobStore, job: Job) -> None:
    await jobs.hand_back(job)


async def ended_without_a_word(jobs: JobStore, job: Job) -> None:
    await jobs.finish(job)


@pytest.mark.parametrize("end", [failed, handed_back, ended_without_a_word], ids=lambda end: end.__name__)
@pytest.mark.parametrize("is_over_first", [True, False], ids=["over before the start left", "over later"])
async def test_a_stream_whose_run_is_over_is_ended_though_nobody_says_so(
    tmp_path: Path, end: Callable[[JobStore, Job], Awaitable[None]], is_over_first: bool
) -> None:
    """A handler fails or is interrupted, a worker dies: what is said of it over the live channel may be lost or come before the start."""
    async with scene(tmp_path, pauses=IMPATIENT) as (core, _):
        core.connection.connect()
        go_on = slow(core, StreamStart)
        async with working(core) as (jobs, job), sending(core):
            await jobs.emit(job, "0:start:1", start_of(job))
            await until(lambda: is_noted(core, has_ended=False))
            if not is_over_first:
                go_on.set()
                await core.connection.wait_sent(1)
            await end(jobs, job)
            go_on.set()
            frames = await core.connection.wait_sent(2)
            assert [type(frame) for frame in frames] == [StreamStart, StreamAbort]
            await until(lambda: nothing_is_open(core))


async def nothing_is_open(core: Core) -> bool:
    return await core.outbox.open_streams() == {}


@pytest.mark.parametrize("says_its_run", [True, False], ids=["", "a former version's"])
async def test_a_stream_goes_on_while_its_run_does_and_while_something_waits_to_be_sent(
    tmp_path: Path, says_its_run: bool
) -> None:
    async with scene(tmp_path, pauses=Pauses(stream_quiet=0.0)) as (core, _):
        core.connection.connect()
        async with working(core) as (jobs, job), taking(core):
            start = start_of(job)
            await jobs.emit(job, "0:start:1", start if says_its_run else msgspec.structs.replace(start, payload={}))
            await core.connection.wait_sent(1)
            await core.stream_ends.look()
            await jobs.emit(job, "1", Reply(kind="message", content_type="text", payload={"type": "text", "text": "x"}))
            await jobs.finish(job)
            await core.connection.wait_sent(2)
            await core.stream_ends.look()
            assert [type(frame) for frame in core.connection.sent] == [StreamStart, MessageSend]
            [message] = await core.outbox.all()
            await core.client.command("HDEL", core.keys.conversation(message), "reply")  # as its confirmation does
            await core.stream_ends.look()
            assert (core.connection.sent[2:] == [StreamAbort("s1", CONVERSATION)]) is says_its_run


@pytest.mark.parametrize("kind", ["grows", "its end is on its way"])
async def test_a_stream_that_grows_or_whose_end_is_on_its_way_is_not_ended(tmp_path: Path, kind: str) -> None:
    async with scene(tmp_path, pauses=IMPATIENT) as (core, _):
        core.connection.connect()
        async with working(core) as (jobs, job), taking(core):
            await jobs.emit(job, "0:start:1", start_of(job))
            await core.connection.wait_sent(1)
            if kind == "grows":
                await jobs.finish(job)
            else:
                await core.outbox.end_stream(CONVERSATION, f"s1 {core.outbox.consumer}")
            await core.stream_ends.look()
            assert len(core.connection.sent) == 1


@asynccontextmanager
async def taking(core: Core) -> AsyncIterator[None]:
    """Replies are sent, and no stream is looked for but by the test."""
    core.reader.start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.outbound.run)
            yield
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await core.taking.give_back(await core.reader.close())


@pytest.mark.parametrize("lives", [False, True])
async def test_a_stream_of_another_supervisor_is_over_when_that_is_gone(tmp_path: Path, lives: bool) -> None:
    other = LIVING_ELSEWHERE if lives else dead_instance().name
    async with scene(tmp_path, pauses=IMPATIENT) as (core, _):
        core.connection.connect()
        await core.client.command("HSET", core.keys.streams, CONVERSATION, f"{ulid.new()} {other}")
        await core.stream_ends.look()
        assert [type(frame) for frame in core.connection.sent] == ([] if lives else [StreamAbort])
        assert len(await core.outbox.open_streams()) == int(lives)


async def test_a_stream_of_a_supervisor_of_which_nobody_here_can_tell_is_over_at_its_age(tmp_path: Path) -> None:
    async with scene(tmp_path, pauses=IMPATIENT) as (core, _):
        core.connection.connect()
        young, old = (ulid.make(now_ms() - age_ms, bytes(10)) for age_ms in (OVER_MS - 60_000, OVER_MS + 1))
        for conversation, stream_id in ((CONVERSATION, young), (OTHER_CONVERSATION, old)):
            await core.client.command("HSET", core.keys.streams, conversation, f"{stream_id} {LIVING_ELSEWHERE}")
        await core.stream_ends.look()
        assert core.connection.sent == [StreamAbort(old, OTHER_CONVERSATION)]
        assert await core.outbox.open_streams() == {CONVERSATION: f"{young} {LIVING_ELSEWHERE}"}


async def test_an_end_that_could_not_be_told_is_told_over_the_next_connection(tmp_path: Path) -> None:
    async with scene(tmp_path, pauses=IMPATIENT) as (core, _):
        await core.client.command("HSET", core.keys.streams, CONVERSATION, f"s1 {core.outbox.consumer}")
        with pytest.raises(NotConnected):
            await core.stream_ends.look()
        core.connection.connect()
        await core.stream_ends.look()
        assert core.connection.sent == [StreamAbort("s1", CONVERSATION)]
        assert await core.outbox.open_streams() == {}


@pytest.mark.parametrize("reconnects", [False, True])
async def test_a_stream_is_an_orphan_only_of_an_earlier_connection(tmp_path: Path, reconnects: bool) -> None:
    """A start committed just as we connect is no leaving of a connection before: its abort would go out ahead of it."""
    async with scene(tmp_path, pauses=IMPATIENT) as (core, _):
        core.connection.connect()
        async with core.streams.beginning(CONVERSATION, "stream"):
            await core.client.command("HSET", core.keys.streams, CONVERSATION, f"stream {core.outbox.consumer}")
            if reconnects:
                core.connection.disconnect()
                core.connection.connect()
            await core.client.command("HSET", core.keys.streams, OTHER_CONVERSATION, f"orphan {core.outbox.consumer}")
            await core.stream_ends.look()
        orphans = {"orphan", "stream"} if reconnects else {"orphan"}
        assert {frame.stream_id for frame in core.connection.sent if isinstance(frame, StreamAbort)} == orphans
        assert len(await core.outbox.open_streams()) == 2 - len(orphans)


async def test_redis_that_fails_as_a_stream_is_given_up_costs_a_second_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path, pauses=IMPATIENT) as (core, _):
        core.connection.connect()
        async with working(core) as (jobs, job), taking(core):
            await jobs.emit(job, "0:start:1", start_of(job))
            await core.connection.wait_sent(1)
            with monkeypatch.context() as away:
                away.setattr(core.outbox, "end_stream", redis_is_away)
                await core.streams.give_up(core.streams.shown()[0])
            assert await core.outbox.open_streams() != {}
            await core.stream_ends.look()
            assert core.connection.sent[1:] == [StreamAbort("s1", CONVERSATION)] * 2
            assert await core.outbox.open_streams() == {}


async def redis_is_away(*_: object) -> bool:
    raise RedisUnavailable("away")
