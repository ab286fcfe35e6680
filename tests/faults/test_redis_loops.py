"""Every loop of a supervisor and of a worker over Redis, through every way in which Redis can fail: none ends, each goes on by itself.

All run at once in one scene on a real Redis. A fault stands in the way of every command; which loop met it is known by the context that a
task inherits. The readers and threads with connections of their own are in tests/bus/transport/test_refusals.py.
"""

import contextlib
import io
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio

from bus.steps.jobs import JobStore
from bus.steps.slots import SlotStore
from bus.transport.client import Commands, RedisClient
from bus.transport.lua import Argument
from bus.transport.wire import RedisDenied, RedisFailed, RedisFull, RedisRefused, RedisUnavailable, Value
from bus.views.shared_keys import SharedKeys
from supervisor.peers.relations import Relations
from supervisor.recovery.redis_memory import RedisMemory
from supervisor.recovery.redis_watch import RedisWatch
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.rest import RestFailed
from supervisor.relay.slots import ConnectionSlot
from supervisor.settings.pauses import Pauses
from tests.redis_server import redis_server
from tests.supervisor.builders import KEYS, Core, open_core
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import AGENT, Person, relation_of
from tests.supervisor.recovery.test_reclaimer import reclaimer
from tests.workers.builders import agent_that
from workers.process.logs import Log
from workers.process.runner import Runner, RunnerSettings
from workers.process.vitals import Vitals

HANGS_SECONDS = 0.3
WITHIN_SECONDS = 60.0

FAULTS: dict[str, RedisFailed | None] = {
    "away": RedisUnavailable("gone"),
    "loading": RedisUnavailable("LOADING", "loading"),
    "read_only": RedisUnavailable("READONLY", "read_only"),
    "full": RedisFull("OOM"),
    "cannot_persist": RedisFull("MISCONF", "cannot_persist"),
    "forbidden": RedisDenied("NOPERM"),
    "not_authenticated": RedisDenied("NOAUTH", "not_authenticated"),
    "wrong_type": RedisRefused("WRONGTYPE", "wrong_type"),
    "slow": None,
}

SHORT = Pauses(
    prekeys_retry=0.1,
    prekeys=0.1,
    relations_retry=0.1,
    poll_retry=0.1,
    overflow_look=0.1,
    held_look=0.1,
    timers_look=0.1,
    quarantine_look=0.1,
)
"""What goes on by itself after seconds or a minute goes on at once: how long it waits is not what is tried."""

loop_of: ContextVar[str] = ContextVar("loop_of", default="")


@dataclass
class Fault:
    """What stands before every command now, and what each loop has met since."""

    error: RedisFailed | None = None
    is_slow: bool = False
    status: int | None = None
    """Of the relay's answers; None while it answers well."""
    answered: dict[str, int] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)

    async def stand_in(self) -> None:
        name = loop_of.get()
        if (error := self.error) is not None:
            self.met[name] = self.met.get(name, 0) + 1
            await trio.lowlevel.checkpoint()
            raise error
        if self.is_slow:
            self.met[name] = self.met.get(name, 0) + 1
            await trio.sleep(HANGS_SECONDS)
        self.served[name] = self.served.get(name, 0) + 1

    async def stand_before_the_relay(self, call: str) -> None:
        name = loop_of.get()
        await trio.lowlevel.checkpoint()
        if (status := self.status) is not None:
            self.met[name] = self.met.get(name, 0) + 1
            raise RestFailed(call, status, "tried", 0.1)
        self.answered[name] = self.answered.get(name, 0) + 1


@dataclass
class Loop:
    """`poke` makes it ask Redis, where it does not by itself within seconds."""

    run: Callable[[], Awaitable[object]]
    poke: Callable[[], None] = lambda: None


REDIS_LOOPS = (
    "supervisor/inbound/catchup.py:Catchup.run",
    "supervisor/outbound/delivery.py:Delivery._resend",
    "supervisor/inbound/held.py:HeldFetcher.run",
    "supervisor/inbound/overflow.py:Overflow.run",
    "supervisor/peers/prekeys.py:OwnPrekeys.keep",
    "supervisor/recovery/reclaimer.py:Reclaimer.run",
    "supervisor/recovery/redis_watch.py:RedisWatch._look",
    "supervisor/recovery/timer_mover.py:TimerMover.run",
    "supervisor/peers/relations.py:Relations._read",
    "supervisor/inbound/quarantine_retrier.py:QuarantineRetrier._obey",
    "supervisor/relay/slots.py:ConnectionSlot.run",
    "supervisor/recovery/time_guard.py:TimeGuard.run",
    "workers/process/runner.py:Runner._be_seen",
)
RELAY_LOOPS = (
    "supervisor/inbound/catchup.py:Catchup.run",
    "supervisor/peers/prekeys.py:OwnPrekeys.keep",
    "supervisor/peers/relations.py:Relations._read",
)


def loops_of(core: Core, store: JobStore) -> dict[str, Loop]:
    slots = ConnectionSlot(SlotStore(core.client, core.keys, 3), core.instance, polls=core.polls)
    relations = Relations(core.owners, PollWish(), SHORT)
    logger = logging.Logger("worker")
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    runner = Runner(
        agent_that(), store, RunnerSettings(concurrency=1, seen_seconds=0.1), vitals=Vitals(), log=Log(logger)
    )
    loops = (
        Loop(core.catchup.run, core.polls.ask),
        Loop(core.delivery.run),
        Loop(core.held.run),
        Loop(core.overflow.run),
        Loop(lambda: core.prekeys.keep(core.metrics), core.prekeys.refill_soon),
        Loop(reclaimer(core).run),
        Loop(
            RedisWatch(core.client, core.metrics, RedisMemory(lambda _: None), SharedKeys(core.client, core.keys)).run
        ),
        Loop(core.timer_mover.run),
        Loop(relations.run, relations.read_all),
        Loop(core.quarantine_retrier.run),
        Loop(partial(wanting, slots)),
        Loop(core.guard.run),
        Loop(runner.run),
    )
    return dict(zip(REDIS_LOOPS, loops, strict=True))


async def wanting(slots: ConnectionSlot) -> None:
    """It runs, and the connection wants a slot."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.take)
        await slots.run()


@dataclass
class FaultyCommands:
    """The fault stands before each of these commands."""

    fault: Fault
    commands: Commands

    async def command(self, *command: Argument) -> Value:
        await self.fault.stand_in()
        return await self.commands.command(*command)

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        await self.fault.stand_in()
        return await self.commands.script(name, keys, *arguments)


def faulty(fault: Fault, method: Callable[..., Awaitable[Value]]) -> Callable[..., Awaitable[Value]]:
    """A method of the client, with the fault before it."""

    async def stand_in(client: RedisClient, *how: object) -> Value:
        await fault.stand_in()
        return await method(client, *how)

    return stand_in


@asynccontextmanager
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Fault, dict[str, Loop]]]:
    """All loops run; what any of them raises fails the test."""
    fault, on_connection = Fault(), RedisClient.on_connection

    def faulty_on_connection(client: RedisClient, number: int) -> Commands:
        return FaultyCommands(fault, on_connection(client, number))

    with redis_server(tmp_path) as url:
        rest = FakeRest()
        rest.related = [relation_of(Person(rest))]
        async with open_core(url, rest, pauses=SHORT) as core:
            store = JobStore(url, AGENT, KEYS.bus, "worker-1")
            await store.open()
            await core.guard.begin()
            core.connection.connect()
            loops = loops_of(core, store)
            monkeypatch.setattr(RedisClient, "command", faulty(fault, RedisClient.command))
            monkeypatch.setattr(RedisClient, "script", faulty(fault, RedisClient.script))
            monkeypatch.setattr(RedisClient, "on_connection", faulty_on_connection)
            monkeypatch.setattr(rest, "called", fault.stand_before_the_relay)
            async with trio.open_nursery() as nursery:
                for name, loop in loops.items():
                    loop_of.set(name)
                    nursery.start_soon(loop.run, name=name)
                loop_of.set("")
                yield fault, loops
                fault.error, fault.is_slow = None, False
                nursery.cancel_scope.cancel()
            with contextlib.suppress(RedisFailed):
                await store.close()


@pytest.mark.parametrize("name", FAULTS)
async def test_no_loop_over_redis_ends_and_each_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with scene(tmp_path, monkeypatch) as (fault, loops):
        await until(fault.served, loops, 1)
        fault.error, fault.is_slow = FAULTS[name], name == "slow"
        with structlog.testing.capture_logs() as lines:
            await until(fault.met, loops, 2)
        said = Counter((line["event"], line.get("part")) for line in lines if line["log_level"] != "debug")
        assert {what: times for what, times in said.items() if times > 1} == {}, "each change is said once"
        fault.error, fault.is_slow = None, False
        fault.served.clear()
        await until(fault.served, loops, 1)


# What every other failure of a call becomes (tests/supervisor/test_rest*.py, test_answers.py): a RestFailed, with 0 for no answer of use.
@pytest.mark.parametrize("status", [0, 400, 401, 404, 408, 429, 500, 503])
async def test_no_loop_over_the_relay_ends_and_each_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async with scene(tmp_path, monkeypatch) as (fault, every):
        loops = {name: every[name] for name in RELAY_LOOPS}
        await until(fault.answered, loops, 1)
        fault.status = status
        await until(fault.met, loops, 2)
        fault.status = None
        fault.answered.clear()
        await until(fault.answered, loops, 1)


async def until(counted: dict[str, int], loops: dict[str, Loop], times: int) -> None:
    missing = set(loops)
    with trio.move_on_after(WITHIN_SECONDS):
        while missing := {name for name in loops if counted.get(name, 0) < times}:
            for name in missing:
                loops[name].poke()
            await trio.sleep(0.05)
    assert missing == set()
