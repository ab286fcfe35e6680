"""From taking a job to its one end, on a bus in memory."""

import io
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.workers.doubles import MemoryBus, job_of, texts
from workers import Agent, Chat, Fail, InboundMessage, Retry
from workers.blocking import BlockingChat
from workers.logs import Log
from workers.runner import Runner, RunnerSettings
from workers.vitals import Vitals

SECRET = "the words of a person"


def agent_that(raised: BaseException | None = None, *, seconds: float = 0.0) -> Agent:
    agent = Agent()

    @agent.on_message("text")
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await trio.sleep(seconds)
        if raised is not None:
            raise raised
        await chat.reply(f"re: {message.text}")

    return agent


@asynccontextmanager
async def running(
    agent: Agent, bus: MemoryBus, *, concurrency: int = 4, output: io.StringIO | None = None
) -> AsyncIterator[Runner]:
    logger = logging.Logger("test")
    logger.addHandler(handler := logging.StreamHandler(output or io.StringIO()))
    handler.setFormatter(logging.Formatter("%(message)s %(values)s"))
    settings = RunnerSettings(concurrency=concurrency)
    runner = Runner(agent, bus, settings, vitals=Vitals(), log=Log(logger))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        yield runner
        runner.drain()


async def test_a_job_is_answered_and_finished_and_let_go() -> None:
    bus = MemoryBus()
    async with running(agent_that(), bus):
        bus.give(job_of("a"))
        await bus.until(lambda: bus.finished)
    assert texts(bus) == [("0", "re: a")]
    assert bus.held == set()


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 5), (3, 30), (4, None)])
async def test_a_handlers_exception_is_a_retry_then_a_dead_letter_and_the_worker_lives(
    attempt: int, seconds: float | None
) -> None:
    bus, output = MemoryBus(), io.StringIO()
    async with running(agent_that(KeyError(SECRET)), bus, output=output):
        bus.give(job_of(attempt=attempt))
        await bus.until(lambda: bus.failed)
        bus.give(job_of(number=2))
        await bus.until(lambda: len(bus.failed) == 2)
    _id, reason, after_ms = bus.failed[0]
    assert reason == "handler_error"
    if seconds is None:
        assert after_ms is None
    else:
        assert after_ms is not None
        assert seconds * 800 <= after_ms <= seconds * 1200
    assert "KeyError" in output.getvalue()
    assert "test_runner.py:" in output.getvalue()
    assert SECRET not in output.getvalue()


async def test_a_handler_that_calls_sys_exit_is_a_failure_like_any_other() -> None:
    bus = MemoryBus()
    async with running(agent_that(SystemExit(3)), bus):
        bus.give(job_of())
        await bus.until(lambda: bus.failed)


async def test_retry_and_fail_end_the_job_as_they_say() -> None:
    for raised, deliveries, expected in [
        (Retry(after_seconds=7), 1, ("message-1", "retry_asked", 7000)),
        (Retry(after_seconds=7), 20, ("message-1", "deliveries", None)),
        (Fail("no_such_order"), 1, ("message-1", "no_such_order", None)),
    ]:
        bus = MemoryBus()
        async with running(agent_that(raised), bus):
            bus.give(job_of(deliveries=deliveries))
            await bus.until(lambda bus=bus: bus.failed)  # type: ignore[misc]  # a default binds the loop's value
        assert bus.failed == [expected]


async def test_a_message_that_no_handler_takes_is_finished() -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_message("image")
    async def answer(message: InboundMessage, chat: Chat) -> None: ...

    async with running(agent, bus):
        bus.give(job_of())
        await bus.until(lambda: bus.finished)
    assert bus.replies == []


async def test_no_more_jobs_run_at_once_than_there_are_slots(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    began = trio.current_time()
    async with running(agent_that(seconds=10), bus, concurrency=2):
        bus.give(*(job_of(number=number) for number in range(6)))
        await bus.until(lambda: len(bus.finished) == 6)
    assert trio.current_time() - began == pytest.approx(30)


async def test_a_drain_finishes_what_runs_and_takes_nothing_more(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    async with running(agent_that(seconds=10), bus) as runner:
        bus.give(job_of(number=1))
        await bus.until(lambda: bus.held)
        await trio.sleep(1)
        runner.drain()
        bus.give(job_of(number=2))
    assert bus.finished == ["message-1"]
    assert bus.handed_back == []


async def test_a_stop_hands_back_what_runs(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    async with running(agent_that(seconds=10), bus) as runner:
        bus.give(job_of())
        await bus.until(lambda: bus.held)
        await trio.sleep(1)
        runner.stop()
    assert bus.handed_back == ["message-1"]
    assert not (bus.finished)
    assert not (bus.failed)
    assert not (bus.replies)
    assert bus.held == set()


async def test_a_lost_lease_cancels_its_handler_and_ends_the_job_nowhere(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bus, job = MemoryBus(), job_of()
    async with running(agent_that(seconds=10), bus):
        bus.give(job)
        await bus.until(lambda: bus.held)
        await trio.sleep(1)
        bus.lose(job)
        await trio.testing.wait_all_tasks_blocked()
        assert bus.held == set()
        bus.give(job_of(number=2))
        await bus.until(lambda: bus.finished)
    assert bus.finished == ["message-2"]
    assert not (bus.failed)
    assert not (bus.handed_back)


async def test_redis_may_go_and_come_while_a_job_runs(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    async with running(agent_that(seconds=10), bus):
        bus.give(job_of(number=1))
        await bus.until(lambda: bus.held)
        bus.away = True
        await trio.sleep(60)
        assert bus.finished == []
        bus.away = False
        bus.give(job_of(number=2))
        await bus.until(lambda: len(bus.finished) == 2)
    assert len(bus.replies) == 2


async def test_sync_handlers_run_side_by_side() -> None:
    agent, bus = Agent(), MemoryBus()
    both = threading.Barrier(2, timeout=10)

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        both.wait()
        chat.reply("met")

    async with running(agent, bus, concurrency=2):
        bus.give(job_of(number=1), job_of(number=2))
        await bus.until(lambda: len(bus.finished) == 2)
    assert len(bus.replies) == 2
