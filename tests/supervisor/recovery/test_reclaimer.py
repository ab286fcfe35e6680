"""What the dead and the silent held goes on: a known death at once, silence after a lease of unbroken connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio

from bus.records.keys import JOBS_GROUP
from bus.records.records import SUSPECTED, Job
from bus.transport.client import RedisUnavailable
from host.instance import Instance
from supervisor.recovery.lease_clock import LeaseClock
from supervisor.recovery.reclaimer import MOST_RUN_ALONE, TIMES, Reclaimer, ReclaimerTimes, Shown
from tests.redis_server import redis_server, running_redis
from tests.supervisor.builders import (
    WAIT_SECONDS,
    Core,
    dead_instance,
    open_core,
    reply_to_next,
    sending,
    worker,
)
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import CONVERSATION, Person
from tests.waiting import until, waiting_for

LONG_SECONDS = 60.0
HOUR_MS = 3_600_000


def quick(reclaimer_seconds: float = 5.0) -> ReclaimerTimes:
    return ReclaimerTimes(interval_seconds=0.02, reclaimer_seconds=reclaimer_seconds)


async def taken_an_hour_ago(core: Core, consumer: str) -> None:
    """As taken_and_left, and Redis has not heard of it for an hour."""
    await taken_and_left(core, consumer)
    [pending] = await core.recovery.pending(core.recovery.jobs)
    held = (core.keys.jobs, JOBS_GROUP, consumer, 0, pending.entry_id)
    await core.client.command("XCLAIM", *held, "IDLE", HOUR_MS, "JUSTID")


@asynccontextmanager
async def scene(url: str) -> AsyncIterator[Core]:
    """One job is ready to be taken."""
    rest = FakeRest()
    async with open_core(url, rest) as core:
        await core.prekeys.publish()
        ada = Person(rest)
        ada.meet()
        await core.push(ada.say())
        yield core


def reclaimer(
    core: Core,
    times: ReclaimerTimes = TIMES,
    *,
    lease_seconds: float = LONG_SECONDS,
    counts_strikes: bool = True,
    shown: Shown | None = None,
) -> Reclaimer:
    return Reclaimer(
        client=core.client,
        clock=LeaseClock(core.client, core.store, lease_seconds),
        recovery=core.recovery,
        instance=core.instance,
        words=core.declared_words,
        metrics=core.metrics,
        shown=shown or core.streams,
        counts_strikes=counts_strikes,
        times=times,
    )


class ShownThere:
    """Writes down where typing is shown."""

    def __init__(self) -> None:
        self.conversations: list[str] = []

    async def job_lost(self, conversation_id: str) -> None:
        raise AssertionError(f"no job of {conversation_id} was lost")

    async def kept_waiting(self, conversation_id: str) -> None:
        self.conversations.append(conversation_id)


async def taken_and_left(core: Core, consumer: str) -> None:
    """A worker takes the job and is heard no more: nobody renews."""
    command = ("XREADGROUP", "GROUP", JOBS_GROUP, consumer, "COUNT", 1, "STREAMS", core.keys.jobs, ">")
    assert await core.client.command(*command)


async def next_job(core: Core, name: str = "new") -> Job:
    async with worker(core, name) as jobs:
        with waiting_for("a job to be taken", WAIT_SECONDS):
            [job] = await jobs.take(1)
        await jobs.finish(job)
        jobs.release(job)
    return job


async def test_the_jobs_of_a_dead_process_of_this_host_go_on_at_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core, trio.open_nursery() as nursery:
            await taken_and_left(core, dead_instance().worker_name(1))
            nursery.start_soon(reclaimer(core, quick()).run)
            job = await next_job(core)
            assert job.deliveries == 2
            assert core.count("lease_reclaimed_total", kind="job") == 1
            nursery.cancel_scope.cancel()


async def test_a_worker_that_the_pool_saw_die_is_acted_on_without_the_reclaimers_lease(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core:
            name = core.instance.worker_name(7)
            await taken_and_left(core, name)
            await reclaimer(core).worker_died(name)
            assert (await next_job(core)).deliveries == 2


@pytest.mark.parametrize(
    ("by_itself", "counts_strikes", "strikes"), [(True, True, 1), (False, True, 0), (True, False, 0)]
)
async def test_a_death_is_a_strike_where_the_worker_died_by_itself_and_strikes_count(
    tmp_path: Path, by_itself: bool, counts_strikes: bool, strikes: int
) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core:
            name = core.instance.worker_name(7)
            await taken_and_left(core, name)
            await reclaimer(core, counts_strikes=counts_strikes).worker_died(name, by_itself=by_itself)
            assert (await next_job(core)).strikes == strikes


@pytest.mark.parametrize(("ran", "strikes"), [(MOST_RUN_ALONE, 1), (MOST_RUN_ALONE + 1, SUSPECTED)])
async def test_what_was_one_of_many_that_a_dead_worker_ran_is_suspected_first(
    tmp_path: Path, ran: int, strikes: int
) -> None:
    with redis_server(tmp_path) as url:
        rest = FakeRest()
        async with open_core(url, rest) as core:
            await core.prekeys.publish()
            name = core.instance.worker_name(7)
            ada = Person(rest)
            ada.meet()
            for number in range(ran):
                await core.push(ada.say(seq=1, conversation=f"{CONVERSATION[:-2]}{number:02x}"))
                await taken_and_left(core, name)
            await reclaimer(core).worker_died(name, by_itself=True)
            assert [(await next_job(core)).strikes for _ in range(ran)] == [strikes] * ran


async def test_the_lease_of_the_living_is_theirs_and_that_of_the_dead_of_this_host_is_taken(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core:
            for holder, is_taken in (("00000000-1-1", False), (dead_instance().name, True)):
                await core.client.command("SET", core.keys.reclaimer, holder, "PX", 60_000)
                assert await core.recovery.lease.hold(60_000) is is_taken


async def test_a_death_that_is_told_while_redis_is_away_breaks_nothing(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with scene(server.url) as core:
            server.kill()
            await reclaimer(core).worker_died("whoever")


async def test_a_silent_holder_elsewhere_keeps_its_job_for_a_lease_and_no_longer(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core, trio.open_nursery() as nursery:
            await taken_and_left(core, "00000000-1-1/1")
            start = trio.current_time()
            nursery.start_soon(reclaimer(core, quick(), lease_seconds=0.3).run)
            job = await next_job(core)
            assert trio.current_time() - start > 0.2
            assert job.deliveries == 2
            nursery.cancel_scope.cancel()


async def test_after_a_suspend_the_living_have_a_lease_to_renew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core, trio.open_nursery() as nursery:
            ahead_ms, now_ms = 0, core.store.now_ms

            async def ahead() -> int:
                return await now_ms() + ahead_ms

            monkeypatch.setattr(core.store, "now_ms", ahead)
            awake = reclaimer(core, quick(), lease_seconds=0.5)
            nursery.start_soon(awake.run)
            await until_two_turns(awake)
            connected_at = core.client.connected_since
            assert connected_at is not None
            await until(lambda: trio.current_time() - connected_at > 0.5, WAIT_SECONDS)  # for longer than a lease
            ahead_ms, woke_at = HOUR_MS, trio.current_time()
            await until_two_turns(awake)
            await taken_an_hour_ago(core, "00000000-1-1/1")
            job = await next_job(core)
            assert trio.current_time() - woke_at > 0.45
            assert job.deliveries == 2
            nursery.cancel_scope.cancel()


async def test_after_redis_clock_was_put_back_leases_and_times_are_as_far_off_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core, trio.open_nursery() as nursery:
            ahead_ms, now_ms = HOUR_MS, core.store.now_ms

            async def ahead() -> int:
                return await now_ms() + ahead_ms

            monkeypatch.setattr(core.store, "now_ms", ahead)
            lease = reclaimer(core, quick())
            nursery.start_soon(lease.run)
            await until_two_turns(lease)
            await taken_an_hour_ago(core, "00000000-1-1/1")
            soon_ms = await now_ms() + 2 * HOUR_MS
            for times in (core.keys.due, core.keys.resend_times):
                await core.client.command("ZADD", times, soon_ms, "a conversation")
            ahead_ms = 0
            await until_two_turns(lease)
            await until_two_turns(lease)
            [again] = await core.recovery.pending(core.recovery.jobs)
            assert (again.consumer, again.idle_ms < HOUR_MS / 2) == ("00000000-1-1/1", True)
            for times in (core.keys.due, core.keys.resend_times):
                due_ms = float(cast("bytes", await core.client.command("ZSCORE", times, "a conversation")))
                assert due_ms == pytest.approx(soon_ms - HOUR_MS, abs=60_000), "once, by what it went back"
            nursery.cancel_scope.cancel()


async def until_two_turns(lease: Reclaimer) -> None:
    """Two, since the first may have begun before."""
    wanted = lease.turns + 2
    await until(lambda: lease.turns >= wanted, WAIT_SECONDS)


async def test_silence_counts_only_after_a_lease_of_unbroken_connection(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with scene(server.url) as core, trio.open_nursery() as nursery:
            await taken_an_hour_ago(core, "00000000-1-1/1")
            server.kill()
            nursery.start_soon(reclaimer(core, quick(), lease_seconds=0.4).run)
            server.start()
            await until(lambda: core.client.connected_since is not None, WAIT_SECONDS)
            since = core.client.connected_since
            assert since is not None
            await next_job(core)
            assert trio.current_time() - since >= 0.4
            nursery.cancel_scope.cancel()


async def test_a_holder_that_renews_keeps_its_job(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with (
            scene(url) as core,
            worker(core, "00000000-1-1/1", renew_seconds=0.05) as jobs,
            trio.open_nursery() as nursery,
        ):
            [job] = await jobs.take(1)
            taken_at, others = trio.current_time(), reclaimer(core, quick(), lease_seconds=0.3)
            nursery.start_soon(others.run)
            await until(lambda: trio.current_time() - taken_at > 2 * 0.3, WAIT_SECONDS)
            await until_two_turns(others)
            assert (await jobs.finish(job)).value == b"done"
            jobs.release(job)
            nursery.cancel_scope.cancel()


async def test_a_failed_job_runs_again_when_its_time_has_come(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core, trio.open_nursery() as nursery:
            async with worker(core) as jobs:
                [job] = await jobs.take(1)
                await jobs.fail(job, "broke", retry_after_ms=50)
                jobs.release(job)
            nursery.start_soon(reclaimer(core, quick()).run)
            assert (await next_job(core)).attempt == 2
            nursery.cancel_scope.cancel()


async def test_one_reclaimer_at_a_time_and_another_takes_over_when_its_holder_is_gone(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core, open_core(url, core.rest, Instance("00000000", 1, 1)) as other:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reclaimer(core, quick(reclaimer_seconds=0.1)).run)

                async def held() -> bool:
                    return await core.client.command("GET", core.keys.reclaimer) == core.instance.name.encode()

                await until(held, WAIT_SECONDS)
                assert not await other.recovery.lease.hold(100)
                nursery.cancel_scope.cancel()

            async def mine() -> bool:
                return await other.recovery.lease.hold(100)

            await until(mine, WAIT_SECONDS)


async def test_the_reclaimers_lease_of_a_supervisor_that_died_on_this_host_is_taken_over_at_once(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core, trio.open_nursery() as nursery:
            minute_ms = 60_000
            assert await core.client.command("SET", core.keys.reclaimer, dead_instance().name, "PX", minute_ms)
            nursery.start_soon(reclaimer(core, quick()).run)

            async def held() -> bool:
                return await core.client.command("GET", core.keys.reclaimer) == core.instance.name.encode()

            await until(held, WAIT_SECONDS)
            assert await core.client.command("SET", core.keys.reclaimer, "elsewhere-1-1", "PX", minute_ms)
            assert not await core.recovery.lease.hold(100)
            nursery.cancel_scope.cancel()


async def test_a_reply_that_a_dead_supervisor_took_is_offered_again(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as core, trio.open_nursery() as nursery:
            await reply_to_next(core, "an answer")
            dead = dead_instance().name
            command = ("XREADGROUP", "GROUP", "supervisors", dead, "COUNT", 1, "STREAMS", core.keys.replies, ">")
            assert await core.client.command(*command)
            nursery.start_soon(reclaimer(core, quick()).run)
            core.connection.connect()
            async with sending(core):
                assert len(await core.connection.wait_sent(1)) == 1
            assert core.count("lease_reclaimed_total", kind="reply") == 1
            nursery.cancel_scope.cancel()


async def test_while_redis_is_away_it_waits_and_a_group_that_is_gone_is_made_again(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with scene(server.url) as core, trio.open_nursery() as nursery:
            nursery.start_soon(reclaimer(core, quick()).run)
            server.kill()
            for file in (tmp_path / "appendonlydir").iterdir():
                file.unlink()
            server.start()  # empty

            async def groups_again() -> bool:
                try:
                    return await core.client.command("EXISTS", core.keys.jobs) == 1
                except RedisUnavailable:
                    return False

            await until(groups_again, WAIT_SECONDS)
            nursery.cancel_scope.cancel()


async def test_who_waits_for_the_next_try_of_a_failed_job_is_shown_that_and_of_a_far_one_only_who_writes_meanwhile(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as url:
        rest, shown = FakeRest(), ShownThere()
        async with open_core(url, rest) as core, trio.open_nursery() as nursery:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            soon, late = CONVERSATION, CONVERSATION[:-1] + "2"
            await core.push(ada.say(seq=1))
            await core.push(ada.say(seq=1, conversation=late))
            async with worker(core) as jobs:
                for _ in range(2):
                    with waiting_for("a job to be taken", WAIT_SECONDS):
                        [job] = await jobs.take(1)
                    await jobs.fail(job, "broke", 30_000 if job.conversation_id == soon else HOUR_MS)
                    jobs.release(job)
            now_ms = await core.store.now_ms()
            assert await core.recovery.kept_waiting(now_ms) == [soon]
            await core.push(ada.say(seq=2, conversation=late))
            assert await core.recovery.kept_waiting(now_ms) == [soon, late]
            nursery.start_soon(reclaimer(core, quick(), shown=shown).run)
            await until(lambda: shown.conversations.count(late) > 1, WAIT_SECONDS)
            assert soon in shown.conversations
            nursery.cancel_scope.cancel()
