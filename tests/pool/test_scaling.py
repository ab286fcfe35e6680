"""How many workers there are: as told, or as many as the work needs."""

from pathlib import Path

import pytest
import trio

from bus.overview import Overview
from supervisor.autoscale import Autoscale, AutoscaleTimes, Bounds, Load
from supervisor.process import ExitReason
from tests.bus.builders import open_bus
from tests.pool.builders import WITHIN_SECONDS, ask, order_of, running_pool, text_answer, until
from tests.redis_server import redis_server


async def test_scaling_down_lets_the_one_that_goes_finish_its_job(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url), 2) as run:
            with trio.fail_after(WITHIN_SECONDS):
                await run.pool.wait_until_ready(2)
            for conversation in ("one", "two"):
                await ask(bus, f"wait {tmp_path / 'go'}", conversation=conversation)
            await until(lambda: sum(status.running for status in run.pool.statuses()) == 2)
            run.pool.scale(Bounds(1, 1))
            (tmp_path / "go").touch()
            assert [await text_answer(bus) for _ in range(2)] == ["waited", "waited"]
            await until(lambda: len(run.pool.statuses()) == 1 and run.exits)  # an end is reported by a task of its own
            assert [(exited.reason, exited.returncode) for exited in run.exits] == [(ExitReason.DRAINED, 0)]
            run.pool.scale(Bounds(2, 2))
            await until(lambda: run.pool.ready == 2)
            assert [status.number for status in run.pool.statuses()] == [1, 2]


async def test_waiting_jobs_bring_workers_up_to_the_most_and_quiet_takes_them_down_to_the_least(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            order = order_of(url, concurrency=1)
            times = AutoscaleTimes(up_after_seconds=0.2, down_after_seconds=0.5)

            async def waiting() -> int:
                return await Overview(bus.client, bus.keys).jobs_not_taken()

            async with running_pool(order, Bounds(1, 3), waiting=waiting, autoscale=times) as run:
                for number in range(5):
                    await ask(bus, f"wait {tmp_path / 'go'}", conversation=f"conversation {number}")
                await until(lambda: run.pool.ready == 3)
                (tmp_path / "go").touch()
                for _ in range(5):
                    assert await text_answer(bus) == "waited"
                await until(lambda: len(run.pool.statuses()) == 1)
                assert {exited.reason for exited in run.exits} == {ExitReason.DRAINED}


@pytest.mark.pure
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


@pytest.mark.pure
def test_no_worker_more_while_one_starts_or_none_can() -> None:
    bounds, times = Bounds(1, 4), AutoscaleTimes(up_after_seconds=0)
    some_are_free = Load(waiting=9, busy=15, slots=16, starting=0)
    for load in (
        Load(waiting=9, busy=16, slots=16, starting=1),
        Load(waiting=9, busy=0, slots=0, starting=0),
        some_are_free,
    ):
        assert Autoscale(times).step(0, bounds, 1, load, 16)[1] == 1


@pytest.mark.pure
def test_bounds_are_read_moved_and_refused() -> None:
    assert Bounds.parse("3") == Bounds(3, 3)
    assert Bounds.parse("2:6") == Bounds(2, 6)
    assert str(Bounds(2, 6).moved(1)) == "3:7"
    assert str(Bounds(1, 1).moved(-1)) == "1"
    assert Bounds(256, 256).moved(1) == Bounds(256, 256)


@pytest.mark.pure
@pytest.mark.parametrize("text", ["", "x", "3:2", "0:2", "257", "1:257", "-1", "1:2:3", "²"])
def test_what_is_no_number_of_workers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        Bounds.parse(text)
