"""How many workers there are: as told, or as many as the work needs."""

from pathlib import Path

from bus.views.overview import Overview
from supervisor.pool.autoscale import AutoscaleTimes
from supervisor.pool.process import ExitReason
from supervisor.settings.bounds import Bounds
from tests.bus.builders import open_bus
from tests.redis_server import redis_server
from tests.supervisor.pool.builders import WITHIN_SECONDS, ask, order_of, running_pool, text_answer, until
from tests.waiting import waiting_for


async def test_scaling_down_lets_the_one_that_goes_finish_its_job(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url), 2) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
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
