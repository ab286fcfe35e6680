"""One connection for all tasks: each gets its own answer, whoever of them is cancelled, and whatever becomes of Redis."""

import os
import signal
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from bus.transport.client import RedisClient, open_redis
from bus.transport.leases import LeaseKeeper
from bus.transport.readers import LiveSubscriber, RedisStreamReader
from bus.transport.wire import RedisRefused, RedisUnavailable
from tests.redis_server import redis_server, running_redis
from tests.waiting import waiting_for

WAIT_SECONDS = 10.0


async def test_commands_of_many_tasks_get_their_own_answers(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client, trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(expect_echo, client, f"message {number}")
        assert client.connects == 1


async def test_what_tasks_ask_in_the_same_turn_goes_out_in_one_piece(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            before = await reads_of(client)
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(client.command, "PING")
            assert await reads_of(client) - before == 2, "one for all of them, and the one that asks for this"


async def reads_of(client: RedisClient) -> int:
    """How often Redis has read from a connection."""
    info = await client.command("INFO", "stats")
    assert isinstance(info, bytes)
    return int(info.partition(b"total_reads_processed:")[2].split()[0])


async def test_a_task_that_is_cancelled_while_it_drives_leaves_the_others_their_answers(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            for _ in range(100):  # trio starts them in an order of its own
                async with trio.open_nursery() as nursery:
                    given_up = trio.CancelScope()
                    nursery.start_soon(echo_within, client, given_up)
                    for number in range(5):
                        nursery.start_soon(expect_echo, client, f"message {number}")
                    await trio.lowlevel.checkpoint()
                    given_up.cancel()
                await expect_echo(client, "after it")


async def test_large_values_pass_both_ways_beside_small_ones(tmp_path: Path) -> None:
    large = os.urandom(5_000_000)
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client, trio.open_nursery() as nursery:
            for value in (large, b"small", large[::-1]):
                nursery.start_soon(expect_echo, client, value)


async def test_scripts_that_were_flushed_are_loaded_again(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await client.command("SCRIPT", "FLUSH")
            assert await client.script("advance_cursor", ["{a}cursor", "{a}gen"], "", "read") == 1


async def test_what_redis_refuses_is_told_to_the_one_who_asked(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client, trio.open_nursery() as nursery:
            nursery.start_soon(expect_echo, client, "before")
            with pytest.raises(RedisRefused, match="unknown command"):
                await client.command("NOSUCH")


async def test_a_killed_redis_is_unavailable_and_comes_back_on_a_new_connection(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client:
            await expect_echo(client, "before")
            server.kill()
            for _ in range(3):
                with pytest.raises(RedisUnavailable):
                    await client.command("PING")
            assert client.connected_since is None
            server.start()
            await expect_echo(client, "after")
            assert client.connects == 2
            assert client.connected_since is not None


async def test_connecting_to_a_redis_that_does_not_answer_is_given_up_at_once(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            async with open_redis(server.url) as client:
                with (
                    waiting_for("a command to be given up while Redis stands still", WAIT_SECONDS),
                    trio.move_on_after(0.05) as asking,
                ):
                    await client.command("PING")
                assert asking.cancelled_caught
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_an_answer_that_does_not_come_is_given_up_and_the_next_connection_serves(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_redis(server.url, answer_timeout_seconds=0.1) as client:
            assert await client.command("PING") == b"PONG"
            os.kill(server.pid, signal.SIGSTOP)
            try:
                with (
                    waiting_for("a command to fail while Redis stands still", WAIT_SECONDS),
                    pytest.raises(RedisUnavailable, match="no answer"),
                ):
                    await client.command("PING")
            finally:
                os.kill(server.pid, signal.SIGCONT)
            client.answer_timeout_seconds = WAIT_SECONDS
            assert await client.command("PING") == b"PONG"
            assert client.connects == 2


async def test_an_answer_that_came_while_this_process_was_stopped_is_no_late_one(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url, answer_timeout_seconds=0.1) as client, trio.open_nursery() as nursery:
            assert await client.command("PING") == b"PONG"
            for _ in range(10):
                nursery.start_soon(client.command, "PING")
                await trio.lowlevel.checkpoint()
                time.sleep(0.15)  # noqa: ASYNC251 - nothing of this process runs
        assert client.connects == 1


async def test_what_a_cancelled_read_had_asked_for_goes_to_the_next(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            reader = await reader_of(client)
            await give_up_a_read(client, reader)
            await client.command("XADD", "stream", "*", "r", "entry")
            with waiting_for("the entry that came after a given-up read", WAIT_SECONDS):
                assert [entry.fields["r"] for entry in await reader.read(1)] == [b"entry"]
            await reader.close()


async def test_what_a_cancelled_read_had_asked_for_is_handed_back_when_the_reader_closes(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            reader = await reader_of(client)
            await give_up_a_read(client, reader)
            await client.command("XADD", "stream", "*", "r", "entry")
            assert [entry.fields["r"] for entry in await reader.close()] == [b"entry"]
            assert await reader.close() == []


async def give_up_a_read(client: RedisClient, reader: RedisStreamReader) -> None:
    """A read that is cancelled once Redis has been asked."""

    async def is_blocked() -> bool:
        info = await client.command("INFO", "clients")
        return isinstance(info, bytes) and b"blocked_clients:1" in info

    with waiting_for("the read to block in Redis", WAIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.read, 1)
            while not await is_blocked():
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()


async def test_a_reader_closes_while_it_is_read(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client, trio.open_nursery() as nursery:
            reader = await reader_of(client)

            async def read() -> None:
                with pytest.raises(RedisUnavailable):
                    await reader.read(1)

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            with waiting_for("the reader to close", WAIT_SECONDS):
                assert await reader.close() == []


async def expect_echo(client: RedisClient, text: str | bytes) -> None:
    with waiting_for("the echo", WAIT_SECONDS):
        answer = await client.command("ECHO", text)
    assert answer == (text if isinstance(text, bytes) else text.encode())


async def connections(client: RedisClient) -> int:
    clients = await client.command("CLIENT", "LIST")
    assert isinstance(clients, bytes)
    return clients.count(b"\n")


async def echo_within(client: RedisClient, scope: trio.CancelScope) -> None:
    with scope:
        await client.command("ECHO", "nobody reads this")


async def reader_of(client: RedisClient) -> RedisStreamReader:
    reader = RedisStreamReader(client, stream="stream", group="group", consumer="consumer")
    await reader.make_group()
    reader.start()
    return reader


async def test_a_client_that_is_closed_while_it_connects_leaves_no_connection(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client:
            await expect_echo(client, "the watcher")
            other = RedisClient(server.url, client.scripts)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.command, "PING")
                await trio.testing.wait_all_tasks_blocked()
                await other.aclose()
            with waiting_for("Redis to have closed all other connections", WAIT_SECONDS):
                while await connections(client) > 1:  # Redis hears of an end a little later
                    await trio.lowlevel.checkpoint()


async def test_a_command_that_cannot_be_packed_fails_alone(tmp_path: Path) -> None:
    async def expect_refused(client: RedisClient) -> None:
        with pytest.raises((TypeError, UnicodeEncodeError)):
            await client.command("ECHO", "\ud800")

    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(expect_echo, client, f"message {number}")
                    nursery.start_soon(expect_refused, client)
            await expect_echo(client, "after it")
        assert client.connects == 1


async def test_redis_is_connected_to_and_left_while_every_shared_thread_is_taken(tmp_path: Path) -> None:
    """As by a handler's own `trio.to_thread.run_sync`, 40 times something that hangs."""
    with running_redis(tmp_path) as server:
        shared = trio.to_thread.current_default_thread_limiter()
        for _ in range(int(shared.total_tokens)):
            shared.acquire_on_behalf_of_nowait(object())
        with waiting_for("what needs a thread", WAIT_SECONDS):
            async with open_redis(server.url) as client:
                await expect_echo(client, "through a thread of its own")
                leases = LeaseKeeper(
                    server.url,
                    client.scripts,
                    stream="jobs",
                    group="g",
                    consumer="c",
                    interrupted="i",
                    renew_seconds=0.1,
                )
                leases.start()
                await leases.close()
                live = LiveSubscriber(client, "live", lambda _: None, block_ms=100)
                live.start()
                await live.close()
                assert not leases.is_alive
                assert not live.is_alive
