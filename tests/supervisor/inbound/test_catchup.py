"""Polling: the cursor moves over a page that was taken in whole, and over nothing else."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from bus.transport.wire import RedisFull, RedisUnavailable
from crypto.envelope import Envelope
from supervisor.inbound.catchup import INTERVAL_SECONDS, Catchup, StoppedBy
from supervisor.inbound.incoming import Incoming
from supervisor.inbound.reading import FrameReader
from supervisor.inbound.readings import Reading
from supervisor.inbound.unpolled import MOST_UNPOLLED, UnpolledPushes
from supervisor.relay.frames import MessageAck, MessageNew
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.rest import Page, RestFailed
from supervisor.settings.pauses import Pauses
from tests.redis_server import running_redis
from tests.supervisor.builders import WAIT_SECONDS, Core, open_core, until
from tests.supervisor.doubles import FakeRest
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.person import CONVERSATION, Person, message_frame
from tests.waiting import waiting_for

NOTHING_TO_DO: dict[str, object] = {"type": "system", "event": {"kind": "unknown"}}
OTHER_CONVERSATION = "01906abc-0000-7000-8000-0000000000c2"


def recent(frame: MessageNew, *, hours_ago: float = 0) -> MessageNew:
    created = datetime.now(UTC) - timedelta(hours=hours_ago)
    return msgspec.structs.replace(frame, created_at=created.isoformat())


def fail_reading_once(monkeypatch: pytest.MonkeyPatch, *, of: str) -> None:
    """The relay is asked for something that the message needs, and does not answer."""
    read, left = FrameReader.read, [of]

    async def fail_once(
        reader: FrameReader, incoming: Incoming, envelope: Envelope, make_room: Callable[[], Awaitable[None]]
    ) -> Reading:
        if incoming.frame.sender_id in left:
            left.clear()
            raise RestFailed("relations", 503, "unavailable")
        return await read(reader, incoming, envelope, make_room)

    monkeypatch.setattr(FrameReader, "read", fail_once)


async def poll(core: Core) -> bool:
    with waiting_for("the catch-up to reach the present", WAIT_SECONDS):
        return await core.catchup.poll_to_the_present()


async def test_everything_after_the_cursor_is_taken_in_page_by_page(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.rest.page_length = 2
        core.rest.history += [recent(ada.say(f"{number}")) for number in range(5)]
        assert await poll(core)
        assert await core.store.cursor() == message_id(core, 4)
        assert core.rest.polled_with == [None, message_id(core, 1), message_id(core, 3), message_id(core, 4)]
        assert await core.jobs() == [f"{number}" for number in range(5)]


async def test_a_page_with_a_message_that_could_not_be_taken_in_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        core.rest.page_length = 2
        bob = Person(core.rest, "01906abc-0000-7000-8000-0000000000b1")
        bob.meet()
        core.rest.history += [
            recent(ada.say("one")),
            recent(bob.say("hello", conversation=OTHER_CONVERSATION)),
            recent(ada.say("two")),
        ]
        await core.owners.note(core.rest.related[0], "active")
        fail_reading_once(monkeypatch, of=bob.user_id)
        assert not await poll(core)
        assert await core.store.cursor() is None
        assert await poll(core)
        assert await core.store.cursor() == message_id(core, 2)
        assert sorted(await core.jobs()) == ["hello", "one", "two"]


async def test_what_is_known_or_quarantined_does_not_hold_the_page(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        pushed = recent(ada.say("pushed before"))
        await core.push(pushed)
        core.rest.history += [pushed, recent(message_frame("no envelope", seq=2)), recent(ada.say("after", seq=3))]
        assert await poll(core)
        assert await core.store.cursor() == message_id(core, 2)
        assert await core.jobs() == ["pushed before", "after"]


async def test_pushes_never_move_the_cursor(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say())
        assert await core.store.cursor() is None


async def test_the_first_sync_skips_what_is_too_old_and_answers_the_rest(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.rest.history += [recent(ada.say("too old"), hours_ago=25), recent(ada.say("young"), hours_ago=23)]
        assert await poll(core)
        assert core.count("frame_dropped_total", reason="before_first_start") == 1
        assert await core.jobs() == ["young"]


async def test_after_the_first_sync_nothing_is_too_old(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.rest.history.append(recent(ada.say("first")))
        assert await poll(core)
        core.rest.history.append(recent(ada.say("late, but not lost"), hours_ago=100))
        assert await poll(core)
        assert await core.jobs() == ["first", "late, but not lost"]


async def test_a_time_that_cannot_be_read_is_not_old(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        for created_at in ("", "yesterday", "0001-01-01T00:00:00"):
            frame = msgspec.structs.replace(ada.say(created_at), created_at=created_at)
            core.rest.history.append(frame)
        assert await poll(core)
        assert await core.jobs() == ["", "yesterday", "0001-01-01T00:00:00"]


async def test_what_a_page_holds_beside_messages_is_counted_and_passed_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.rest.history += [MessageAck("c", "an-ack", 1), recent(ada.say())]
        assert await poll(core)
        assert core.count("frame_dropped_total", reason="unknown_type") == 1
        assert await core.jobs() == ["hello"]


async def test_two_supervisors_that_poll_the_same_page_take_each_message_in_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest) as other:
        core.rest.history += [recent(ada.say(f"{number}")) for number in range(10)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, core)
            nursery.start_soon(poll, other)
        assert await core.store.cursor() == message_id(core, 9)
        assert await core.jobs() == [f"{number}" for number in range(10)]


async def test_it_polls_when_asked_and_again_until_the_relay_and_redis_answer(tmp_path: Path) -> None:
    rest = FakeRest()
    with running_redis(tmp_path) as server:
        async with open_core(server.url, rest, pauses=Pauses(poll_retry=0.02)) as core, trio.open_nursery() as nursery:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            rest.history.append(recent(ada.say()))
            rest.fail_next("poll", RestFailed("poll", 0, "ConnectError"), RestFailed("poll", 500))
            nursery.start_soon(core.catchup.run)
            await trio.testing.wait_all_tasks_blocked()
            assert rest.calls.count("poll") == 0
            server.kill()
            core.polls.ask()
            server.start()

            async def moved() -> bool:
                return await core.store.cursor() is not None

            await until(moved)
            assert await core.jobs() == ["hello"]
            nursery.cancel_scope.cancel()


async def test_it_polls_once_a_minute_without_being_asked(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    async with scene(tmp_path) as (core, ada), trio.open_nursery() as nursery:
        nursery.start_soon(core.catchup.run)
        core.rest.history.append(recent(ada.say()))
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(INTERVAL_SECONDS)

        async def moved() -> bool:
            return await core.store.cursor() is not None

        await until(moved)
        nursery.cancel_scope.cancel()


async def test_a_push_and_a_poll_of_the_same_messages_at_once_keep_their_order(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        frames = [recent(ada.say(f"{number}")) for number in range(20)]
        core.rest.history += frames
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, core)
            for frame in frames:
                core.inbound.push(frame)
                await trio.lowlevel.checkpoint()

        async def idle() -> bool:
            return core.inbound.under_way == 0

        await until(idle)
        assert await poll(core)
        assert await core.jobs() == [f"{number}" for number in range(20)]


def message_id(core: Core, at: int) -> str:
    frame = core.rest.history[at]
    assert isinstance(frame, MessageNew)
    assert frame.conversation_id in (CONVERSATION, OTHER_CONVERSATION)
    return frame.message_id


async def test_a_long_conversation_is_polled_before_what_was_taken_in_is_forgotten(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        polled = 0
        for _ in range(8):  # of 2,048 messages at least 512 are forgotten
            said = [recent(ada.say(payload=NOTHING_TO_DO)) for _ in range(256)]
            core.rest.history += said
            for frame in said:
                core.inbound.push(frame)
            await core.until_idle()
            if core.polls.times > polled:
                polled = core.polls.times
                assert await poll(core)
        assert await poll(core)
        assert await core.store.cursor() == message_id(core, -1)
        assert await core.quarantine.count() == 0
        assert core.count("message_duplicate_total") == len(core.rest.history)


async def test_a_poll_ends_while_people_talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(tmp_path) as (core, ada):
        rest_poll = core.rest.poll

        async def one_comes_meanwhile(cursor: str | None) -> Page:
            said = recent(ada.say(payload=NOTHING_TO_DO))
            await core.push(said)
            core.rest.history.append(said)
            return await rest_poll(cursor)

        for _ in range(3):
            await one_comes_meanwhile(None)
        monkeypatch.setattr(core.rest, "poll", one_comes_meanwhile)
        assert await poll(core)
        assert await core.store.cursor() == message_id(core, -1)
        assert await core.store.first_sync_began_ms() is None


async def test_what_is_pushed_while_the_cursor_stands_comes_with_the_poll_before_anything_is_forgotten(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (core, ada):
        core.rest.history += [recent(ada.say(payload=NOTHING_TO_DO)) for _ in range(MOST_UNPOLLED + 20)]
        for at in range(0, len(core.rest.history), 20):  # each portion within the time that a test has
            for frame in core.rest.history[at : at + 20]:
                assert isinstance(frame, MessageNew)
                core.inbound.push(frame)
            await core.until_idle()
        assert core.count("frame_dropped_total", reason="hold") == 20
        assert core.polls.times >= 20
        assert await poll(core)
        assert core.count("message_duplicate_total") == MOST_UNPOLLED
        await core.push(ada.say(payload=NOTHING_TO_DO))
        assert core.count("frame_dropped_total", reason="hold") == 20, "it goes on"


async def test_while_polling_fails_nobody_waits_for_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), trio.open_nursery() as nursery:
        core.rest.fail_next("poll", *[RestFailed("poll", 503, "unavailable")] * 1000)
        core.polls.ask()
        nursery.start_soon(core.catchup.run)
        await until(lambda: has_called(core, "poll"))
        for _ in range(2):
            for _ in range(200):
                core.inbound.push(ada.say(payload=NOTHING_TO_DO))
            await core.until_idle()
        assert core.count("frame_dropped_total", reason="hold") == 0
        nursery.cancel_scope.cancel()


async def has_called(core: Core, call: str) -> bool:
    return call in core.rest.calls


async def test_the_relay_says_when_to_poll_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_at: list[float] = []

    async def refuse() -> StoppedBy:
        asked_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise RestFailed("poll", 429, "rate_limited", retry_after_seconds=20)

    polls = PollWish()
    inbound = SimpleNamespace(unpolled=UnpolledPushes(polls))
    polls.ask()
    catchup = Catchup(None, None, rest=None, inbound=inbound, metrics=None, polls=polls, first_sync_seconds=0)  # type: ignore[arg-type]
    monkeypatch.setattr(catchup, "poll", refuse)
    with trio.move_on_after(50):
        await catchup.run()
    assert asked_at == [0, 20, 40]


async def test_a_redis_that_refuses_for_long_is_said_once_until_it_is_another_reason_or_well(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk refuses each second, and the log is on it too."""
    left = [*([RedisFull("OOM")] * 3), *([RedisUnavailable("gone")] * 3), None, RedisUnavailable("gone")]

    async def refuse() -> StoppedBy:
        await trio.lowlevel.checkpoint()
        problem = left.pop(0) if left else None
        if problem is None:
            return StoppedBy.NOT_TAKEN
        raise problem

    async def no_pause() -> None:
        await trio.lowlevel.checkpoint()

    polls = PollWish()
    inbound = SimpleNamespace(unpolled=UnpolledPushes(polls), wait_while_paused=no_pause)
    polls.ask()
    catchup = Catchup(None, None, rest=None, inbound=inbound, metrics=None, polls=polls, first_sync_seconds=0)  # type: ignore[arg-type]
    monkeypatch.setattr(catchup, "poll", refuse)
    with capture_logs() as said, trio.move_on_after(60):
        await catchup.run()
    assert not left
    assert [line["reason"] for line in said if line["event"] == "poll: failed"] == ["OOM", "gone", "gone"]
