"""What is due when: set and dropped with the end of a job, and a job once each time that it is due."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from bus.records.daily import Daily
from bus.records.records import Job
from bus.records.timers import Timer
from bus.steps.job_steps import Failed, Finished
from bus.steps.placing import MOST_PLACED
from bus.steps.recovery import Reclaim
from bus.steps.thread_steps import Effect
from bus.steps.timers import AT_ONCE, Fired
from tests.bus.builders import CONVERSATION
from tests.bus.scenes import Scene, Supervisor, Worker
from tests.bus.talk import Talk, talk_and_worker

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


async def running(talk: Talk, worker: Worker) -> Job:
    await talk.accept(await talk.next_seq())
    job = await worker.take()
    assert job is not None
    return job


async def reminder(supervisor: Supervisor, name: str, after_ms: int, *, daily: Daily | None = None) -> Timer:
    due_ms = await supervisor.timers.now_ms() + after_ms
    return Timer(id=name, conversation_id=CONVERSATION, due_ms=due_ms, kind="reminder", name=name, daily=daily)


def sets(worker: Worker, timer: Timer) -> Effect:
    return ("timer", timer.id, timer.due_ms, worker.steps.seal_timer(timer))


async def set_with_a_job(talk: Talk, worker: Worker, *timers: Timer) -> None:
    job = await running(talk, worker)
    assert await worker.steps.settle(job, "done", [sets(worker, one) for one in timers]) is Finished.DONE


async def fire_all(supervisor: Supervisor) -> list[Fired]:
    timers, now_ms = supervisor.timers, await supervisor.timers.now_ms()
    outcomes = []
    for alarm in await timers.due(now_ms, 2 * AT_ONCE):
        packed = await timers.read(alarm)
        assert packed is not None
        outcomes.append(await timers.fire(packed, timers.opened(packed, alarm), now_ms))
    return outcomes


async def test_a_reminder_is_set_with_its_jobs_end_and_becomes_a_job_when_it_is_due(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    supervisor = talk.supervisor
    timer = await reminder(supervisor, "digest", HOUR_MS)
    await set_with_a_job(talk, worker, timer)
    assert await supervisor.timers.count(CONVERSATION) == 1
    assert await fire_all(supervisor) == []
    await scene.time_passes(2 * HOUR_MS)
    assert await fire_all(supervisor) == [Fired.FIRED]
    assert await fire_all(supervisor) == []
    job = await worker.take()
    assert job is not None
    assert (job.kind, job.job_id) == ("reminder", f"timer:digest:{timer.due_ms}")
    await worker.steps.finish(job)
    assert await scene.leftovers() == []


async def test_what_a_reminder_says_has_the_same_ids_where_it_is_fired_once_more(scene: Scene) -> None:
    """As after Redis went back to before it was due."""
    talk, worker = await talk_and_worker(scene)
    supervisor = talk.supervisor
    timer = await reminder(supervisor, "digest", HOUR_MS)
    told = list[tuple[str, int]]()
    for _ in range(2):
        await set_with_a_job(talk, worker, timer)
        await scene.time_passes(HOUR_MS + 1000)
        assert await fire_all(supervisor) == [Fired.FIRED]
        job = await worker.take()
        assert job is not None
        await worker.steps.finish(job)
        told.append((job.job_id, job.message_ms))
    assert told == [(timer.job_id, timer.due_ms)] * 2


@pytest.mark.parametrize("way", ["fails", "is lost"])
async def test_a_run_that_does_not_end_well_sets_no_reminder(scene: Scene, way: str) -> None:
    talk, worker = await talk_and_worker(scene)
    job, timer = await running(talk, worker), await reminder(talk.supervisor, "digest", HOUR_MS)
    if way == "fails":
        assert await worker.steps.fail(job, "broke", None) is Failed.DEAD
    else:
        await talk.reclaim(Reclaim())
    assert await worker.steps.settle(job, "done", [sets(worker, timer)]) is Finished.FENCED
    assert await talk.supervisor.timers.count(CONVERSATION) == 0


async def test_setting_one_again_replaces_it_and_dropping_it_is_the_end_of_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    supervisor = talk.supervisor
    await set_with_a_job(talk, worker, await reminder(supervisor, "close", HOUR_MS))
    later = await reminder(supervisor, "close", 3 * HOUR_MS)
    await set_with_a_job(talk, worker, later, await reminder(supervisor, "other", HOUR_MS))
    job = await running(talk, worker)
    assert (await worker.steps.timers_there(job, "close")).is_there
    there = await worker.steps.timers_there(job, "none")
    assert (there.count, there.is_there) == (2, False)
    await worker.steps.settle(job, "done", [("drop_timer", "other", "", ""), ("drop_timer", "other", "", "")])
    await scene.time_passes(2 * HOUR_MS)
    assert await fire_all(supervisor) == []
    await scene.time_passes(2 * HOUR_MS)
    assert await fire_all(supervisor) == [Fired.FIRED]
    job_of_it = await worker.take()
    assert job_of_it is not None
    assert job_of_it.job_id == f"timer:close:{later.due_ms}"


async def test_one_that_was_read_and_set_anew_is_not_fired_as_it_was(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    timers = talk.supervisor.timers
    timer = await reminder(talk.supervisor, "close", 1)
    await set_with_a_job(talk, worker, timer)
    await scene.time_passes(HOUR_MS)
    [alarm] = await timers.due(await timers.now_ms())
    packed = await timers.read(alarm)
    assert packed is not None
    await set_with_a_job(talk, worker, await reminder(talk.supervisor, "close", HOUR_MS))
    assert await timers.fire(packed, timer, await timers.now_ms()) is Fired.CHANGED
    job = await running(talk, worker)
    assert job.kind == "message", "nothing was placed"


async def test_a_daily_one_is_due_again_after_it_was_fired(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    supervisor = talk.supervisor
    now = datetime.fromtimestamp(await supervisor.timers.now_ms() / 1000, UTC) - timedelta(minutes=2)
    daily = Daily(f"{now.hour:02}:{now.minute:02}", "UTC")
    due_ms, _ = daily.next_after(await supervisor.timers.now_ms() - DAY_MS)
    timer = await reminder(supervisor, "digest", 0, daily=daily)
    await set_with_a_job(talk, worker, msgspec.structs.replace(timer, due_ms=due_ms))
    assert await fire_all(supervisor) == [Fired.FIRED]
    [alarm] = await supervisor.timers.due(await supervisor.timers.now_ms() + 2 * DAY_MS)
    assert alarm.due_ms == due_ms + DAY_MS


async def test_in_a_conversation_without_room_it_stays_due(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    supervisor = talk.supervisor
    names = [f"{number:03}" for number in range(MOST_PLACED + 2)]
    await set_with_a_job(talk, worker, *[await reminder(supervisor, name, 0) for name in names])
    await scene.time_passes(1000)
    outcomes = await fire_all(supervisor)
    assert outcomes.count(Fired.FIRED) == MOST_PLACED + 1
    assert outcomes[-1] is Fired.FULL
    [left] = await supervisor.timers.due(await supervisor.timers.now_ms())
    await supervisor.timers.postpone(left, left.due_ms + HOUR_MS)
    assert await supervisor.timers.due(await supervisor.timers.now_ms()) == []
    assert await supervisor.timers.count(CONVERSATION) == 1
