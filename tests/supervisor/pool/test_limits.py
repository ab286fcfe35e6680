"""When a worker is worn or too large, and when deaths are a crash loop: decided without a process."""

import pytest

from bus.records.control import Heartbeat
from supervisor.pool.crash_loop import CrashLoop, CrashLoopLimits, Death
from supervisor.pool.recycling import SPREAD, Worn, drawn_limits, is_too_large, worn_out
from supervisor.settings.recycle_limits import RecycleLimits

pytestmark = pytest.mark.pure

DEATH = Death(1, "crashed", "", "")
LIMITS = RecycleLimits(jobs=10, age_seconds=100.0, soft_bytes=1000, hard_bytes=2000, rest_seconds=30.0)


def beat(*, done: int = 0, failed: int = 0, size: int = 0) -> Heartbeat:
    return Heartbeat(None, (), size, done, failed)


@pytest.mark.parametrize(
    ("found", "age_seconds", "worn"),
    [
        (beat(), 99.9, None),
        (beat(), 100.0, Worn.AGE),
        (beat(done=9), 99.0, None),
        (beat(done=5, failed=5), 50.0, Worn.JOBS),
        (beat(size=1000), 50.0, None),
        (beat(size=1001), 50.0, Worn.MEMORY),
        (beat(done=10, size=1001), 29.9, None),
    ],
)
def test_a_worker_is_worn_by_its_jobs_its_age_or_its_size_and_not_within_its_rest(
    found: Heartbeat, age_seconds: float, worn: Worn | None
) -> None:
    assert worn_out(LIMITS, found, age_seconds) is worn
    assert worn_out(RecycleLimits(), found, 10_000.0) is None, "0 is no limit"


def test_over_the_hard_limit_a_worker_is_too_large_at_any_age() -> None:
    assert [is_too_large(LIMITS, beat(size=size)) for size in (2000, 2001)] == [False, True]
    assert not is_too_large(RecycleLimits(), beat(size=1 << 40))


def test_workers_started_together_are_not_worn_together_and_the_hard_limit_is_the_owners() -> None:
    drawn = drawn_limits(LIMITS, lambda low, _high: low)
    assert (drawn.jobs, drawn.age_seconds, drawn.soft_bytes) == (8, 100.0 * (1 - SPREAD), 800)
    assert (drawn.hard_bytes, drawn.rest_seconds) == (2000, 30.0)
    assert drawn_limits(RecycleLimits(jobs=1), lambda low, _high: low).jobs == 1


def begins(limits: CrashLoopLimits, *deaths_at: float) -> list[bool]:
    loop = CrashLoop(limits)
    return [loop.note(now, DEATH) for now in deaths_at]


def test_so_many_deaths_within_the_window_begin_a_crash_loop_once() -> None:
    limits = CrashLoopLimits(deaths=3, window_seconds=60, quiet_seconds=60)
    assert begins(limits, 0, 30, 60, 61, 62) == [False, False, True, False, False]
    assert begins(limits, 0, 30, 61) == [False, False, False]
    assert not any(begins(CrashLoopLimits(deaths=0), *range(20)))


def test_a_crash_loop_ends_when_it_has_been_quiet_and_may_begin_again() -> None:
    loop = CrashLoop(CrashLoopLimits(deaths=2, window_seconds=60, quiet_seconds=60))
    assert [loop.note(now, DEATH) for now in (0, 1)] == [False, True]
    status = loop.status(61)
    assert status is not None
    assert (status.since_seconds, status.deaths) == (60.0, 2)
    assert loop.status(62) is None
    assert [loop.note(now, DEATH) for now in (62, 63)] == [False, True]
