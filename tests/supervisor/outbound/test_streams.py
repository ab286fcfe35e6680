"""Streamed answers while they grow: in order, over the connection that began them, best effort."""

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import structlog
import trio
import trio.testing

from bus.records.records import Live, LiveAbort, LiveDelta, LiveTyping, pack_live, unpack_live
from bus.steps.outbox import Outbox
from crypto.identity import LocalDevice
from crypto.streams import StreamKey
from host.lines import MOST_TAGS_SAID
from supervisor.observe.metrics import Metrics
from supervisor.outbound.streams import (
    EARLY_SECONDS,
    MOST_EARLY_CHARACTERS,
    MOST_EARLY_DELTAS,
    MOST_EARLY_STREAMS,
    MOST_STREAM_SECONDS,
    MOST_WAITING,
    MOST_WAITING_BYTES,
    LiveStream,
    Streams,
)
from supervisor.relay.connection import NotConnected
from supervisor.relay.frames import Frame, StreamAbort, StreamDelta, StreamStart, TypingStart, TypingStop
from tests.supervisor.builders import IDENTITY, KEYS
from tests.supervisor.doubles import FakeConnection
from tests.supervisor.person import AGENT, CONVERSATION, PERSON

pytestmark = pytest.mark.pure

ANSWER = ("job", "0")
OTHER = "another conversation"


class EndsOfStreams(Outbox):
    """Notes which streams were given up, and what the other supervisors are told."""

    def __init__(self) -> None:
        self.consumer = "supervisor"
        self.ended: list[str] = []
        self.told: list[bytes] = []

    async def publish_live(self, packed: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(packed)

    async def end_stream(self, conversation_id: str, stream: str) -> bool:  # noqa: ARG002 - as Outbox
        await trio.lowlevel.checkpoint()
        self.ended.append(stream)
        return True


class Scene:
    def __init__(self, *, speaks: bool = True) -> None:
        self.connection = FakeConnection()
        self.metrics = Metrics()
        self.outbox = EndsOfStreams()
        device = LocalDevice(AGENT, AGENT, IDENTITY)
        self.streams = Streams(device, KEYS.bus, self.connection, self.outbox, self.metrics, speaks=lambda: speaks)

    def stream(self, stream_id: str = "stream", conversation: str = CONVERSATION) -> LiveStream:
        return LiveStream(
            stream_id,
            conversation,
            answer=ANSWER,
            to=PERSON,
            key=StreamKey(bytes(32)),
            connection_number=self.connection.number,
        )

    async def begin(self, stream_id: str = "stream", conversation: str = CONVERSATION) -> bool:
        async with self.streams.beginning(conversation, stream_id):
            return await self.streams.begin(self.stream(stream_id, conversation), start(stream_id, conversation))

    async def hear(self, *live: Live) -> None:
        for one in live:
            self.streams.heard(pack_live(one, key=KEYS.bus, agent_id=AGENT))
        await trio.testing.wait_all_tasks_blocked()


def start(stream_id: str = "stream", conversation: str = CONVERSATION) -> StreamStart:
    return StreamStart(stream_id, conversation, "sealed")


def delta(seq: int, stream_id: str = "stream") -> LiveDelta:
    return LiveDelta(CONVERSATION, stream_id, seq, "text")


def seqs(frames: list[Frame]) -> list[int]:
    return [frame.seq for frame in frames if isinstance(frame, StreamDelta)]


@asynccontextmanager
async def scene(*, speaks: bool = True) -> AsyncIterator[Scene]:
    made = Scene(speaks=speaks)
    made.connection.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.streams.run)
        yield made
        nursery.cancel_scope.cancel()


async def test_deltas_go_out_in_order_and_early_ones_wait_for_the_start() -> None:
    async with scene() as made:
        await made.hear(delta(0), delta(1))
        assert made.connection.sent == []
        await made.begin()
        await made.hear(delta(2))
        assert seqs(made.connection.sent) == [0, 1, 2]


async def test_a_gap_aborts_the_stream_and_the_rest_is_not_shown() -> None:
    async with scene() as made:
        await made.begin()
        await made.hear(delta(0), delta(2), delta(3))
        assert made.connection.sent[2:] == [StreamAbort("stream", CONVERSATION)]
        assert not await made.streams.end(CONVERSATION, ANSWER, "stream")


async def test_the_whole_message_ends_its_own_stream_once() -> None:
    async with scene() as made:
        await made.begin()
        assert not await made.streams.end(CONVERSATION, ("another job", "0"), "stream")
        assert await made.streams.end(CONVERSATION, ANSWER, "stream")
        assert not await made.streams.end(CONVERSATION, ANSWER, "stream")


async def test_an_answer_without_its_stream_aborts_what_a_first_run_had_begun() -> None:
    async with scene() as made:
        await made.begin()
        assert not await made.streams.end(CONVERSATION, ANSWER, None)
        assert made.connection.sent == [start(), StreamAbort("stream", CONVERSATION)]


async def test_after_a_reconnect_a_stream_is_over_and_its_end_a_plain_message() -> None:
    async with scene() as made:
        await made.begin()
        made.connection.disconnect()
        made.connection.connect()
        await made.hear(delta(0))
        assert made.connection.sent == [start()]
        assert not await made.streams.end(CONVERSATION, ANSWER, "stream")


async def test_a_new_stream_of_a_conversation_ends_the_older_one() -> None:
    async with scene() as made:
        await made.begin("older")
        await made.begin("newer")
        assert made.connection.sent == [start("older"), StreamAbort("older", CONVERSATION), start("newer")]


async def test_what_ends_a_stream_waits_for_its_start_and_for_what_was_heard_before() -> None:
    """The commit of a start lets the next reply go, and the start may have to wait for other conversations' pieces."""
    async with scene() as made, trio.open_nursery() as nursery:
        await made.hear(delta(0), delta(1))
        go_on = await slow_relay(made)
        nursery.start_soon(made.begin)
        await trio.testing.wait_all_tasks_blocked()
        ended: list[bool] = []

        async def end() -> None:
            ended.append(await made.streams.end(CONVERSATION, ANSWER, "stream"))
            of_here = [frame for frame in made.connection.sent if getattr(frame, "conversation_id", "") == CONVERSATION]
            assert of_here[0] == start()
            assert seqs(of_here) == [0, 1]

        nursery.start_soon(end)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        assert not await made.streams.end("a third conversation", ANSWER, "stream"), "nobody else waits"
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [True]


async def slow_relay(made: Scene) -> trio.Event:
    """A piece of another conversation's stream is not taken by the relay until this event."""
    await made.begin("elsewhere", OTHER)
    send, go_on = made.connection.send, trio.Event()

    async def slow(frame: Frame) -> None:
        if isinstance(frame, StreamDelta) and frame.conversation_id == OTHER:
            await go_on.wait()
        await send(frame)

    made.connection.send = slow  # type: ignore[method-assign]
    await made.hear(LiveDelta(OTHER, "elsewhere", 0, "text"))
    return go_on


async def shown_of_what_came_early(made: Scene, streams: int) -> int:
    """How many pieces are shown when so many streams begin at last."""
    for number in range(streams):
        await made.begin(f"stream-{number}")
    return len(seqs(made.connection.sent))


async def test_a_start_waits_for_the_one_before_and_no_longer_if_that_has_failed() -> None:
    async with scene() as made, trio.open_nursery() as nursery:
        failing = made.streams.beginning(CONVERSATION, "older")
        await failing.__aenter__()
        nursery.start_soon(made.begin, "newer")
        nursery.start_soon(made.begin, "elsewhere", "another conversation")
        await trio.testing.wait_all_tasks_blocked()
        assert made.connection.sent == [start("elsewhere", "another conversation")]
        assert not await failing.__aexit__(NotConnected, NotConnected(), None), "nothing is caught"
        await trio.testing.wait_all_tasks_blocked()
        assert made.connection.sent[1:] == [start("newer")]


async def test_a_start_that_was_given_up_while_it_waited_takes_nothing_from_the_one_before() -> None:
    async with scene() as made:
        async with made.streams.beginning(CONVERSATION, "older"):
            with trio.move_on_after(0):
                await made.begin("newer")
        await made.begin("newest")
        assert made.connection.sent == [start("newest")]


class Id(str):
    """A stream's id that tells when nobody has it any more."""

    __slots__ = ("__weakref__",)


async def test_nothing_is_kept_of_streams_that_were_begun_on_connections_of_before() -> None:
    """However often the connection changes, each leaves nothing behind."""
    async with scene() as made:
        known = weakref.WeakSet[Id]()
        for number in range(20):
            stream_id = Id(f"stream-{number}")
            known.add(stream_id)
            async with made.streams.beginning(CONVERSATION, stream_id):
                pass
            del stream_id
            made.connection.number += 1
        gc.collect()
        assert len(known) <= 1


async def test_a_stream_whose_end_could_not_be_told_is_left_to_the_next_connection() -> None:
    async with scene() as made:
        await made.begin()
        made.connection.disconnect()
        await made.hear(LiveAbort(CONVERSATION))
        assert made.outbox.ended == []
        assert not made.streams.is_of_present_connection("stream"), "an orphan, which is looked for"


async def test_a_stream_is_given_up_if_it_is_still_shown() -> None:
    async with scene() as made:
        await made.begin()
        [former] = made.streams.shown()
        await made.begin("newer")
        await made.streams.give_up(former)
        assert made.connection.sent == [start(), StreamAbort("stream", CONVERSATION), start("newer")]
        [newer] = made.streams.shown()
        await made.streams.give_up(newer)
        assert made.connection.sent[3:] == [StreamAbort("newer", CONVERSATION)]
        assert made.outbox.ended[1:] == ["newer supervisor"]


async def test_a_stream_whose_start_cannot_be_sent_is_none() -> None:
    async with scene() as made:
        made.connection.disconnect()
        assert not await made.begin()
        assert not await made.streams.end(CONVERSATION, ANSWER, "stream")


async def test_early_deltas_of_streams_that_never_start_do_not_pile_up() -> None:
    async with scene() as made:
        for number in range(300):
            await made.hear(delta(0, f"stream-{number}"))
        assert await shown_of_what_came_early(made, 300) <= MOST_EARLY_STREAMS


async def test_typing_is_passed_on_while_connected_only() -> None:
    async with scene() as made:
        await made.hear(LiveTyping(CONVERSATION, active=True), LiveTyping(CONVERSATION, active=False))
        assert made.connection.sent == [TypingStart(CONVERSATION), TypingStop(CONVERSATION)]
        made.connection.disconnect()
        await made.hear(LiveTyping(CONVERSATION, active=True))
        assert len(made.connection.sent) == 2


async def test_what_does_not_open_and_what_is_too_much_is_passed_over() -> None:
    async with scene() as made:
        await made.begin()
        made.streams.heard(b"no sealed value")
        for later in ({"type": "of a later release"}, {"type": "delta", "seq": "one"}, 7):
            made.streams.heard(KEYS.bus.seal(msgspec.msgpack.encode(later), "live", AGENT))
        await made.hear(delta(0))
        assert seqs(made.connection.sent) == [0]
        unreadable = made.metrics.registry.get_sample_value("hashee_frame_dropped_total", {"reason": "live_unreadable"})
        assert unreadable == 4
        for _ in range(MOST_WAITING + 100):
            made.streams.heard(b"")
        dropped = made.metrics.registry.get_sample_value("hashee_frame_dropped_total", {"reason": "live_overflow"})
        assert dropped is not None
        assert dropped >= 99  # one may be in hand already


async def test_what_waits_to_be_shown_is_bounded_in_bytes_and_taken_up_again_once_there_is_room() -> None:
    """500 pieces of 400 KB were 200 MB."""
    made = Scene()
    made.connection.connect()
    large = bytes(MOST_WAITING_BYTES // 4)
    for _ in range(20):
        made.streams.heard(large)
    dropped = made.metrics.registry.get_sample_value("hashee_frame_dropped_total", {"reason": "live_overflow"})
    assert dropped == 16
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.streams.run)
        await trio.testing.wait_all_tasks_blocked()
        await made.begin()
        await made.hear(delta(0))
        assert seqs(made.connection.sent) == [0]
        nursery.cancel_scope.cancel()


async def test_pieces_that_came_before_their_streams_are_bounded_in_characters() -> None:
    async with scene() as made:
        text = "x" * 10_000
        for number in range(150):
            await made.hear(LiveDelta(CONVERSATION, f"stream-{number}", 0, text))
        kept = await shown_of_what_came_early(made, 150) * len(text)
        assert MOST_EARLY_CHARACTERS <= kept <= MOST_EARLY_CHARACTERS + len(text)


async def test_early_deltas_of_one_stream_are_bounded_and_wait_a_moment_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as made:
        for seq in range(MOST_EARLY_DELTAS + 5):
            await made.hear(delta(seq))
        await made.hear(delta(0, "late"))
        await made.begin()
        assert seqs(made.connection.sent) == list(range(MOST_EARLY_DELTAS))
        await trio.sleep(EARLY_SECONDS)
        await made.hear(delta(0, "another"))
        await made.begin("late")
        assert seqs(made.connection.sent) == list(range(MOST_EARLY_DELTAS)), "what came too early is forgotten"
        await made.begin("another")
        assert seqs(made.connection.sent)[MOST_EARLY_DELTAS:] == [0]


async def test_what_another_stream_says_is_not_shown_in_this_one() -> None:
    async with scene() as made:
        await made.begin()
        await made.hear(delta(0, "another"), delta(0))
        assert seqs(made.connection.sent) == [0]
        assert len(made.connection.sent) == 2, "nothing was taken for a gap"


async def test_a_stream_that_goes_on_for_too_long_is_over(autojump_clock: trio.testing.MockClock) -> None:
    async with scene() as made:
        await made.begin()
        await trio.sleep(MOST_STREAM_SECONDS)
        assert not made.streams.is_of_present_connection("stream")
        await made.hear(delta(0))
        assert not await made.streams.end(CONVERSATION, ANSWER, "stream")
        assert made.connection.sent == [start()]


async def test_of_an_earlier_connections_streams_nothing_is_kept_and_their_end_is_not_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as made:
        await made.begin("former")
        await made.begin("elsewhere", "another conversation")
        made.connection.disconnect()
        made.connection.connect()
        await made.begin("newer")
        assert made.connection.sent[2:] == [start("newer")]
        assert [one.stream_id for one in made.streams.shown()] == ["newer"]
        present = [made.streams.is_of_present_connection(one) for one in ("former", "elsewhere", "newer")]
        assert present == [False, False, True]


async def test_of_several_supervisors_one_tells_who_types() -> None:
    async with scene(speaks=False) as made:
        await made.hear(LiveTyping(CONVERSATION, active=True))
        assert made.connection.sent == []


async def test_what_is_shown_for_a_lost_job_is_over_here_and_the_others_are_told() -> None:
    async with scene() as made:
        await made.begin()
        await made.streams.job_lost(CONVERSATION)
        assert made.connection.sent == [start(), StreamAbort("stream", CONVERSATION)]
        [told] = made.outbox.told
        assert unpack_live(told, key=KEYS.bus, agent_id=AGENT) == LiveAbort(CONVERSATION)


async def test_why_something_is_passed_over_is_said_once_for_each_reason_and_for_so_many() -> None:
    with structlog.testing.capture_logs() as lines:
        async with scene() as made:
            for number in range(MOST_TAGS_SAID + 5):
                for _ in range(2):
                    later = {"type": f"of release {number}"}
                    made.streams.heard(KEYS.bus.seal(msgspec.msgpack.encode(later), "live", AGENT))
            await trio.testing.wait_all_tasks_blocked()
    assert len(lines) == MOST_TAGS_SAID
    assert len({line["reason"] for line in lines}) == MOST_TAGS_SAID
