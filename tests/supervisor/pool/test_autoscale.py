"""How many workers there should be, decided without one."""

import pytest

from supervisor.pool.autoscale import Autoscale, AutoscaleTimes, Load
from supervisor.settings.bounds import Bounds

pytestmark = pytest.mark.pure


def test_one_less_is_wanted_only_where_the_rest_would_be_half_free() -> None:
    bounds, times = Bounds(1, 4), AutoscaleTimes(up_after_seconds=2, down_after_seconds=60)
    for busy, wanted in ((8, 1), (9, 2)):
        load = Load(waiting=0, busy=busy, slots=32, starting=0)
        step, _ = Autoscale(times).step(0, bounds, 2, load, 16)
        assert step.step(60, bounds, 2, load, 16)[1] == wanted


def wanted_after_a_minute(workers: int, load: Load) -> int:
    bounds, step = Bounds(1, 4), Autoscale(AutoscaleTimes(up_after_seconds=2, down_after_seconds=60))
    step, _ = step.step(0, bounds, workers, load, 16)
    return step.step(60, bounds, workers, load, 16)[1]


def test_where_something_waits_nobody_goes_and_the_bounds_hold() -> None:
    assert wanted_after_a_minute(2, Load(waiting=0, busy=0, slots=32, starting=0)) == 1
    assert wanted_after_a_minute(2, Load(waiting=1, busy=0, slots=32, starting=0)) == 2
    assert wanted_after_a_minute(1, Load(waiting=0, busy=0, slots=16, starting=0)) == 1
    assert wanted_after_a_minute(3, Load(waiting=100, busy=48, slots=48, starting=0)) == 4


def test_the_number_follows_the_load_step_by_step() -> None:
    bounds, times = Bounds(1, 4), AutoscaleTimes(up_after_seconds=2, down_after_seconds=60)
    full = Load(waiting=40, busy=16, slots=16, starting=0)
    step, wanted = Autoscale(times).step(0, bounds, 1, full, 16)
    assert wanted == 1
    step, wanted = step.step(1, bounds, 1, Load(waiting=0, busy=16, slots=16, starting=0), 16)
    step, wanted = step.step(2, bounds, 1, full, 16)
    assert wanted == 1  # it was not full all the time
    step, wanted = step.step(4, bounds, 1, full, 16)
    assert wanted == 4
    quiet = Load(waiting=0, busy=3, slots=64, starting=0)
    step, wanted = step.step(5, bounds, 4, quiet, 16)
    step, wanted = step.step(64, bounds, 4, quiet, 16)
    assert wanted == 4
    step, wanted = step.step(65, bounds, 4, quiet, 16)
    assert wanted == 3


def test_no_worker_more_while_one_starts_or_none_can() -> None:
    bounds, times = Bounds(1, 4), AutoscaleTimes(up_after_seconds=0)
    some_are_free = Load(waiting=9, busy=15, slots=16, starting=0)
    for load in (
        Load(waiting=9, busy=16, slots=16, starting=1),
        Load(waiting=9, busy=0, slots=0, starting=0),
        some_are_free,
    ):
        assert Autoscale(times).step(0, bounds, 1, load, 16)[1] == 1


def test_bounds_are_read_moved_and_refused() -> None:
    assert Bounds.parse("3") == Bounds(3, 3)
    assert Bounds.parse("2:6") == Bounds(2, 6)
    assert str(Bounds(2, 6).moved(1)) == "3:7"
    assert str(Bounds(1, 1).moved(-1)) == "1"
    assert Bounds(256, 256).moved(1) == Bounds(256, 256)


@pytest.mark.parametrize("text", ["", "x", "3:2", "0:2", "257", "1:257", "-1", "1:2:3", "²"])
def test_what_is_no_number_of_workers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        Bounds.parse(text)
