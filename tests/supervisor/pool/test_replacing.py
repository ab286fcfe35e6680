"""Workers that are replaced while they work: worn out, or by new code. No moment without a worker, no job interrupted."""

import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio

from bus.records.control import Heartbeat
from bus.settings.reader import SettingsError
from supervisor.pool.process import ExitReason, Stage
from supervisor.pool.recycling import Worn, drawn_limits, worn_out
from supervisor.pool.reloading import Reloading, Wanted
from supervisor.pool.worker_order import WorkerOrder
from supervisor.settings.bounds import Bounds
from supervisor.settings.recycle_limits import RecycleLimits
from tests.bus.builders import Bus, open_bus
from tests.redis_server import redis_server
from tests.supervisor.pool.builders import WITHIN_SECONDS, PoolRun, ask, order_of, running_pool, text_answer, until
from tests.waiting import waiting_for

MIB = 1 << 20


@asynccontextmanager
async def never_without_a_worker(run: PoolRun) -> AsyncIterator[None]:
    """At every change of the pool, from now on, some worker takes jobs."""
    fewest = 1

    async def watch() -> None:
        nonlocal fewest
        while True:
            fewest = min(fewest, run.pool.ready)
            await trio.sleep(0.005)

    with waiting_for("the workers to be ready", WITHIN_SECONDS):
        await run.pool.wait_until_ready()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield
        nursery.cancel_scope.cancel()
    assert fewest == 1


async def test_a_worker_is_replaced_after_its_jobs_and_its_successor_is_ready_before_it_drains(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        recycle = RecycleLimits(jobs=1, rest_seconds=0)
        async with open_bus(url) as bus, running_pool(order_of(url), recycle=recycle) as run:
            async with never_without_a_worker(run):
                await ask(bus, "hello")
                assert await text_answer(bus) == "re: hello"
                await until(lambda: run.exits)
            assert run.restarts == ["recycled_jobs"]
            assert [(exited.reason, exited.abnormal) for exited in run.exits] == [(ExitReason.DRAINED, False)]
            assert [status.number for status in run.pool.statuses()] == [1]


async def test_a_worker_is_replaced_when_it_is_old(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        recycle = RecycleLimits(age_seconds=1, rest_seconds=0)
        async with running_pool(order_of(url), recycle=recycle) as run:
            async with never_without_a_worker(run):
                await until(lambda: run.exits)
            assert run.restarts[0] == "recycled_age"


async def test_a_worker_that_leaks_over_the_soft_limit_finishes_its_jobs_and_is_replaced(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        recycle = RecycleLimits(soft_bytes=150 * MIB, rest_seconds=0)
        async with open_bus(url) as bus, running_pool(order_of(url), recycle=recycle) as run:
            async with never_without_a_worker(run):
                await ask(bus, f"wait {tmp_path / 'go'}", conversation="long")
                await ask(bus, "leak 200", conversation="leak")
                assert await text_answer(bus) == "leaked"
                await until(lambda: run.restarts)
                (tmp_path / "go").touch()
                assert await text_answer(bus) == "waited"
            assert run.restarts == ["recycled_memory"]
            await until(lambda: run.exits)
            assert run.exits[0].reason is ExitReason.DRAINED


async def test_a_worker_that_leaks_over_the_hard_limit_is_killed_and_its_job_goes_on(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        recycle = RecycleLimits(hard_bytes=150 * MIB)
        async with open_bus(url) as bus, running_pool(order_of(url), recycle=recycle, bus=bus) as run:
            await ask(bus, f"leak_and_wait_once 200 {tmp_path / 'first'}")
            assert await text_answer(bus) == "re: leak_and_wait_once"
            assert [(exited.reason, exited.abnormal) for exited in run.exits] == [(ExitReason.MEMORY, False)]
            assert run.restarts == ["memory"]


@pytest.mark.pure
def test_workers_started_together_do_not_go_together() -> None:
    limits = RecycleLimits(jobs=1000, age_seconds=1000, soft_bytes=1000, hard_bytes=1000)
    drawn = [drawn_limits(limits) for _ in range(200)]
    assert len({one.jobs for one in drawn}) > 20
    assert all(800 <= one.jobs <= 1000 and 800 <= one.age_seconds <= 1000 for one in drawn)
    assert {one.hard_bytes for one in drawn} == {1000}
    assert drawn_limits(limits, lambda _low, high: high) == limits


@pytest.mark.pure
def test_memory_is_what_is_held_now_and_a_young_worker_is_never_worn() -> None:
    limits = RecycleLimits(jobs=10, age_seconds=100, soft_bytes=50)
    beat = Heartbeat(loop_lag_ms=0, running=(), rss_bytes=60, jobs_done=8, jobs_failed=2)
    assert worn_out(limits, beat, 29) is None
    assert worn_out(limits, beat, 31) is Worn.MEMORY
    smaller = Heartbeat(loop_lag_ms=0, running=(), rss_bytes=40, jobs_done=8, jobs_failed=2)
    assert worn_out(limits, smaller, 31) is Worn.JOBS
    assert worn_out(RecycleLimits(), beat, 1e9) is None


def write_handler(directory: Path, word: str) -> None:
    (directory / "mine.py").write_text(
        "import trio\nfrom workers import Agent\nagent = Agent()\n"
        "@agent.on_message()\n"
        "async def act(message, chat):\n"
        "    while message.text.startswith('/') and not await trio.Path(message.text).exists():\n"
        "        await trio.sleep(0.02)\n"
        f"    await chat.reply('{word}')\n",
        encoding="utf-8",
    )


def my_order(url: str, directory: Path, **changes: object) -> WorkerOrder:
    return order_of(url, handler="mine:agent", directory=directory, environ=os.environ, **changes)


async def until_answered(bus: Bus, text: str) -> None:
    """Soon: a job that came before an old worker has heard that it is to drain is still its own."""
    with waiting_for(f"the answer {text!r} of a new worker", WITHIN_SECONDS):
        for number in itertools.count():
            await ask(bus, "hello", conversation=f"short {number}")
            if await text_answer(bus) == text:
                return


async def test_a_reload_brings_new_code_and_settings_and_interrupts_no_job(tmp_path: Path) -> None:
    write_handler(tmp_path, "old")
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(my_order(url, tmp_path), 2) as run:
            async with never_without_a_worker(run):
                await ask(bus, str(tmp_path / "go"), conversation="long")
                await until(lambda: any(status.running for status in run.pool.statuses()))
                write_handler(tmp_path, "newer")  # of another size: bytecode is told apart by size and second
                with waiting_for("the reload", WITHIN_SECONDS):
                    assert await run.pool.reload(my_order(url, tmp_path, concurrency=7)) is None
                await until_answered(bus, "newer")
                (tmp_path / "go").touch()
                assert await text_answer(bus) == "old"
            await until(lambda: len(run.exits) == 2)
            assert all((exited.reason, exited.returncode) == (ExitReason.DRAINED, 0) for exited in run.exits)
            assert [status.concurrency for status in run.pool.statuses()] == [7, 7]
            assert run.restarts == ["reload", "reload"]


async def test_after_an_import_error_on_reload_the_old_workers_stay_with_the_reason(tmp_path: Path) -> None:
    write_handler(tmp_path, "old")
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(my_order(url, tmp_path), 2) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
                await run.pool.wait_until_ready(2)
            before = run.pids()
            (tmp_path / "mine.py").write_text("import nothing_like_this\n", encoding="utf-8")
            with waiting_for("the reload to fail", WITHIN_SECONDS):
                problem = await run.pool.reload(my_order(url, tmp_path))
            assert problem is not None
            assert "nothing_like_this" in problem
            assert "mine.py:1" in problem
            assert run.lines.of("reload: failed, the old workers stay")["kept"] == 2
            assert run.pids() == before
            await ask(bus, "hello")
            assert await text_answer(bus) == "old"
            assert run.pool.crash_loop is None
            write_handler(tmp_path, "mended")
            with waiting_for("the reload of mended code", WITHIN_SECONDS):
                assert await run.pool.reload(my_order(url, tmp_path)) is None
            await until_answered(bus, "mended")


async def test_a_drain_during_a_reload_ends_old_and_new(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        order = order_of(url)
        async with running_pool(order, 3) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
                await run.pool.wait_until_ready(3)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.pool.reload, order)
                await until(lambda: any(status.stage is Stage.STARTING for status in run.pool.statuses()))
                with waiting_for("the drain in the middle of a reload", WITHIN_SECONDS):
                    await run.pool.drain()
            assert run.pool.statuses() == ()
            assert "reload: failed, the old workers stay" not in run.lines.events()
            assert all(exited.reason in {ExitReason.DRAINED, ExitReason.KILLED} for exited in run.exits)


async def test_an_old_worker_that_dies_during_a_reload_is_no_gap_for_ever(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        order = order_of(url)
        async with running_pool(order) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
                await run.pool.wait_until_ready()
            [old] = run.pids()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.pool.reload, order)
                await until(lambda: len(run.pids()) == 2)
                os.kill(old, signal.SIGKILL)
            await until(lambda: [status.stage for status in run.pool.statuses()] == [Stage.READY])


async def test_a_stop_while_workers_still_start_does_not_wait_for_their_imports(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time; time.sleep(600)\n", encoding="utf-8")
    order = order_of("unix:///nowhere", handler="slow:agent", directory=tmp_path)
    async with running_pool(order, 2, drain_seconds=600) as run:
        await until(lambda: len(run.pids()) == 2)
        with waiting_for("the drain of workers that are loading", WITHIN_SECONDS):
            await run.pool.drain()
        assert run.pool.statuses() == ()


def reloading(run: PoolRun, order: WorkerOrder) -> Reloading:
    log: structlog.typing.FilteringBoundLogger = run.lines.log
    return Reloading(run.pool, lambda: Wanted(order, Bounds(1, 1)), log, Bounds(1, 1))


async def test_a_changed_file_of_the_handler_is_a_reload_in_development_also_after_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import nothing_like_this\n", encoding="utf-8")
    with redis_server(tmp_path) as url:
        order = my_order(url, tmp_path, report_files=True)
        async with (
            open_bus(url) as bus,
            running_pool(order, waits_for_code=True, backoff_last_seconds=600) as run,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(reloading(run, order).watch_files)
            await until(lambda: run.exits)
            write_handler(tmp_path, "mended")
            await ask(bus, "hello")
            assert await text_answer(bus) == "mended"
            await until(lambda: str(tmp_path / "mine.py") in run.pool.handler_files())
            (tmp_path / "helper.py").write_text("word = 'helped'\n", encoding="utf-8")
            text = (tmp_path / "mine.py").read_text(encoding="utf-8").replace("'mended'", "helper.word")
            (tmp_path / "mine.py").write_text("import helper\n" + text, encoding="utf-8")
            await until(lambda: str(tmp_path / "helper.py") in run.pool.handler_files())
            (tmp_path / "helper.py").write_text("word = 'helped again'\n", encoding="utf-8")
            await until_answered(bus, "helped again")
            nursery.cancel_scope.cancel()


async def test_settings_that_cannot_be_read_leave_the_old_workers_and_say_why(tmp_path: Path) -> None:
    def refuse() -> Wanted:
        raise SettingsError("HASHEE_WORKERS", "N or MIN:MAX")

    with redis_server(tmp_path) as url:
        async with running_pool(order_of(url)) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
                await run.pool.wait_until_ready()
            before = run.pids()
            failing = Reloading(run.pool, refuse, run.lines.log, Bounds(1, 1))
            assert "HASHEE_WORKERS" in await failing.reload()
            assert "HASHEE_WORKERS" in failing.problem
            assert run.pids() == before
