"""A timer that is due becomes one job each time, whoever looks, however late, and whatever stands before it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import msgspec
import trio

from bus.records.daily import Daily
from bus.records.records import NOWHERE, InboundMessage, open_job
from bus.records.timers import TIMER_SCHEMA, Timer, pack_timer
from bus.steps.placing import MOST_PLACED
from bus.steps.policies import Policies
from bus.steps.timers import AGAIN_MS, Alarm, Fired, Timers
from supervisor.settings.pauses import Pauses
from tests.redis_server import redis_server
from tests.supervisor.builders import KEYS, Core, open_core
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import AGENT
from tests.waiting import waiting_for

CONVERSATION = "conversation"
MORE_THAN_A_PAGE = 130
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


@asynccontextmanager
async def scene(tmp_path: Path) -> AsyncIterator[Core]:
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest(), pauses=Pauses(timers_look=0.01)) as core:
            yield core


def timers_of(core: Core) -> Timers:
    return Timers(core.client, core.keys, KEYS.bus)


async def set_timer(core: Core, timer: Timer, packed: bytes | None = None) -> Alarm:
    record = packed or pack_timer(timer, key=KEYS.bus, agent_id=AGENT)
    await core.client.command("HSET", core.keys.timers(timer.conversation_id), timer.id, record)
    await core.client.command("ZADD", core.keys.alarms, timer.due_ms, f"{timer.conversation_id}\x00{timer.id}")
    return Alarm(timer.conversation_id, timer.id, timer.due_ms)


def reminder(name: str, due_ms: int, *, conversation: str = CONVERSATION, daily: Daily | None = None) -> Timer:
    return Timer(
        id=name, conversation_id=conversation, due_ms=due_ms, kind="reminder", name=name, daily=daily, sender_id="ada"
    )


async def jobs_of(core: Core) -> list[InboundMessage]:
    """Those that run or wait, in the order of their conversations."""
    rows = cast("list[tuple[bytes, list[bytes]]]", await core.client.command("XRANGE", core.keys.jobs, "-", "+"))
    records = [flat[1] for _, flat in rows]
    records += cast("list[bytes]", await core.client.command("ZRANGE", core.keys.placed(CONVERSATION), 0, -1))
    return [open_job(record, key=KEYS.bus, agent_id=AGENT) for record in records]


async def test_what_is_due_becomes_a_job_with_its_name_and_when_it_was_due(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        now_ms = await core.store.now_ms()
        await set_timer(core, reminder("digest", now_ms - 5000))
        await set_timer(core, reminder("later", now_ms + 3_600_000))
        assert await core.timer_mover.look() == 1
        [job] = await jobs_of(core)
        assert job.message_id == f"timer:digest:{now_ms - 5000}"
        assert job.payload == {"type": "reminder", "name": "digest", "data": b"", "due_ms": now_ms - 5000}
        assert await timers_of(core).count(CONVERSATION) == 1
        assert await core.timer_mover.look() == 0
        value = core.metrics.registry.get_sample_value
        assert value("hashee_timer_fired_total", {"kind": "reminder"}) == 1.0
        assert cast(float, value("hashee_timer_lateness_seconds_sum")) >= 5.0


async def test_two_that_look_at_once_fire_each_timer_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        now_ms = await core.store.now_ms()
        names = [f"{number:03}" for number in range(MORE_THAN_A_PAGE)]
        for name in names:
            await set_timer(core, reminder(name, now_ms - 1, conversation=name))
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(core.timer_mover.look)
        assert sorted(job.message_id for job in await jobs_of(core)) == [f"timer:{name}:{now_ms - 1}" for name in names]


async def test_all_that_is_due_is_fired_also_behind_what_cannot_be(tmp_path: Path) -> None:
    """In a conversation with as many placed jobs as may wait, of another version, and refused by Redis."""
    async with scene(tmp_path) as core:
        now_ms = await core.store.now_ms()
        for number in range(MOST_PLACED + 1 + MORE_THAN_A_PAGE):
            await set_timer(core, reminder(f"{number:03}", now_ms - 1000 + number))
        newer = msgspec.msgpack.encode([TIMER_SCHEMA + 1, {"shape": "other"}])
        await set_timer(core, reminder("newer", now_ms - 2000, conversation="newer"), newer)
        await core.client.command("SET", core.keys.timers("spoiled"), "a string")
        await core.client.command("ZADD", core.keys.alarms, now_ms - 2000, "spoiled\x00one")
        await set_timer(core, reminder("last", now_ms - 1, conversation="another"))
        assert await core.timer_mover.look() == MOST_PLACED + 2
        assert "timer:last" in {job.message_id.rpartition(":")[0] for job in await jobs_of(core)}
        left = await timers_of(core).due(now_ms + 2 * AGAIN_MS, 1000)
        assert len(left) == MORE_THAN_A_PAGE + 2, "nothing is lost"
        assert {alarm.conversation_id for alarm in left} == {CONVERSATION, "newer", "spoiled"}
        assert all(alarm.due_ms >= now_ms + AGAIN_MS - 1000 for alarm in left)


async def test_a_daily_one_that_was_missed_for_days_fires_once_and_is_due_on_a_later_date(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        now_ms = await core.store.now_ms()
        at = datetime.fromtimestamp(now_ms / 1000 - 3600, UTC)
        daily = Daily(f"{at.hour:02}:{at.minute:02}", "UTC")
        due_ms, _ = daily.next_after(now_ms - 5 * DAY_MS)
        await set_timer(core, reminder("digest", due_ms, daily=daily))
        assert await core.timer_mover.look() == 1
        assert await core.timer_mover.look() == 0
        [job] = await jobs_of(core)
        assert job.payload["due_ms"] == due_ms
        [alarm] = await timers_of(core).due(now_ms + DAY_MS)
        assert alarm.due_ms == daily.next_after(now_ms)[0]
        packed = await timers_of(core).read(alarm)
        assert packed is not None
        assert timers_of(core).opened(packed, alarm).due_ms == alarm.due_ms


async def test_redis_clock_counts_and_what_was_set_anew_is_not_fired_as_it_was(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        timers, now_ms = timers_of(core), await core.store.now_ms()
        timer = reminder("digest", now_ms + 3_600_000)
        alarm = await set_timer(core, timer)
        packed = await timers.read(alarm)
        assert packed is not None
        assert await timers.fire(packed, timer, now_ms + DAY_MS) is Fired.EARLY, "whatever this host's clock says"
        due = reminder("digest", now_ms - 1)
        await set_timer(core, due)
        assert await timers.fire(packed, timer, now_ms) is Fired.CHANGED
        assert await jobs_of(core) == []
        again = await timers.read(alarm)
        assert again is not None
        assert await timers.fire(again, due, now_ms) is Fired.FIRED
        assert await timers.fire(again, due, now_ms) is Fired.CHANGED, "its answer was lost, and it is tried again"
        assert len(await jobs_of(core)) == 1


async def test_what_nobody_can_read_is_given_up_and_an_alarm_without_a_timer_is_removed(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        now_ms = await core.store.now_ms()
        damaged = await set_timer(core, reminder("damaged", now_ms - 1), b"\x91")
        other = pack_timer(reminder("other", 1), key=KEYS.bus, agent_id=AGENT)
        await set_timer(core, reminder("moved", now_ms - 1), other)
        await core.client.command("ZADD", core.keys.alarms, now_ms - 1, f"{CONVERSATION}\x00gone")
        assert await core.timer_mover.look() == 0
        assert await timers_of(core).due(now_ms + DAY_MS) == []
        assert await timers_of(core).count(CONVERSATION) == 0
        await set_timer(core, reminder("damaged", now_ms + 1))
        await timers_of(core).forget(b"\x91", damaged)
        assert await timers_of(core).count(CONVERSATION) == 1, "it was set anew meanwhile"


async def test_it_looks_by_itself_until_something_is_due(tmp_path: Path) -> None:
    async with scene(tmp_path) as core, trio.open_nursery() as nursery:
        await set_timer(core, reminder("digest", await core.store.now_ms() + 200))
        nursery.start_soon(core.timer_mover.run)
        with waiting_for("the timer to become a job", 20.0):
            while not (jobs := await jobs_of(core)):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert jobs[0].payload["name"] == "digest"


async def declared(core: Core, **every: int) -> None:
    await core.policies.publish(Policies(every=every))
    await core.timer_mover.declare()


async def test_what_handlers_declare_runs_so_often_and_what_was_missed_runs_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        timers, now_ms = timers_of(core), await core.store.now_ms()
        await declared(core, refresh=3600)
        [alarm] = await timers.due(now_ms + DAY_MS)
        assert now_ms + HOUR_MS <= alarm.due_ms < now_ms + HOUR_MS + 60_000
        await declared(core, refresh=3600)
        assert await timers.due(now_ms + DAY_MS) == [alarm], "it stands as it is"
        packed = await timers.read(alarm)
        assert packed is not None
        missed = msgspec.structs.replace(timers.opened(packed, alarm), due_ms=now_ms - 5 * HOUR_MS - 1)
        await set_timer(core, missed)
        assert await core.timer_mover.look() == 1
        assert await core.timer_mover.look() == 0
        [job] = await jobs_of(core)
        assert (job.conversation_id, job.payload["name"]) == (NOWHERE, "every refresh")
        [alarm] = await timers.due(now_ms + DAY_MS)
        assert alarm.due_ms == missed.due_ms + 6 * HOUR_MS, "the first time that is to come"


async def test_another_period_counts_at_once_and_what_is_declared_no_more_ends(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        timers, now_ms = timers_of(core), await core.store.now_ms()
        await declared(core, refresh=86_400, sweep=3600)
        await declared(core, refresh=60, sweep=3600)
        refresh, sweep = await timers.due(now_ms + DAY_MS)
        assert refresh.due_ms < now_ms + HOUR_MS < sweep.due_ms + 60_000
        await declared(core, sweep=3600)
        await core.client.command("ZADD", core.keys.alarms, 1, f"{NOWHERE}\x00{refresh.timer_id}")
        assert await core.timer_mover.look() == 0
        assert await timers.due(now_ms + DAY_MS) == [sweep]
        await set_timer(core, reminder(sweep.timer_id, now_ms + DAY_MS, conversation=NOWHERE), b"\x91")
        await declared(core, sweep=3600)
        assert (await timers.due(now_ms + DAY_MS))[0].due_ms < now_ms + 2 * HOUR_MS, "a damaged one is set anew"


async def test_a_former_workers_policies_declare_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.client.command("HSET", core.keys.policy, "busy", "queue", "every", b"\x80")
        await core.timer_mover.declare()
        assert await core.policies.every() == {}


async def test_what_was_set_anew_since_it_was_read_is_not_declared_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await declared(core, refresh=3600)
        [alarm] = await timers_of(core).due(await core.store.now_ms() + DAY_MS)
        keys = (*core.keys.board(NOWHERE), core.keys.timers(NOWHERE), core.keys.alarms)
        words = (NOWHERE, alarm.timer_id, b"another record", 1, b"mine")
        assert await core.client.script("set_timer", keys, *words) == 0
        assert await timers_of(core).due(await core.store.now_ms() + DAY_MS) == [alarm]
