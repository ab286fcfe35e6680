"""A Redis that is set otherwise while it runs: said in readiness, in the log and by a metric, and over when it is mended."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from bus.records.keys import Keys
from bus.transport.client import RedisClient, open_redis
from bus.transport.wire import RedisDenied, RedisUnavailable
from bus.views.overview import Overview
from bus.views.shared_keys import SharedKeys
from supervisor.observe.health import Check
from supervisor.observe.metrics import Metrics
from supervisor.recovery.redis_check import TRUST_EVICTION, TRUST_PERSISTENCE, Facts, look
from supervisor.recovery.redis_memory import RedisMemory
from supervisor.recovery.redis_watch import ASK_SECONDS, KNOCK_SECONDS, LATE_SECONDS, RedisWatch
from tests.redis_operator import RedisOperator as Operator
from tests.redis_server import running_redis
from tests.waiting import said_of, waiting_for

NOTICED_SECONDS = 60.0
NAMES = Keys("agent")
CHANGES = {
    TRUST_EVICTION: ("maxmemory-policy", "allkeys-lru", "noeviction"),
    TRUST_PERSISTENCE: ("appendonly", "no", "yes"),
}


def watch_of(
    client: RedisClient, *, ask_seconds: float = ASK_SECONDS, knock_seconds: float = KNOCK_SECONDS
) -> RedisWatch:
    """Returns a watch that pauses nothing."""
    memory, shared_keys = RedisMemory(lambda _: None), SharedKeys(client, NAMES)
    return RedisWatch(client, Metrics(), memory, shared_keys, ask_seconds=ask_seconds, knock_seconds=knock_seconds)


@asynccontextmanager
async def watched(
    tmp_path: Path, trust: frozenset[str] = frozenset(), pause: Callable[[bool], None] = lambda _: None
) -> AsyncIterator[tuple[RedisClient, RedisWatch]]:
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client, trio.open_nursery() as nursery:
            watch = RedisWatch(client, Metrics(), RedisMemory(pause), SharedKeys(client, NAMES), trust)
            nursery.start_soon(watch.run)
            yield client, watch
            nursery.cancel_scope.cancel()


async def until(watch: RedisWatch, condition: Callable[[Check], bool]) -> Check:
    with waiting_for(said_of(condition), NOTICED_SECONDS):
        while not condition(watch.check()):
            await trio.sleep(0.02)
    return watch.check()


@pytest.mark.parametrize("setting", CHANGES)
async def test_a_setting_that_loses_messages_is_red_with_its_remedy_until_it_is_mended(
    tmp_path: Path, setting: str
) -> None:
    name, bad, good = CHANGES[setting]
    with capture_logs() as said:
        async with watched(tmp_path) as (client, watch):
            await until(watch, lambda _: watch.faults == {TRUST_EVICTION: "", TRUST_PERSISTENCE: ""})
            assert watch.check().ok
            await client.command("CONFIG", "SET", name, bad)
            check = await until(watch, lambda found: not found.ok)
            assert f"Redis has {name} {bad}; set it to {good}, or messages can be lost" in check.detail
            assert [known for known, fault in watch.faults.items() if fault] == [setting]
            await client.command("CONFIG", "SET", name, good)
            await until(watch, lambda found: found.ok)
    assert [(line["log_level"], line["event"]) for line in said] == [
        ("error", "redis: not fit any more"),
        ("info", "redis: fit again"),
    ]


DAMAGE = {
    "a counter of another type": ("waiting", ("SADD", "x"), "hashee:{agent}:waiting is a set and must be a string"),
    "a counter that is none": ("waiting", ("SET", "x"), "hashee:{agent}:waiting must be a whole number and is none"),
    "a stream": ("ledger", ("SET", "x"), "hashee:{agent}:ledger is a string and must be a stream"),
    "a sum": (
        "load",
        ("HSET", "total", "x"),
        "hashee:{agent}:load, its field 'total', must be a whole number and is none",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_key_that_all_share_and_that_is_damaged_is_red_with_its_name_until_it_is_mended(
    tmp_path: Path, damage: tuple[str, tuple[str, ...], str]
) -> None:
    """Else every message went into quarantine, or no job was taken, and `/readyz` stayed 200."""
    kind, (command, *arguments), says = damage
    with capture_logs() as said:
        async with watched(tmp_path) as (client, watch):
            await until(watch, lambda _: bool(watch.faults))
            assert watch.check().ok
            await client.command(command, NAMES.of(kind), *arguments)
            assert says in (await until(watch, lambda found: not found.ok)).detail
            await client.command("DEL", NAMES.of(kind))
            await until(watch, lambda found: found.ok)
    assert [(line["log_level"], line.get("remedy")) for line in said] == [
        ("error", "docs/runbooks/redis.md"),
        ("info", None),
    ]


async def test_nearly_full_is_red_with_the_reason_until_it_is_well_below(tmp_path: Path) -> None:
    paused = list[bool]()
    async with watched(tmp_path, pause=paused.append) as (client, watch):

        async def fill(part: float) -> None:
            used = (await look(client)).memory_bytes
            await client.command("CONFIG", "SET", "maxmemory", int(used / part))

        async def until_it_has_looked() -> None:
            for _ in range(2):  # the first look may have begun before
                watch.faults = {}
                await until(watch, lambda _: bool(watch.faults))

        await fill(0.85)
        await until_it_has_looked()
        assert watch.check().ok
        await fill(0.95)
        check = await until(watch, lambda found: not found.ok)
        assert "nearly full, nothing is taken in" in check.detail
        await fill(0.85)
        await until_it_has_looked()
        assert not watch.check().ok
        await fill(0.5)
        await until(watch, lambda found: found.ok)
    assert paused == [True, False]


async def test_of_a_redis_without_a_limit_what_this_agent_keeps_counts(tmp_path: Path) -> None:
    paused = list[bool]()
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client, trio.open_nursery() as nursery:
            watch = RedisWatch(
                client,
                Metrics(),
                RedisMemory(paused.append, own_limit_bytes=1_000_000, kept_bytes=Overview(client, NAMES).kept_bytes),
                SharedKeys(client, NAMES),
            )
            nursery.start_soon(watch.run)
            await client.command("SET", "of others", bytes(2_000_000))
            await until(watch, lambda _: bool(watch.faults))
            assert watch.check().ok
            await client.command("HSET", NAMES.load, "total", 500_000, "out", 300_000)
            await client.command("XADD", NAMES.dead, "*", "r", bytes(200_000))
            assert "nearly full" in (await until(watch, lambda found: not found.ok)).detail
            await client.command("DEL", NAMES.load)
            await until(watch, lambda found: found.ok)
            nursery.cancel_scope.cancel()
    assert paused == [True, False]


# Refused is not away: what a real server says no to is red at once, by its reason, and green again after it was mended


def change_password_and_restart(by: Operator) -> None:
    by.change_password()
    by.log_out()


Deed = Callable[[Operator], object]
REFUSALS: dict[str, tuple[Deed, Deed, str]] = {
    "a changed password, while we are logged in": (
        Operator.change_password,
        Operator.allow,
        "refuses new connections: not_authenticated",
    ),
    "a changed password": (change_password_and_restart, Operator.allow, "refuses: not_authenticated"),
    "no right to look": (lambda by: by.acl("-info"), Operator.allow, "refuses: forbidden"),
    "no right to write": (lambda by: by.acl("-@write"), Operator.allow, "refuses: forbidden"),
    "a replica": (
        lambda by: by.admin.execute_command("REPLICAOF", "127.0.0.1", "1"),
        lambda by: by.admin.execute_command("REPLICAOF", "NO", "ONE"),
        "refuses: read_only",
    ),
    "full": (
        lambda by: by.admin.config_set("maxmemory", 1),
        lambda by: by.admin.config_set("maxmemory", 0),
        "refuses: full",
    ),
    "cannot persist": (Operator.cannot_save, Operator.can_save, "refuses: cannot_persist"),
    "no replicas": (
        lambda by: by.admin.config_set("min-replicas-to-write", 1),
        lambda by: by.admin.config_set("min-replicas-to-write", 0),
        "refuses: no_replicas",
    ),
    "no room for a connection": (
        lambda by: by.admin.config_set("maxclients", 1),
        lambda by: by.admin.config_set("maxclients", 1000),
        "refuses new connections: too_many_clients",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_redis_refuses_is_red_by_its_reason_until_it_is_mended(tmp_path: Path, name: str) -> None:
    spoil, mend, words = REFUSALS[name]
    with running_redis(tmp_path) as server:
        by = Operator(server)
        async with open_redis(by.url) as client, trio.open_nursery() as nursery:
            watch = watch_of(client, ask_seconds=0.02, knock_seconds=0.02)
            nursery.start_soon(watch.run)
            await until(watch, lambda found: found.ok and bool(watch.faults))
            spoil(by)
            check = await until(watch, lambda found: words in found.detail)
            assert not check.ok
            assert "first" not in check.detail
            mend(by)
            await until(watch, lambda found: found.ok)
            nursery.cancel_scope.cancel()


async def test_a_server_that_loads_is_red_by_that_name(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client, trio.open_nursery() as nursery:
            watch = watch_of(client, ask_seconds=0.02, knock_seconds=0.02)
            nursery.start_soon(watch.run)
            server.fill()
            server.kill()
            server.start_to_load()
            await until(watch, lambda found: "refuses: loading" in found.detail and not found.ok)
            server.kill()
            server.start()
            await until(watch, lambda found: found.ok)
            nursery.cancel_scope.cancel()


async def test_what_was_refused_to_anybody_counts_until_it_is_done(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        by = Operator(server)
        async with open_redis(by.url) as client:
            watch = watch_of(client)
            by.acl("-xadd", "-memory")
            for command in (("XADD", "s", "*", "a", "b"), ("MEMORY", "USAGE", "s")):
                with pytest.raises(RedisDenied):
                    await client.command(*command)
            assert not watch.check().ok
            assert "refused: forbidden (XADD)" in watch.check().detail
            by.allow()
            await client.command("XADD", "s", "*", "a", "b")
            assert watch.check().ok


async def test_one_that_is_only_away_has_five_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def away(_client: RedisClient) -> Facts:
        raise RedisUnavailable("it was reset")

    monkeypatch.setattr("supervisor.recovery.redis_watch.look", away)
    async with open_redis(f"unix://{tmp_path}/none") as client, trio.open_nursery() as nursery:
        watch = watch_of(client)
        nursery.start_soon(watch.run)
        await trio.sleep(LATE_SECONDS - 0.5)
        assert watch.check().ok
        await trio.sleep(1)
        assert not watch.check().ok
        assert "away: it was reset" in watch.check().detail
        nursery.cancel_scope.cancel()


@pytest.mark.pure
def test_a_disk_that_was_not_written_is_a_fault_and_what_is_hidden_is_none() -> None:
    facts = Facts(memory_bytes=1, limit_bytes=0, policy=None, appends=True, is_written=False)
    assert "disk" in facts.faults(frozenset())[TRUST_PERSISTENCE]
    hidden = Facts(memory_bytes=1, limit_bytes=0, policy=None, appends=None, is_written=True)
    assert hidden.faults(frozenset()) == {}


@pytest.mark.parametrize("setting", CHANGES)
async def test_what_the_owner_vouches_for_is_not_watched(tmp_path: Path, setting: str) -> None:
    name, bad, _ = CHANGES[setting]
    async with watched(tmp_path, frozenset({setting})) as (client, watch):
        await client.command("CONFIG", "SET", name, bad)
        watch.faults = {}
        await until(watch, lambda _: bool(watch.faults))  # it has looked since
        assert watch.check().ok
        assert setting not in watch.faults
