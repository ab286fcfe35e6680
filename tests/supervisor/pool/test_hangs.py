"""Workers that do not come back: each is asked where it stands, ended, and its job goes on with another one."""

import signal
import sys
import time
from pathlib import Path

import msgspec
import pytest

from bus.records.records import pack_job
from supervisor.pool.process import ExitReason
from supervisor.pool.worker_order import WorkerTimes
from tests.bus.builders import AGENT, BUS_KEY, CONVERSATION, Bus, arrival_of, message_of, open_bus
from tests.redis_server import redis_server
from tests.supervisor.pool.builders import (
    QUICK,
    WITHIN_SECONDS,
    PoolRun,
    ask,
    is_gone,
    order_of,
    running_pool,
    running_worker,
    text_answer,
    until,
)
from tests.waiting import waiting_for

IMPATIENT = WorkerTimes(
    load_seconds=60, silence_seconds=60, job_seconds=0.5, grace_seconds=0.5, dump_seconds=0.3, terminate_seconds=0.3
)

IMPORTING = "importing"


def the_one_exit(run: PoolRun, reason: ExitReason) -> None:
    assert [(exited.reason, exited.abnormal) for exited in run.exits] == [(reason, False)]
    assert "handlers.py" in str(run.lines.of("worker: stacks")["stacks"])


@pytest.mark.parametrize(("command", "reason"), [("hold_once", ExitReason.HELD), ("stop_once", ExitReason.SILENT)])
async def test_hung_worker_is_dumped_killed_and_its_job_goes_on(
    tmp_path: Path, command: str, reason: ExitReason
) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url, times=QUICK), bus=bus) as run:
            await ask(bus, f"{command} {tmp_path / 'first'}")
            assert await text_answer(bus) == f"re: {command}"
            [exited] = run.exits
            assert (exited.reason, exited.abnormal) == (reason, False)
            assert "worker: stacks" in run.lines.events()
            if command == "hold_once":
                the_one_exit(run, reason)
            assert is_gone(exited.pid)


async def test_a_handler_over_its_time_limit_that_holds_the_loop_is_dumped_killed_and_its_job_goes_on(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as url:
        order = order_of(url, times=IMPATIENT)
        async with open_bus(url) as bus, running_pool(order, bus=bus) as run:
            await ask(bus, f"spin_once {tmp_path / 'first'}")
            assert await text_answer(bus) == "re: spin_once"
            the_one_exit(run, ExitReason.OVERRUN)
            assert run.exits[0].returncode == -signal.SIGKILL
            assert len(run.exits[0].overdue) == 1


async def test_a_sync_handler_that_holds_the_interpreter_is_killed_and_its_job_goes_on(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url, times=QUICK), bus=bus) as run:
            await ask_system(bus, tmp_path / "first")
            assert await text_answer(bus) == "re: thread"
            the_one_exit(run, ExitReason.HELD)


async def test_a_long_job_within_its_limit_is_left_alone_however_long_the_loop_hangs(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        order = order_of(url, times=WorkerTimes(silence_seconds=4, job_seconds=60, grace_seconds=1))
        async with open_bus(url) as bus, running_pool(order, bus=bus) as run:
            await ask(bus, "block 5")
            assert await text_answer(bus) == "blocked"
            assert run.exits == []


async def test_a_worker_that_only_imports_for_long_is_not_taken_for_a_silent_one(tmp_path: Path) -> None:
    write_slow_handler(tmp_path, seconds=5)
    with redis_server(tmp_path) as url:
        times = WorkerTimes(load_seconds=60, silence_seconds=4)
        order = order_of(url, handler="slow:agent", directory=tmp_path, times=times)
        async with running_pool(order) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
                await run.pool.wait_until_ready()
            assert run.exits == []


async def test_an_interpreter_that_starts_slowly_is_not_silent(tmp_path: Path) -> None:
    """On a machine with much else to do it may take longer to its first word than a silence may last."""
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep {QUICK.silence_seconds + 0.5}\nexec {sys.executable} "$@"\n', encoding="utf-8")
    slow.chmod(0o700)
    with redis_server(tmp_path) as url:
        async with running_pool(order_of(url, python=str(slow), times=QUICK)) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
                await run.pool.wait_until_ready()
            assert run.exits == []


async def test_a_worker_that_imports_for_ever_is_dumped_and_killed(tmp_path: Path) -> None:
    write_slow_handler(tmp_path, seconds=600)
    times = WorkerTimes(load_seconds=60, silence_seconds=60, dump_seconds=2, terminate_seconds=0.2)
    order = order_of("unix:///nowhere", handler="slow:agent", directory=tmp_path, times=times)
    async with running_worker(order) as worker:
        await until((tmp_path / IMPORTING).exists)  # on a busy machine a Python takes long to come to that
        worker.process.began_at -= times.load_seconds
        await until(lambda: worker.exit)
    assert worker.exit is not None
    assert (worker.exit.reason, worker.exit.abnormal) == (ExitReason.SLOW_START, False)
    assert "slow.py:1" in str(worker.lines.of("worker: stacks")["stacks"])


async def test_a_supervisor_that_slept_itself_kills_nobody_for_it(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with running_pool(order_of(url, times=QUICK)) as run:
            with waiting_for("the workers to be ready", WITHIN_SECONDS):
                await run.pool.wait_until_ready()
            slept_until = run.pool.statuses()[0].uptime_seconds + QUICK.silence_seconds + 0.5
            block_this_process(QUICK.silence_seconds + 0.5)
            await until(lambda: run.pool.statuses()[0].uptime_seconds > slept_until + 1)
            assert run.exits == []


def block_this_process(seconds: float) -> None:
    """As if the machine had slept."""
    time.sleep(seconds)


def write_slow_handler(directory: Path, seconds: float) -> None:
    (directory / "slow.py").write_text(
        f"import time; open({str(directory / IMPORTING)!r}, 'w').close(); time.sleep({seconds})\n"
        "from workers import Agent\nagent = Agent()\n"
        "@agent.on_message()\nasync def act(message, chat): ...\n",
        encoding="utf-8",
    )


async def ask_system(bus: Bus, path: Path) -> None:
    """A message of the type that a sync handler takes."""
    message = msgspec.structs.replace(message_of(1), payload={"type": "system", "path": str(path)})
    job = pack_job(message, seq=1, accepted_ms=1, message_ms=1, key=BUS_KEY, agent_id=AGENT)
    assert (await bus.store.accept(arrival_of(1, 0), job)).is_new


async def test_a_worker_whose_lease_thread_has_ended_hands_back_and_another_takes_its_place(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url), bus=bus) as run:
            await run.pool.wait_until_ready()
            await ask(bus, f"lame_once now {tmp_path / 'lamed'}")
            await until(lambda: run.exits)
            assert (run.exits[0].exception, run.exits[0].at) == ("ThreadEnded", "redis-leases")
            assert (run.exits[0].returncode, run.exits[0].abnormal) == (76, False)
            await run.pool.wait_until_ready()


@pytest.mark.long
async def test_rule_5_a_worker_whose_handler_is_not_unwound_is_replaced_and_the_question_stands(tmp_path: Path) -> None:
    """Takes the five seconds of the unwinding, and those of a process that ends hard."""
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url), bus=bus) as run:
            await run.pool.wait_until_ready()
            await ask(bus, "ask_and_hang")
            await until(lambda: run.exits)
            assert (run.exits[0].exception, run.exits[0].abnormal) == ("HandlerHangs", False)
            assert run.exits[0].at.startswith("handlers.py:")
            assert await bus.client.command("HLEN", bus.keys.waits(CONVERSATION)) == 2, (
                "it, and from when on it is answered"
            )
            assert await bus.client.command("XLEN", bus.keys.jobs) == 0
            await run.pool.wait_until_ready()
