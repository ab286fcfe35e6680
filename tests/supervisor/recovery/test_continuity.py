"""Rule 17 for a Redis that is given: the same process with the same history lost nothing, and a count of writes proves nothing."""

from pathlib import Path

import redis
import trio
from trio.testing import MockClock

from supervisor.recovery.continuity import LATELY_SECONDS, NO_REPLICATION, ServerIdentity, goes_on, server_of
from tests.redis_server import RedisServer, running_redis
from tests.supervisor.builders import Core, open_core, until
from tests.supervisor.doubles import FakeRest
from tests.supervisor.recovery.test_time_guard import become_replica, guard_of, look_until_answered

SEEN = ServerIdentity("process", "history", NO_REPLICATION)


def test_what_info_says_is_read() -> None:
    info = b"# Server\r\nrun_id:process\r\n# Replication\r\nrole:master\r\nmaster_replid:history\r\nmaster_replid2:former\r\n"
    assert server_of(info) == ServerIdentity("process", "history", "former")
    assert server_of(b"") == ServerIdentity()


def test_another_history_of_the_same_process_that_gives_up_none_goes_on() -> None:
    assert goes_on(SEEN, ServerIdentity("process", "another", NO_REPLICATION))
    assert not goes_on(SEEN, ServerIdentity("process", "another", "history")), (
        "it was a replica meanwhile, or its former master's"
    )
    assert not goes_on(SEEN, ServerIdentity("another process", "another", NO_REPLICATION))
    assert not goes_on(ServerIdentity(), ServerIdentity("", "another", NO_REPLICATION)), (
        "what says nothing proves nothing"
    )


async def attach(replica: RedisServer, master: RedisServer, core: Core) -> None:
    """A first replica, until its master has begun another history for it."""
    before = await history(core)
    with redis.Redis(unix_socket_path=str(replica.socket)) as client:
        await trio.to_thread.run_sync(become_replica, client, master)

    async def is_another() -> bool:
        return await history(core) != before

    await until(is_another)


async def history(core: Core) -> str:
    answer = await core.client.command("INFO", "server", "replication")
    assert isinstance(answer, bytes)
    return server_of(answer).replication


async def test_a_first_replica_that_attaches_is_no_alarm(tmp_path: Path) -> None:
    (tmp_path / "replica").mkdir()
    (tmp_path / "new pod").mkdir()
    with running_redis(tmp_path) as server, running_redis(tmp_path / "replica") as replica:
        async with open_core(server.url, FakeRest()) as core:
            guard = guard_of(core, tmp_path, is_private=False)
            await guard.begin()
            await core.client.command("INCR", core.keys.write_count)
            await attach(replica, server, core)
            await guard.look_again()
            assert core.write_count.epoch == 0
            await guard_of(core, tmp_path / "new pod", is_private=False).begin()
            assert core.write_count.epoch == 0, "a new pod finds in Redis that it is the one that was looked at"
            assert core.count("redis_went_back_total") == 0


async def test_another_history_counts_only_for_who_has_looked_within_a_minute(tmp_path: Path, clock: MockClock) -> None:
    """After an hour without replicas a server that was one itself shows no former history either."""
    (tmp_path / "replica").mkdir()
    with running_redis(tmp_path) as server, running_redis(tmp_path / "replica") as replica:
        async with open_core(server.url, FakeRest()) as core:
            guard = guard_of(core, tmp_path, is_private=False)
            await guard.begin()
            await core.client.command("INCR", core.keys.write_count)
            await attach(replica, server, core)
            clock.jump(LATELY_SECONDS + 1)
            await guard.look_again()
            assert core.write_count.epoch == 1


async def test_a_lagging_replica_that_workers_pushed_beyond_what_was_seen_went_back(tmp_path: Path) -> None:
    """Found by who was there, and by a pod that has seen nothing before."""
    for name in ("replica", "new pod"):
        (tmp_path / name).mkdir()
    with running_redis(tmp_path) as server, running_redis(tmp_path / "replica") as replica:
        async with open_core(server.url, FakeRest()) as core:
            guard = guard_of(core, tmp_path, is_private=False)
            await guard.begin()
            await core.client.command("INCRBY", core.keys.write_count, 10)
            await attach(replica, server, core)
            await guard.look_again()
            with redis.Redis(unix_socket_path=str(replica.socket)) as promoted:
                await until(lambda: has_count(promoted, core, b"10"))
                promoted.execute_command("REPLICAOF", "NO", "ONE")
                await core.client.command("INCRBY", core.keys.write_count, 5)  # which the replica has not
                await guard.look_again()
                promoted.incrby(core.keys.write_count, 1000)
            server.kill()
            replica.socket.rename(server.socket)
            await look_until_answered(guard)
            assert core.write_count.epoch == 1
            assert core.count("redis_went_back_total") == 1
        async with open_core(server.url, FakeRest()) as core:
            await guard_of(core, tmp_path / "new pod", is_private=False).begin()
            assert core.write_count.epoch == 1, "nothing is lost since"
            assert core.count("redis_went_back_total") == 0


async def test_a_new_pod_finds_out_that_redis_was_replaced_while_all_pods_were(tmp_path: Path) -> None:
    (tmp_path / "new pod").mkdir()
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            await guard_of(core, tmp_path, is_private=False).begin()
            await core.client.command("INCRBY", core.keys.write_count, 10)
        server.kill()
        server.start()
        async with open_core(server.url, FakeRest()) as core:
            await guard_of(core, tmp_path / "new pod", is_private=False).begin()
            assert core.write_count.epoch == 1
            assert core.count("redis_went_back_total") == 1


async def has_count(client: redis.Redis, core: Core, count: bytes) -> bool:
    return client.get(core.keys.write_count) == count
