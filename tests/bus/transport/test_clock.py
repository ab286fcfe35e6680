"""Clocks that do not agree: a worker's is behind, Redis' is an hour off. Nobody is invisible, nothing looks older than it is, and it is shown."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from bus.records.keys import Keys
from bus.records.records import SCHEMA_VERSION, OutboxRecord
from bus.steps.jobs import JobStore
from bus.transport.client import RedisClient, open_redis
from bus.transport.clock import SKEWED_MS, clock_fault, clock_of
from bus.views.backlog import Backlog
from tests.bus.builders import AGENT, BUS_KEY
from tests.redis_server import redis_server
from workers.process.vitals import Vitals

KEYS = Keys(AGENT)
HOUR = 3600.0
WORKER = "elsewhere-1"


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[tuple[RedisClient, JobStore]]:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            store = JobStore(url, AGENT, BUS_KEY, WORKER)
            await store.open()
            try:
                yield client, store
            finally:
                await store.close()


def put_our_clock(monkeypatch: pytest.MonkeyPatch, ahead_seconds: float) -> None:
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + ahead_seconds)


@pytest.mark.parametrize("behind_seconds", [20.0, HOUR, -HOUR])
async def test_a_worker_whose_clock_is_another_is_seen_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind_seconds: float
) -> None:
    vitals = Vitals()
    vitals.introduce(consumer=WORKER, handler="m:a", concurrency=1)
    async with opened(tmp_path) as (client, store):
        with monkeypatch.context() as theirs:
            put_our_clock(theirs, -behind_seconds)
            await store.seen(vitals.presence(0.0))
        [seen] = await Backlog(client, KEYS).workers_elsewhere("ours")
        assert seen.consumer == WORKER
        assert seen.redis_clock_ahead_ms == pytest.approx(behind_seconds * 1000, abs=SKEWED_MS)


async def test_a_worker_of_a_former_release_that_dates_by_its_own_clock_is_seen_too(tmp_path: Path) -> None:
    vitals = Vitals()
    vitals.introduce(consumer=WORKER, handler="m:a", concurrency=1)
    async with opened(tmp_path) as (client, _):
        told = msgspec.json.encode(vitals.presence(0.0))
        await client.command("SET", KEYS.presence(WORKER), told, "EX", 20)
        await client.command("ZADD", KEYS.consumers, int((time.time() - 20) * 1000), WORKER)
        assert [one.consumer for one in await Backlog(client, KEYS).workers_elsewhere("ours")] == [WORKER]
        await client.command("DEL", KEYS.presence(WORKER))
        assert await Backlog(client, KEYS).workers_elsewhere("ours") == ()


@pytest.mark.parametrize("ahead_seconds", [HOUR, -HOUR])
async def test_nothing_looks_older_or_younger_than_it_is_where_redis_is_an_hour_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_seconds: float
) -> None:
    put_our_clock(monkeypatch, ahead_seconds)
    async with opened(tmp_path) as (client, _):
        made_ms = int((time.time() - 30) * 1000)
        record = msgspec.msgpack.encode(
            OutboxRecord(SCHEMA_VERSION, "m", "c", "text", "", None, "h2a", "text", made_ms)
        )
        await client.command("HSET", KEYS.sent("c"), "r", record)
        await client.command("ZADD", KEYS.resend_times, 1, "c")
        await client.command("XADD", KEYS.jobs, "*", "r", b"")
        ages = await Backlog(client, KEYS).ages()
        assert ages.unacknowledged == pytest.approx(30, abs=10)
        assert ages.untaken < 10
        _, ahead_ms = await clock_of(client)
        assert ahead_ms == pytest.approx(-ahead_seconds * 1000, abs=SKEWED_MS)


@pytest.mark.pure
def test_it_is_said_from_where_it_is_no_accident() -> None:
    assert [clock_fault(ms) for ms in (0, 1999, -1999)] == ["", "", ""]
    assert clock_fault(20_000) == "its clock is 20 s ahead of ours"
    assert clock_fault(-3_600_000) == "its clock is 3600 s behind ours"
