"""Where the Redis is: what sentinels and cluster nodes say is followed, on real ones; what was counted is there after the master has gone."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
import trio
import trio.testing
from redis.exceptions import AskError, ResponseError

from bus.records.keys import Keys
from bus.settings.redis_url import AddressKind, BadRedisUrl, RedisAddress, parse_redis_url
from bus.transport.client import RedisClient, open_redis
from bus.transport.readers import RedisStreamReader
from bus.transport.route import Route, asked_to, moved_to
from bus.transport.wire import RedisFailed, RedisUnavailable, Wire
from tests.bus.builders import AGENT
from tests.bus.transport.several_redis import (
    MASTER,
    add_replica,
    begin_move,
    end_move,
    move_slot,
    send_keys,
    several,
    until,
    with_cluster,
    with_sentinels,
)
from tests.waiting import waiting_for

KEYS = Keys(AGENT)
WITHIN_SECONDS = 60.0


@pytest.mark.pure
@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "redis+sentinel://u:p@a,b:1,[::1]:2/name/3?sentinel_password=s",
            RedisAddress(
                host="a",
                port=26379,
                further_hosts=(("b", 1), ("::1", 2)),
                kind=AddressKind.SENTINEL,
                service="name",
                database=3,
                username="u",
                password="p",
                sentinel_password="s",
            ),
        ),
        (
            "rediss+cluster://a:1,b",
            RedisAddress(host="a", port=1, further_hosts=(("b", 6379),), kind=AddressKind.CLUSTER, tls={}),
        ),
    ],
)
def test_what_a_url_of_several_means(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address


@pytest.mark.pure
@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a",
        "redis+sentinel://a/",
        "redis+sentinel://a,/name",
        "redis+sentinel://a:0/name",
        "redis+cluster://a/name",
        "redis+cluster://a//3",
        "redis+cluster://a?sentinel_password=S3cret",
        "redis+other://a",
        "redis+sentinel://u:S3cret#@a/name",
    ],
)
def test_what_is_not_certain_is_refused(url: str) -> None:
    with pytest.raises(BadRedisUrl) as refused:
        parse_redis_url(url)
    assert "S3cret" not in str(refused.value)


@pytest.mark.pure
def test_moved_says_where_and_nothing_else_does() -> None:
    assert moved_to(ResponseError("MOVED 7 10.0.0.1:6379"), ("h", 1)) == (7, ("10.0.0.1", 6379))
    assert moved_to(ResponseError("MOVED 7 :6380"), ("h", 1)) == (7, ("h", 6380))
    assert moved_to(ResponseError("MOVED 7 [::1]:6380"), ("h", 1)) == (7, ("::1", 6380))
    assert moved_to(ResponseError("ASK 7 10.0.0.1:6379"), ("h", 1)) is None
    assert asked_to(ResponseError("ASK 7 10.0.0.1:6379"), ("h", 1)) == (7, ("10.0.0.1", 6379))
    assert asked_to(AskError("7 :6380"), ("h", 1)) == (7, ("h", 6380))
    assert asked_to(ResponseError("MOVED 7 10.0.0.1:6379"), ("h", 1)) is None
    route = Route(parse_redis_url("redis+cluster://a,b"))
    assert route.moved(ResponseError("MOVED 7 c:1"))
    tried = [look().host for look in route.addresses(lambda _at, _name: ("", 0))]
    assert tried == ["c", "a", "b"]


class Counting:
    """Counts up in Redis, one after the other, and repeats what was not answered: so at least what was answered must be there."""

    def __init__(self, client: RedisClient) -> None:
        self.client = client
        self.answered = 0
        self.longest_pause_seconds = 0.0

    async def run(self) -> None:
        last = trio.current_time()
        number = 0
        while True:
            try:
                await self.client.command("SADD", KEYS.owners, number)
            except RedisFailed:
                await trio.sleep(0.05)
                continue
            now = trio.current_time()
            self.longest_pause_seconds, last = max(self.longest_pause_seconds, now - last), now
            number += 1
            self.answered = number
            await trio.sleep(0.002)

    async def more(self, count: int = 20) -> None:
        wanted = self.answered + count
        with waiting_for("more answers", WITHIN_SECONDS):
            while self.answered < wanted:
                await trio.sleep(0.02)


@asynccontextmanager
async def counting(url: str) -> AsyncIterator[Counting]:
    async with open_redis(url) as client, trio.open_nursery() as nursery:
        made = Counting(client)
        nursery.start_soon(made.run)
        await made.more()
        yield made
        nursery.cancel_scope.cancel()


async def all_there(made: Counting) -> None:
    assert await made.client.command("SCARD", KEYS.owners) in (made.answered, made.answered + 1)


async def blocking(function: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(function)


async def test_the_master_dies_and_its_successor_is_found_by_the_sentinels(tmp_path: Path) -> None:
    with several(tmp_path) as servers:
        master, replica, sentinels = with_sentinels(servers)
        hosts = ",".join(f"127.0.0.1:{port}" for port in (1, *sentinels))  # the first of them is not there
        async with counting(f"redis+sentinel://{hosts}/{MASTER}") as made:
            await blocking(lambda: until(lambda: servers.ask(replica).scard(KEYS.owners) >= made.answered))
            servers.kill(master)
            await made.more()
            assert servers.ask(replica).info("replication")["role"] == "master"
            await all_there(made)
        async with open_redis(f"redis+sentinel://{hosts}/another") as client:
            with pytest.raises(RedisUnavailable):
                await client.command("PING")


async def test_a_replica_that_sentinels_still_take_for_the_master_is_not_used(tmp_path: Path) -> None:
    with several(tmp_path) as servers:
        master = servers.start()
        sentinel = servers.start(sentinel=f"sentinel monitor {MASTER} 127.0.0.1 {master} 1")
        servers.ask(master).execute_command("REPLICAOF", "127.0.0.1", "1")
        async with open_redis(f"redis+sentinel://127.0.0.1:{sentinel}/{MASTER}") as client:
            with pytest.raises(RedisUnavailable) as refused:
                await client.command("PING")
            assert refused.value.reason == "read_only"


async def test_what_has_gone_already_is_asked_for_there_while_the_slot_is_being_moved(tmp_path: Path) -> None:
    with several(tmp_path) as servers:
        ports = with_cluster(servers)
        slot = servers.ask(ports[0]).execute_command("CLUSTER", "KEYSLOT", KEYS.owners)
        source = ports[slot * 3 // 16_384]
        target, other = (port for port in ports if port != source)
        async with open_redis(f"redis+cluster://127.0.0.1:{other}") as client:
            for node in map(servers.ask, ports):
                await blocking(partial(until, partial(is_well, node)))
            await client.command("SADD", KEYS.owners, "one")
            await client.command("SET", KEYS.epoch, "a")
            assert await client.script("advance_cursor", [KEYS.cursor, KEYS.write_count], "", "a") == 1
            begin_move(servers, slot, source, target)
            assert await client.command("SCARD", KEYS.owners) == 1, "it is still here"
            send_keys(servers, source, target, KEYS.owners, KEYS.cursor, KEYS.write_count)
            connects = client.connects

            async def add(number: int, added: list[int]) -> None:
                assert await client.command("SADD", KEYS.owners, f"n{number}") == 1
                added.append(number)

            added: list[int] = []
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(add, number, added)
            assert sorted(added) == list(range(10))
            assert servers.ask(target).execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == 3
            assert servers.ask(source).execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == 1
            has_gone, is_between = [KEYS.cursor, KEYS.write_count], [KEYS.epoch, KEYS.write_count]
            assert await client.script("advance_cursor", has_gone, "a", "b") == 1
            with pytest.raises(RedisUnavailable) as between:
                await client.script("advance_cursor", is_between, "a", "b")
            assert between.value.reason == "moving"
            pinned = client.on_connection(client.connects)
            with pytest.raises(RedisUnavailable):  # what is for one connection alone is for no other
                await pinned.command("SADD", KEYS.owners, "a commit")
            wire = Wire(client.url, client.scripts, answer_timeout_seconds=5)
            assert await trio.to_thread.run_sync(wire.call, [("SADD", KEYS.owners, "a thread's")]) == [1]
            wire.close()
            await who_is_cancelled_loses_nobody(client, servers.processes[target].pid)
            assert client.connects == connects, "the connection to the node that has the slot stays"
            send_keys(servers, source, target, KEYS.epoch)
            end_move(servers, slot, source, target, [other])
            count = await client.command("SCARD", KEYS.owners)
            assert count == servers.ask(target).scard(KEYS.owners)
            assert count in (15, 16), "what was given up may have run"


def is_well(node: redis.Redis) -> bool:
    """Whether it takes commands for its slots."""
    return bool(node.cluster("INFO")["cluster_state"] == "ok")


async def who_is_cancelled_loses_nobody(client: RedisClient, stalled_pid: int) -> None:
    """Who drives is cancelled while it asks the node where the slot is moved to; the others have their answers."""
    answers: list[int] = []

    async def add(number: int) -> None:
        try:
            await client.command("SADD", KEYS.owners, f"again {number}")
        except RedisFailed:  # it may have run
            await add(number)
        else:
            answers.append(number)

    os.kill(stalled_pid, signal.SIGSTOP)
    try:
        async with trio.open_nursery() as everybody, trio.open_nursery() as impatient:
            impatient.start_soon(client.command, "SADD", KEYS.owners, "given up")
            await trio.testing.wait_all_tasks_blocked(0.05)
            for number in range(3):
                everybody.start_soon(add, number)
            await trio.testing.wait_all_tasks_blocked(0.05)
            impatient.cancel_scope.cancel()
            os.kill(stalled_pid, signal.SIGCONT)
    finally:
        os.kill(stalled_pid, signal.SIGCONT)
    assert sorted(answers) == [0, 1, 2]


async def test_a_slot_that_moves_is_followed_and_so_is_one_whose_node_dies(tmp_path: Path) -> None:
    with several(tmp_path) as servers:
        ports = with_cluster(servers)
        slot = servers.ask(ports[0]).execute_command("CLUSTER", "KEYSLOT", KEYS.owners)
        assert {servers.ask(ports[0]).execute_command("CLUSTER", "KEYSLOT", key) for key in KEYS.board("c")} == {slot}
        owner = ports[slot * 3 // 16_384]
        target, other = (port for port in ports if port != owner)
        seeds = f"redis+cluster://127.0.0.1:{other},127.0.0.1:{target}"
        async with counting(seeds) as made:
            reader = RedisStreamReader(made.client, stream=KEYS.jobs, group="g", consumer="me")
            await reader.make_group()
            read: list[str] = []
            async with trio.open_nursery() as nursery:

                async def read_on() -> None:
                    while True:
                        try:
                            read.extend(entry.id for entry in await reader.read(10))
                        except RedisFailed:
                            await trio.sleep(0.05)

                nursery.start_soon(read_on)
                await blocking(lambda: move_slot(servers, slot, owner, target, [other]))
                await made.more()
                assert servers.ask(target).scard(KEYS.owners) >= made.answered - 1
                await made.client.command("XADD", KEYS.jobs, "*", "r", "x")
                replica = await trio.to_thread.run_sync(add_replica, servers, target)
                await blocking(
                    lambda: until(lambda: len(servers.ask(other).execute_command("CLUSTER", "NODES").splitlines()) == 4)
                )
                servers.kill(target)
                await made.more()
                assert servers.ask(replica).info("replication")["role"] == "master"
                # What the dead node had acknowledged and not passed on is gone, as replication is; from here on nothing is.
                gone = made.answered - servers.ask(replica).scard(KEYS.owners)
                await made.more()
                assert made.answered - servers.ask(replica).scard(KEYS.owners) <= gone + 1
                await made.client.command("XADD", KEYS.jobs, "*", "r", "y")
                with waiting_for("the reader to read the second entry from the new master", WITHIN_SECONDS):
                    while len(read) < 2:
                        await trio.sleep(0.02)
                nursery.cancel_scope.cancel()
            await reader.close()
