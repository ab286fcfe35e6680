"""What a pool decides, walked without a process: who starts, who goes, who succeeds, and what each end means."""

from types import SimpleNamespace
from typing import cast

import pytest

from bus.records.control import Heartbeat, RunningJob, StartFailed
from supervisor.pool.autoscale import AutoscaleTimes
from supervisor.pool.crash_loop import CrashLoopLimits, death_of
from supervisor.pool.places import Life, Place
from supervisor.pool.pool_settings import PoolSettings
from supervisor.pool.process import ExitReason, Stage, WorkerExit, WorkerProcess
from supervisor.pool.recycling import Worn
from supervisor.pool.roster import FORK, Roster, Todo, WorkerEnd
from supervisor.settings.bounds import Bounds
from supervisor.settings.recycle_limits import RecycleLimits
from tests.supervisor.pool.builders import order_of

pytestmark = pytest.mark.pure

BROKEN = StartFailed("exception", "ImportError", "broken.py", 1, "no such module")


def roster_of(least: int = 2, most: int | None = None, *, waits_for_code: bool = False, deaths: int = 5) -> Roster:
    settings = PoolSettings(
        bounds=Bounds(least, most or least),
        order=order_of("unix:///nowhere"),
        backoff_first_seconds=1.0,
        backoff_last_seconds=32.0,
        crash_loop=CrashLoopLimits(deaths=deaths, window_seconds=1000, quiet_seconds=1000),
        autoscale=AutoscaleTimes(up_after_seconds=2, down_after_seconds=60),
        waits_for_code=waits_for_code,
    )
    return Roster(settings, uniform=lambda _low, high: high)


def begin(roster: Roster, number: int, *, is_successor: bool = False, is_ready: bool = True) -> Life:
    """A worker that is none, in its place or beside it."""
    process = SimpleNamespace(stage=Stage.READY if is_ready else Stage.STARTING, heartbeat=None, began_at=0.0)
    life = Life(cast(WorkerProcess, process), number, roster.order, RecycleLimits(), is_successor)
    roster.began(life)
    if is_ready:
        roster.became_ready(life)
    return life


def started(roster: Roster, now: float = 0.0) -> list[Life]:
    return [begin(roster, place.number) for place in roster.assign(now).start]


def end(
    roster: Roster, life: Life, now: float, reason: ExitReason = ExitReason.CRASHED, failure: StartFailed | None = None
) -> WorkerEnd:
    life.exit = WorkerExit(
        consumer="w",
        pid=1,
        returncode=1,
        stage=Stage.READY,
        reason=reason,
        abnormal=True,
        running=(),
        overdue=(),
        failure=failure,
        ready_seconds=0.0,
    )
    verdict = roster.died(life, life.exit, now)
    roster.buried(life, now)
    return verdict


def beat(*, running: int = 0, done: int = 0) -> Heartbeat:
    return Heartbeat(None, tuple(RunningJob(str(number), str(number), 0) for number in range(running)), 0, done, 0)


def numbers(places: tuple[Place, ...]) -> list[int]:
    return [place.number for place in places]


def test_each_place_gets_a_worker_and_then_nothing_is_to_be_done() -> None:
    roster = roster_of(3)
    assert numbers(roster.assign(0).start) == [1, 2, 3]
    assert [life.number for life in started(roster)] == [1, 2, 3]
    assert roster.assign(0) == Todo()
    assert len(roster.ready) == 3
    assert roster.due_at() == float("inf")


def test_one_that_ends_is_started_again_after_a_pause_that_others_do_not_share() -> None:
    roster = roster_of(2)
    [first, second] = started(roster)
    assert end(roster, first, 10.0) == WorkerEnd(is_death=True)
    due_at = roster.due_at()
    assert 10.0 <= due_at < float("inf")
    assert roster.assign(due_at - 1e-6) == Todo()
    todo = roster.assign(due_at)
    assert (numbers(todo.start), todo.restarts, todo.retire) == ([1], ("crashed",), ())
    assert roster.lives == [second]


def test_pauses_grow_while_it_keeps_ending() -> None:
    roster, now, pauses = roster_of(1, deaths=0), 0.0, list[float]()
    roster.assign(now)
    for _ in range(12):
        life = begin(roster, 1)
        end(roster, life, now)
        pauses.append(roster.due_at() - now)
        now = roster.due_at()
    assert max(pauses) <= 32.0
    assert max(pauses[-3:]) > max(pauses[:2])


def test_a_process_that_could_not_be_forked_is_tried_again_after_a_pause() -> None:
    roster = roster_of(1)
    [place] = roster.assign(0).start
    roster.not_forked(place, 0)
    due_at = roster.due_at()
    todo = roster.assign(due_at)
    assert (numbers(todo.start), todo.restarts) == ([1], (FORK,))


def test_in_a_crash_loop_the_pause_is_the_longest() -> None:
    roster = roster_of(2, deaths=2)
    [first, second] = started(roster)
    assert end(roster, first, 0.0) == WorkerEnd(is_death=True)
    assert end(roster, second, 1.0) == WorkerEnd(is_death=True, begins_crash_loop=True)
    assert roster.places[2].start_at == 1.0 + 32.0
    roster.reloaded(roster.order)
    assert roster.crash_loop(1.0) is None


def test_a_smaller_pool_lets_those_go_first_who_have_least_to_do_and_the_last_of_them() -> None:
    roster = roster_of(4)
    lives = started(roster)
    for life, running in zip(lives, (1, 0, 0, 2), strict=True):
        life.process.heartbeat = beat(running=running)
    end(roster, lives[3], 0.0)  # the place in its pause goes before all who work
    roster.scale(Bounds(2, 2))
    todo = roster.assign(0)
    assert (todo.retire, todo.start) == ((lives[2],), ())
    assert sorted(roster.places) == [1, 2]
    assert end(roster, lives[2], 5.0, ExitReason.DRAINED) == WorkerEnd()
    assert roster.due_at() == float("inf"), "nobody is started in a place that is gone"


def test_a_number_is_free_again_when_its_worker_is_gone_and_not_before() -> None:
    roster = roster_of(2)
    [_, second] = started(roster)
    roster.scale(Bounds(1, 1))
    roster.assign(0)
    roster.scale(Bounds(2, 2))
    assert numbers(roster.assign(0).start) == [3]
    end(roster, second, 0.0, ExitReason.DRAINED)
    roster.scale(Bounds(3, 3))
    assert numbers(roster.assign(0).start) == [3, 2]


def test_a_successor_takes_the_place_and_the_former_finishes_without_leaving_a_gap() -> None:
    roster = roster_of(1)
    [former] = started(roster)
    successor = begin(roster, 1, is_successor=True)
    assert roster.succeed(roster.places[1], successor, "reload") == Todo(retire=(former,), restarts=("reload",))
    assert end(roster, former, 0.0, ExitReason.DRAINED) == WorkerEnd()
    assert (roster.places[1].life, roster.assign(0)) == (successor, Todo())


def test_a_successor_for_whom_there_is_no_place_any_more_goes_itself() -> None:
    roster = roster_of(1)
    [former] = started(roster)
    successor, place = begin(roster, 1, is_successor=True), roster.places[1]
    assert roster.drain() == Todo(retire=(former, successor))
    assert roster.succeed(place, successor, "reload") == Todo(retire=(successor,))
    assert place.life is former


def test_a_successor_that_dies_is_no_reason_to_start_slowly() -> None:
    roster = roster_of(1, deaths=1)
    started(roster)
    assert end(roster, begin(roster, 1, is_successor=True), 0.0) == WorkerEnd(is_death=True)
    assert (roster.crash_loop(0.0), roster.assign(0)) == (None, Todo())


def test_a_drain_starts_nobody_and_counts_no_death() -> None:
    roster = roster_of(2, deaths=1)
    [first, second] = started(roster)
    assert roster.drain() == Todo(retire=(first, second))
    assert end(roster, first, 0.0) == WorkerEnd(is_death=True)
    assert (roster.crash_loop(0.0), roster.assign(10**9)) == (None, Todo())


@pytest.mark.parametrize(
    ("was_ready", "waits_for_code", "is_hopeless"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_a_handler_that_no_place_could_ever_use_is_hopeless(
    was_ready: bool, waits_for_code: bool, is_hopeless: bool
) -> None:
    roster = roster_of(2, waits_for_code=waits_for_code)
    lives = [begin(roster, place.number, is_ready=False) for place in roster.assign(0).start]
    if was_ready:
        roster.became_ready(lives[0])
    first, second = (end(roster, life, 0.0, ExitReason.UNUSABLE, BROKEN) for life in lives)
    assert (first.is_hopeless, second.is_hopeless) == (False, is_hopeless)
    assert (first.is_death, roster.hopeless) == (False, BROKEN)


def test_the_number_follows_the_load_within_the_bounds() -> None:
    roster = roster_of(1, 3)
    [life] = started(roster)
    life.process.heartbeat = beat(running=roster.order.concurrency)
    for now in (0.0, 2.0):
        roster.follow(now, waiting=100)
    assert roster.target == 3
    assert numbers(roster.assign(2.0).start) == [2, 3]


def test_one_whose_successor_does_not_come_up_rests() -> None:
    roster = roster_of(1)
    [life] = started(roster)
    life.limits = RecycleLimits(jobs=1, rest_seconds=30.0)
    assert roster.worn(roster.places[1], 100.0) is None, "it has said nothing yet"
    life.process.heartbeat = beat(done=1)
    assert roster.worn(roster.places[1], 100.0) is Worn.JOBS
    roster.rest(life, 100.0)
    assert [roster.worn(roster.places[1], now) for now in (131.9, 132.0)] == [None, Worn.JOBS]


@pytest.mark.parametrize(
    ("reason", "abnormal", "is_strike", "said"),
    [
        (ExitReason.CRASHED, True, True, "status -9 (SIGKILL)"),
        (ExitReason.MEMORY, False, True, "HASHEE_WORKER_MEMORY"),
        (ExitReason.OVERRUN, False, False, "HASHEE_JOB_SECONDS"),
        (ExitReason.SILENT, False, False, "its stacks are in the log"),
        (ExitReason.HELD, False, True, "held its interpreter"),
        (ExitReason.SLOW_START, False, False, "its imports did not end"),
        (ExitReason.DRAINED, False, False, "status -9 (SIGKILL)"),
    ],
)
def test_what_a_worker_was_ended_for_is_said_and_what_its_handler_did_is_a_strike(
    reason: ExitReason, abnormal: bool, is_strike: bool, said: str
) -> None:
    exited = WorkerExit(
        consumer="w",
        pid=1,
        returncode=-9,
        stage=Stage.KILLED,
        reason=reason,
        abnormal=abnormal,
        running=(),
        overdue=(),
        failure=None,
        ready_seconds=0.0,
        exception="SIGKILL",
    )
    assert exited.is_strike is is_strike
    assert said in str(death_of(exited))
