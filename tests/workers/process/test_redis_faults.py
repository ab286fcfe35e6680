"""A worker and a Redis that is away, full, or refuses: what must be told is told later, what cannot be is let go, the worker lives."""

import io
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing

from bus.records.cards import CardKept
from bus.steps.job_steps import Carded, CardEmitted
from bus.transport.backoff import Backoff
from bus.transport.wire import RedisDenied, RedisFailed, RedisFull, RedisRefused, RedisUnavailable
from tests.waiting import said_of, waiting_for
from tests.workers.builders import agent_that, running
from tests.workers.doubles import MemoryBus, job_of
from workers import Agent, BlockingChat, Chat, InboundMessage, Info
from workers.process.logs import Log
from workers.process.overrun import GRACE_SECONDS, OverrunWatch
from workers.process.vitals import Vitals

MENDED_WITHIN_SECONDS = 2.0
PASSING: list[RedisFailed] = [
    RedisUnavailable("gone"),
    RedisUnavailable("READONLY", "read_only"),
    RedisFull("OOM"),
    RedisFull("MISCONF", "cannot_persist"),
    RedisDenied("NOPERM"),
    RedisDenied("WRONGPASS", "not_authenticated"),
]
ANY = [*PASSING, RedisRefused("WRONGTYPE", "wrong_type"), RedisRefused("NOGROUP", "no_group")]


def name_of(fault: RedisFailed) -> str:
    return fault.reason


def card_agent() -> Agent:
    agent = Agent()

    @agent.on_message()
    async def show(_message: InboundMessage, chat: Chat) -> None:
        await trio.sleep(10)
        await chat.reply(Info("new"))
        await chat.update("known", Info("newer"))

    return agent


async def a_job_waits_out(fault: RedisFailed, agent: Agent, bus: MemoryBus) -> None:
    """Two minutes of a fault do not end the job that says something meanwhile; then it ends within seconds."""
    async with running(agent, bus):
        bus.give(job_of())
        await bus.until(lambda: bus.held)
        bus.fault = fault
        await trio.sleep(120)
        assert bus.finished == []
        bus.fault, mended = None, trio.current_time()
        await bus.until(lambda: bus.finished)
        assert trio.current_time() - mended < MENDED_WITHIN_SECONDS


@pytest.mark.parametrize("fault", PASSING, ids=name_of)
async def test_a_card_and_an_update_wait_until_redis_takes_them(
    autojump_clock: trio.testing.MockClock, fault: RedisFailed
) -> None:
    bus = MemoryBus(cards={"known": CardKept(3, "job", "0", "info")})
    await a_job_waits_out(fault, card_agent(), bus)
    assert [(place, reply.payload.get("based_on_revision")) for place, reply in bus.replies] == [("0", None), ("1", 3)]


async def test_a_card_waits_for_room(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus(card_answers=[CardEmitted(Carded.FULL)] * 30, cards={"known": CardKept(3, "job", "0", "info")})
    async with running(card_agent(), bus, job_seconds=20):
        bus.give(job_of())
        await bus.until(lambda: bus.finished)
    assert len(bus.replies) == 2, "the time that it had no room is not its own"


@pytest.mark.parametrize("fault", PASSING, ids=name_of)
async def test_what_a_job_has_to_say_waits_until_redis_takes_it(
    autojump_clock: trio.testing.MockClock, fault: RedisFailed
) -> None:
    bus = MemoryBus()
    await a_job_waits_out(fault, agent_that(seconds=10), bus)
    assert [place for place, _ in bus.replies] == ["0"]


@pytest.mark.parametrize("fault", ANY, ids=name_of)
async def test_a_worker_takes_jobs_again_within_two_seconds_and_says_once_what_was_wrong(
    autojump_clock: trio.testing.MockClock, fault: RedisFailed
) -> None:
    bus, output = MemoryBus(), io.StringIO()
    bus.fault = fault
    async with running(agent_that(), bus, output=output):
        await trio.sleep(300)
        bus.fault, mended = None, trio.current_time()
        bus.give(job_of())
        await bus.until(lambda: bus.finished)
        assert trio.current_time() - mended < MENDED_WITHIN_SECONDS
    said = [line for line in output.getvalue().splitlines() if "waiting for it" in line]
    assert len(said) == 1
    assert fault.reason in said[0]


@pytest.mark.parametrize("refused", ["start", "emit", "finish", "fail", "hand_back"])
async def test_a_step_that_redis_will_never_take_costs_its_job_alone(
    autojump_clock: trio.testing.MockClock, refused: str
) -> None:
    agent, bus, output = Agent(), MemoryBus(), io.StringIO()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await trio.sleep(1)  # longer than it takes to note its start
        await chat.reply(f"re: {message.text}")
        if refused == "fail":
            raise KeyError

    async with running(agent, bus, output=output) as runner:
        bus.refused = refused
        bus.give(job_of(number=1))
        await bus.until(lambda: bus.held)
        await trio.sleep(0.5)
        if refused == "hand_back":
            runner.stop()
        await trio.sleep(30)
        assert bus.held == set(), "its lease runs out and another tries it"
        bus.refused = ""
        if refused != "hand_back":
            bus.give(job_of(number=2, attempt=4))
            await bus.until(lambda: bus.finished or len(bus.failed) > (refused == "emit"))
    if refused in {"start", "finish", "fail"}:
        assert output.getvalue().count("Redis refuses its step") == 1
        assert "wrong_type" in output.getvalue()


@pytest.mark.parametrize("fault", PASSING, ids=name_of)
async def test_the_time_limit_counts_by_the_workers_own_clock_whatever_redis_does(
    autojump_clock: trio.testing.MockClock, fault: RedisFailed
) -> None:
    agent, bus = Agent(), MemoryBus()
    ran: list[float] = []

    @agent.on_message()
    async def hang(message: InboundMessage, chat: Chat) -> None:
        began = trio.current_time()
        try:
            await trio.sleep(3600)
        finally:
            ran.append(trio.current_time() - began)

    async with running(agent, bus, job_seconds=5, vitals=(vitals := Vitals())):
        bus.give(job_of())
        await bus.until(lambda: bus.held)
        bus.fault = fault
        await trio.sleep(30)
        assert ran == [pytest.approx(5)]
        assert vitals.heartbeat(0).running == (), "what only waits for Redis is no reason to kill a worker"
        assert bus.held == {"1-0"}
        bus.fault = None
        await bus.until(lambda: bus.failed)
    assert [reason for _id, reason, _ in bus.failed] == ["timeout"]
    assert bus.finished == []


async def test_a_thread_over_its_limit_is_seen_to_run_while_redis_is_away() -> None:
    agent, bus, may_end = Agent(), MemoryBus(), threading.Event()

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        assert may_end.wait(30)

    output = io.StringIO()
    async with running(agent, bus, job_seconds=0.05, output=output, vitals=(vitals := Vitals())):
        bus.give(job_of())
        await bus.until(lambda: bus.held)
        bus.away = True
        await until(lambda: "over its time limit" in output.getvalue())
        assert [job.entry_id for job in vitals.heartbeat(0).running] == ["1-0"]
        may_end.set()
        await until(lambda: not vitals.heartbeat(0).running)
        bus.away = False
        await bus.until(lambda: bus.failed)
    assert [reason for _id, reason, _ in bus.failed] == ["timeout"]


async def test_a_worker_alone_that_a_job_hangs_leaves(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    vitals, left, log = Vitals(), threading.Event(), Log(__import__("logging").Logger("test"))
    watch = OverrunWatch(vitals, log, 30.0 - GRACE_SECONDS, left.set, look_seconds=0.01)
    watch.start()
    vitals.started(job_of())
    assert watch.dead_threads == []
    assert not left.is_set()
    monkeypatch.setattr("workers.process.vitals.time.monotonic", lambda: 1e9)
    assert left.wait(30)
    watch.stop()


HELD = """
import re, sys, threading, time
from workers.process.logs import Log
from workers.process.overrun import OverrunWatch
from workers.process.vitals import Vitals
watch = OverrunWatch(Vitals(), Log(__import__("logging").Logger("test")), 600.0, sys.exit, look_seconds=0.1, held_seconds=2.0)
watch.start()
watch.jobs_are_taken()
time.sleep(4.0 if sys.argv[1] == "free" else 0.0)
if sys.argv[1] == "held":
    re.match("(a+)+$", "a" * 60 + "b")
watch.stop()
time.sleep(4.0 if sys.argv[1] == "free" else 0.0)
"""


@pytest.mark.parametrize(("how", "status", "said"), [("held", 1, 'File "<string>", line 11'), ("free", 0, "")])
def test_a_worker_that_nobody_watches_ends_when_its_interpreter_is_held(how: str, status: int, said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HELD, how], capture_output=True, timeout=120, check=False, encoding="utf-8"
    )
    assert ended.returncode == status
    assert said in ended.stderr
    assert bool(said) is ("most recent call first" in ended.stderr)


@pytest.mark.pure
async def test_no_pause_keeps_a_worker_waiting_for_long_after_all_is_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backoff = Backoff()
    for _ in range(50):
        began = trio.current_time()
        await backoff.wait()
        assert trio.current_time() - began < MENDED_WITHIN_SECONDS


async def until(condition: Callable[[], object]) -> None:
    with waiting_for(said_of(condition), 60):
        while not condition():
            await trio.sleep(0.01)
