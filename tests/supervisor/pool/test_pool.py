"""A pool of real workers: what ends is started again, what cannot start is said once, and a drain has an end."""

import errno
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from bus.records.control import HEARTBEAT_SECONDS
from supervisor.observe.metrics import Metrics
from supervisor.pool.autoscale import AutoscaleTimes
from supervisor.pool.crash_loop import CrashLoopLimits
from supervisor.pool.pool_settings import HandlerUnusable, PoolSettings
from supervisor.pool.process import Stage, WorkerProcess
from supervisor.pool.worker_order import WorkerTimes
from supervisor.pool.workforce import Workforce
from supervisor.run.all_workers import AllWorkers
from supervisor.settings.bounds import Bounds
from supervisor.settings.recycle_limits import RecycleLimits
from tests.bus.builders import open_bus
from tests.redis_server import redis_server
from tests.supervisor.pool.builders import (
    WITHIN_SECONDS,
    ask,
    is_gone,
    make_pool,
    order_of,
    running_pool,
    text_answer,
    until,
)
from tests.waiting import waiting_for


async def test_a_killed_worker_is_replaced_and_its_death_is_told_at_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with running_pool(order_of(url), workers=2) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
                await run.pool.wait_until_ready(2)
            first = run.pool.statuses()[0]
            assert (first.number, first.stage) == (1, Stage.READY)
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
            await until(lambda: run.deaths, seconds=2)
            assert run.deaths == [(first.consumer, True)]
            await until(lambda: run.pool.ready == 2)
            assert run.pool.statuses()[0].consumer == "worker-3"


async def test_readiness_says_why_no_worker_can_be_forked_until_one_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refuses = WorkerProcess.start, [True]

    def started(process: WorkerProcess) -> None:
        if refuses[0]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        start(process)

    monkeypatch.setattr(WorkerProcess, "start", started)
    with redis_server(tmp_path) as url:
        async with running_pool(order_of(url)) as run:
            nothing: Any = None
            workforce = cast(Workforce, SimpleNamespace(pool=run.pool))
            workers = AllWorkers(workforce, nothing, Metrics(), "i")
            said = "0 ready; no other can be started: Too many open files"
            await until(lambda: workers.check().detail == said)
            refuses[0] = False
            await until(lambda: workers.check().ok)
            assert workers.check().detail == "1 ready"


LIFESPAN = """import os
from contextlib import asynccontextmanager
from workers import Agent
@asynccontextmanager
async def lifespan():
    if not os.path.exists("there"):
        raise OSError("no route")
    yield
agent = Agent(lifespan=lifespan)
@agent.on_message()
async def answer(message, chat): ...
"""


async def test_readiness_says_why_no_worker_begins(tmp_path: Path) -> None:
    (tmp_path / "away_agent.py").write_text(LIFESPAN, encoding="utf-8")
    with redis_server(tmp_path) as url:
        async with running_pool(order_of(url, handler="away_agent:agent", directory=tmp_path)) as run:
            nothing: Any = None
            workforce = cast(Workforce, SimpleNamespace(pool=run.pool))
            workers = AllWorkers(workforce, nothing, Metrics(), "i")
            said = "0 ready; the last one could not begin: status 70 (OSError at away_agent.py:7)"
            await until(lambda: workers.check().detail == said)
            (tmp_path / "there").touch()
            await until(lambda: workers.check().ok)
            assert workers.check().detail == "1 ready"


async def test_a_drain_lets_the_running_job_finish_and_ends_the_pool(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url), workers=2) as run:
            await ask(bus, f"wait {tmp_path / 'go'}")
            await until(lambda: any(status.running for status in run.pool.statuses()))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.pool.drain)
                await until(lambda: [status.stage for status in run.pool.statuses()] == [Stage.DRAINING])
                (tmp_path / "go").touch()
            assert await text_answer(bus) == "waited"
            assert run.pool.statuses() == ()
            await until(lambda: len(run.deaths) == 2)
            assert not any(abnormal for _consumer, abnormal in run.deaths)


@pytest.mark.parametrize("hurried", [False, True])
async def test_drain_timeout_hands_the_job_back(tmp_path: Path, hurried: bool) -> None:
    with redis_server(tmp_path) as url:
        order = order_of(url, times=WorkerTimes(terminate_seconds=5))
        async with open_bus(url) as bus, running_pool(order, drain_seconds=60 if hurried else 0.5) as run:
            await ask(bus, "sleep 600")
            await until(lambda: any(status.running for status in run.pool.statuses()))
            with waiting_for("the drain", WITHIN_SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run.pool.drain)
                    if hurried:
                        await trio.testing.wait_all_tasks_blocked()
                        run.pool.hurry()
            assert "worker: does not drain, stopped" in run.lines.events()
            assert await bus.client.command("XPENDING", bus.keys.jobs, "workers") == [0, None, None, None]


async def test_a_worker_that_cannot_be_stopped_is_killed_at_the_end_of_a_drain(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url), drain_seconds=0.5) as run:
            await ask(bus, "spin")
            await until(lambda: any(status.running for status in run.pool.statuses()))
            [status] = run.pool.statuses()
            with waiting_for("the drain", WITHIN_SECONDS):
                await run.pool.drain()
            assert status.pid is not None
            assert is_gone(status.pid)


async def test_a_handler_that_no_worker_can_import_ends_the_pool_and_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_like_this\n", encoding="utf-8")
    run = make_pool(order_of("unix:///nowhere", handler="broken:agent", directory=tmp_path), workers=2)
    with (
        waiting_for("the pool to end over a handler that cannot be used", WITHIN_SECONDS),
        pytest.raises(HandlerUnusable, match=r"nothing_like_this.*broken.py:1"),
    ):
        await run.pool.run()
    assert run.lines.events().count("worker: cannot use the handler") == 1


async def test_a_cancelled_pool_leaves_no_process(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with running_pool(order_of(url), workers=2) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
                await run.pool.wait_until_ready(2)
            pids = [status.pid for status in run.pool.statuses()]
    assert all(pid is not None and is_gone(pid) for pid in pids)


def test_the_defaults_are_what_the_documents_say() -> None:
    settings = PoolSettings(bounds=Bounds(1, 1), order=order_of("u"))
    assert (settings.backoff_first_seconds, settings.backoff_last_seconds, settings.healthy_seconds) == (0.5, 30, 60)
    assert (settings.drain_seconds, settings.tend_seconds) == (25, 1)
    assert settings.crash_loop == CrashLoopLimits(deaths=5, window_seconds=60, quiet_seconds=60)
    assert settings.recycle == RecycleLimits(jobs=0, age_seconds=0, soft_bytes=0, hard_bytes=0, rest_seconds=30)
    assert settings.autoscale == AutoscaleTimes(up_after_seconds=2, down_after_seconds=60)
    times = WorkerTimes()
    assert (times.load_seconds, times.silence_seconds) == (60, 10)
    assert (times.job_seconds, times.grace_seconds) == (600, 10)
    assert (times.dump_seconds, times.terminate_seconds) == (1, 2)
    assert HEARTBEAT_SECONDS == 1
