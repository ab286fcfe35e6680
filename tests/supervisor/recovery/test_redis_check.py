"""Whether a given Redis is fit, asked of a real one: version, eviction, persistence, and what it forbids us to ask."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus.transport.client import RedisClient, open_redis
from bus.transport.lua import Argument, Scripts
from bus.transport.wire import RedisDenied, RedisUnavailable, Value
from supervisor.recovery.redis_check import RedisUnfit, check_redis
from tests.redis_server import running_redis, server_binary

NO_TRUST: frozenset[str] = frozenset()
TRUST = frozenset({"eviction", "persistence"})


@asynccontextmanager
async def redis(tmp_path: Path, *settings: tuple[str, str]) -> AsyncIterator[RedisClient]:
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client:
            for name, value in settings:
                await client.command("CONFIG", "SET", name, value)
            yield client


@asynccontextmanager
async def redis_with_user(tmp_path: Path, *rules: str) -> AsyncIterator[RedisClient]:
    """As a user who may do everything but what `rules` take away."""
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as admin:
            await admin.command("ACL", "SETUSER", "limited", "on", ">word", "~*", "&*", "+@all", *rules)
        async with open_redis(f"unix://limited@{server.socket}?password=word") as client:
            yield client


class OldRedis(RedisClient):
    """Answers INFO as an old server would; everything else is never asked."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("redis://127.0.0.1:1", Scripts({}))
        self._info = answer

    async def command(self, *command: Argument) -> Value:
        assert command[0] == "INFO"
        return self._info


async def test_a_redis_that_keeps_everything_is_fit(tmp_path: Path) -> None:
    async with redis(tmp_path) as client:
        assert await check_redis(client, NO_TRUST) == str(server_binary())


async def test_an_eviction_policy_that_loses_messages_is_refused_also_when_trusted(tmp_path: Path) -> None:
    async with redis(tmp_path, ("maxmemory-policy", "allkeys-lru")) as client:
        with pytest.raises(RedisUnfit, match="maxmemory-policy allkeys-lru; set it to noeviction"):
            await check_redis(client, TRUST)


async def test_a_redis_without_append_only_file_is_refused_unless_trusted_by_name(tmp_path: Path) -> None:
    async with redis(tmp_path, ("appendonly", "no")) as client:
        with pytest.raises(RedisUnfit, match="appendonly no; set it to yes"):
            await check_redis(client, frozenset({"eviction"}))
        assert await check_redis(client, frozenset({"persistence"}))


class HidingRedis(RedisClient):
    """Says its version and nothing else, as some providers' do."""

    def __init__(self) -> None:
        super().__init__("redis://127.0.0.1:1", Scripts({}))

    async def command(self, *command: Argument) -> Value:
        if command[0] == "CONFIG":
            raise RedisDenied("NOPERM")
        return b"# Server\r\nredis_version:7.2.4\r\n"


async def test_what_is_neither_said_nor_may_be_asked_is_believed_only_by_name() -> None:
    client = HidingRedis()
    for trust, wanted in ((NO_TRUST, "eviction"), (frozenset({"eviction"}), "persistence")):
        with pytest.raises(RedisUnfit, match=f"HASHEE_REDIS_TRUST={wanted}"):
            await check_redis(client, trust)
    assert await check_redis(client, TRUST) == "redis 7.2.4"


@pytest.mark.parametrize("setting", [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")])
async def test_where_config_is_forbidden_the_server_is_believed_by_what_info_says(
    tmp_path: Path, setting: tuple[str, str]
) -> None:
    async with redis_with_user(tmp_path, "-config") as client:
        assert await check_redis(client, NO_TRUST)
        path = client.url.partition("@")[2].partition("?")[0]
        async with open_redis(f"unix://{path}") as admin:
            await admin.command("CONFIG", "SET", *setting)
        with pytest.raises(RedisUnfit, match=setting[0]):
            await check_redis(client, NO_TRUST)


@pytest.mark.parametrize("version", [b"6.2.14", b"5.0.7", b"0"])
async def test_an_old_redis_is_refused(version: bytes) -> None:
    client = OldRedis(b"# Server\r\nredis_version:" + version + b"\r\n")
    with pytest.raises(RedisUnfit, match="is too old"):
        await check_redis(client, TRUST)


async def test_a_redis_that_is_away_is_not_unfit(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client:
            server.kill()
            with pytest.raises(RedisUnavailable):
                await check_redis(client, NO_TRUST)
