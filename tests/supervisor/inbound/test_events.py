"""An event of the relay becomes a job once, where the handlers ask for events of its name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
import trio.testing

from bus.records.events import EVENTS, Event, event_in
from bus.records.records import NOWHERE, Job
from bus.steps.placing import Pins, Placed, Placing
from bus.steps.policies import Policies, PolicyStore
from bus.transport.wire import RedisDenied, RedisFailed, RedisFull, RedisRefused, RedisUnavailable
from host.budgets import UNLIMITED_REDIS_BYTES, StoreBudgets
from host.instance import Instance
from supervisor.inbound.events import MOST_WAITING, Events, event_of
from supervisor.observe.metrics import Metrics
from supervisor.relay.frames import (
    FromRelay,
    GroupKeyRotated,
    MessageAck,
    MessageRead,
    PlatformEvent,
    Relation,
    RelationEstablished,
    UnknownFrame,
    decode_from_relay,
)
from tests.redis_server import redis_server, running_redis
from tests.supervisor.builders import KEYS, WAIT_SECONDS, Core, open_core, worker
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import AGENT, CONVERSATION, PERSON, Person
from tests.waiting import until, waiting_for

MET = RelationEstablished(Relation(user_id="ada", display_name="Ada", conversation_id="c1"))
READ = MessageRead(CONVERSATION, PERSON, 7)


@asynccontextmanager
async def events_at_work(core: Core, *wanted: str) -> AsyncIterator[None]:
    await core.policies.publish(Policies(events=wanted))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.events.run)
        yield
        nursery.cancel_scope.cancel()


async def placed(core: Core, count: int, *wanted: str) -> list[Job]:
    """The next jobs, each ended."""
    found = list[Job]()
    async with worker(core, "events", policies=Policies(events=wanted)) as jobs:
        while len(found) < count:
            with waiting_for("an event's job", WAIT_SECONDS):
                [job] = await jobs.take(1)
            await jobs.finish(job)
            jobs.release(job)
            found.append(job)
    return found


async def test_an_event_that_is_asked_for_is_placed_once_however_often_and_wherever_it_is_heard(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with (
            open_core(url, FakeRest()) as core,
            open_core(url, core.rest, Instance("00000000", 1, 1)) as other,
            events_at_work(core, "relation.established"),
            events_at_work(other, "relation.established"),
        ):
            for at in (core, other, core):
                at.heard(MET)
            core.heard(READ)  # nobody asks for it
            core.heard(msgspec.structs.replace(MET, payload=Relation(user_id="ben")))
            first, second = await placed(core, 2, "relation.established")
            assert (first.kind, first.conversation_id) == ("event", NOWHERE)
            assert event_in(first.message) == Event(
                name="relation.established",
                conversation_id="c1",
                user_id="ada",
                fields={"user_id": "ada", "display_name": "Ada", "conversation_id": "c1"},
            )
            assert event_in(second.message).user_id == "ben"
            await until(lambda: not core.events.waiting and not other.events.waiting, WAIT_SECONDS)
            assert await core.client.command("ZCARD", core.keys.placements) == 2


async def test_an_event_of_a_known_conversation_waits_there_behind_its_messages(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        rest = FakeRest()
        async with open_core(url, rest) as core, events_at_work(core, "message.read"):
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await core.push(ada.say("hello"))
            core.heard(READ)
            message, event = await placed(core, 2, "message.read")
            assert (message.kind, event.kind) == ("message", "event")
            assert (event.conversation_id, event.message.sender_id) == (CONVERSATION, ada.user_id)
            assert event_in(event.message).fields["seq"] == 7


async def test_events_that_come_while_redis_is_away_are_placed_when_it_is_back_and_are_bounded(tmp_path: Path) -> None:
    with running_redis(tmp_path) as redis:
        async with open_core(redis.url, FakeRest()) as core, events_at_work(core, "message.read"):
            redis.kill()
            for seq in range(MOST_WAITING + 2):
                core.heard(msgspec.structs.replace(READ, seq=seq + 1))
            assert core.count("frame_dropped_total", reason="event_overflow") >= 1
            redis.start()
            [job] = await placed(core, 1, "message.read")
            assert event_in(job.message).fields["seq"] == 1


class Refusing:
    """A placing to which Redis says no, the first time."""

    def __init__(self, error: RedisFailed) -> None:
        self.error: RedisFailed | None = error
        self.placed = list[bytes]()
        self.budgets = StoreBudgets.of(UNLIMITED_REDIS_BYTES)

    async def now_ms(self) -> int:
        await trio.lowlevel.checkpoint()
        return 1_000_000

    async def epoch(self) -> int:
        await trio.lowlevel.checkpoint()
        return 0

    async def was_placed(self, job_id: str) -> bool:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return job_id in str(self.placed)

    async def pins(self, conversation_id: str) -> Pins | None:
        await trio.lowlevel.checkpoint()
        return Pins("group", conversation_id)

    async def place(self, packed: bytes) -> Placed:
        await trio.lowlevel.checkpoint()
        self.placed.append(packed)
        return Placed.PLACED


class Asking:
    """The policies of an agent that asks for read receipts."""

    async def events(self) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        return frozenset({"message.read"})


@pytest.mark.pure
@pytest.mark.parametrize(
    ("error", "placed_events"),
    [
        (RedisUnavailable("away"), 2),
        (RedisUnavailable("no answer within 5 s"), 2),
        (RedisFull("OOM"), 2),
        (RedisDenied("NOPERM"), 2),
        (RedisRefused("WRONGTYPE"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_whatever_redis_says_to_an_event_the_next_one_goes_on(
    error: RedisFailed,
    placed_events: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    placing, metrics = Refusing(error), Metrics()
    events = Events(
        cast(Placing, placing), cast(PolicyStore, Asking()), bus_key=KEYS.bus, agent_id=AGENT, metrics=metrics
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.run)
        events.heard(READ)
        events.heard(msgspec.structs.replace(READ, seq=8))
        await until(lambda: len(placing.placed) == placed_events and not events.waiting, WAIT_SECONDS)
        nursery.cancel_scope.cancel()
    dropped = metrics.registry.get_sample_value("hashee_frame_dropped_total", {"reason": "event_refused"}) or 0
    assert placed_events + dropped == 2


async def test_an_event_too_large_to_be_kept_is_dropped_and_counted_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest()) as core, events_at_work(core, "group.updated"):
            core.heard(PlatformEvent("group.updated", {"name": "x" * 40_000}))
            core.heard(PlatformEvent("group.updated", {"name": "y"}))
            [job] = await placed(core, 1, "group.updated")
            assert event_in(job.message).fields == {"name": "y"}
            assert core.count("frame_dropped_total", reason="event_too_large") == 1


@pytest.mark.pure
@pytest.mark.parametrize(
    "text",
    [
        '{"type":"relation.terminated","payload":{"user_id":"ada"}}',
        '{"type":"message.recalled","message_id":"m","conversation_id":"c","recalled_by":"ada"}',
        '{"type":"reaction.update","message_id":"m","conversation_id":"c","user_id":"ada","emoji":null}',
    ],
)
def test_each_event_frame_is_an_event_with_its_fields(text: str) -> None:
    frame = decode_from_relay(text)
    assert not isinstance(frame, UnknownFrame)
    event = event_of(frame)
    assert event is not None
    assert event.name in EVENTS
    assert event.user_id == "ada"


@pytest.mark.pure
@pytest.mark.parametrize("frame", [MessageAck("c", "m", 1)])
def test_what_belongs_to_a_message_is_no_event(frame: FromRelay) -> None:
    assert event_of(frame) is None
    assert event_of(GroupKeyRotated("g", 2)) is not None


@pytest.mark.pure
@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**300])
def test_an_integer_that_no_record_holds_is_left_out_of_an_event(number: int) -> None:
    """An event is written into Redis, and what could not be written ended the supervisor, each time that the relay said it."""
    frame = decode_from_relay(
        f'{{"type":"group.updated","conversation_id":"c","size":{number},"more":{{"n":[{number}],"m":2}}}}'
    )
    assert isinstance(frame, PlatformEvent)
    event = event_of(frame)
    assert event is not None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event))["fields"] == {"conversation_id": "c", "more": {"m": 2}}
