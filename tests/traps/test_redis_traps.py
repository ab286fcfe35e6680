"""Traps of Redis and redis-py that cost others their messages, each acted out on a real server."""

import contextlib
import socket
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import redis
import trio
import trio.lowlevel

from bus.records.keys import JOBS_GROUP, REPLIES_GROUP
from bus.records.records import SCHEMA_VERSION, Job, OutboxRecord, decode_reply_record
from bus.steps.jobs import JobStore
from bus.steps.outbox import Committed
from bus.steps.store import InboundStore
from bus.steps.write_count import WriteCount
from bus.transport.client import open_redis
from bus.transport.readers import RedisStreamReader, StreamEntry
from bus.transport.wire import RedisUnavailable
from tests.bus.builders import AGENT, Bus, arrival_of, job_of, open_bus, open_worker, reply
from tests.redis_server import running_redis
from tests.supervisor.builders import until
from tests.waiting import waiting_for

MESSAGES = 5000
AT_ONCE = 50
WITHIN_SECONDS = 20.0
QUIET_SECONDS = 0.05


def receive(end: socket.socket) -> bytes | None:
    """What has come; None: nothing for now. Raises OSError at its end."""
    try:
        data = end.recv(1 << 20)
    except TimeoutError:
        return None
    if not data:
        raise ConnectionResetError
    return data


def pass_on(near: socket.socket, far: socket.socket) -> None:
    asked = receive(near)
    if asked is not None:
        far.sendall(asked)


@contextmanager
def cutting_proxy(target: Path, listen: Path) -> Iterator[threading.Event]:
    """Passes bytes on; once the event is set, what the server answers to the next command is not delivered: the line is cut."""
    cuts = threading.Event()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(listen))
    listener.listen()

    def carry(near: socket.socket) -> None:
        with (
            near,
            socket.socket(socket.AF_UNIX) as far,
            contextlib.suppress(OSError),
        ):  # either end may go at any moment
            far.connect(str(target))
            near.settimeout(QUIET_SECONDS)
            far.settimeout(QUIET_SECONDS)
            while True:
                pass_on(near, far)
                while answered := receive(far):
                    if cuts.is_set():
                        cuts.clear()
                        return
                    near.sendall(answered)

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=carry, args=(near,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield cuts
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


async def test_a_connection_cut_after_an_xadd_ran_is_not_run_a_second_time(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, cutting_proxy(server.socket, tmp_path / "proxy.sock") as cuts:
        async with open_redis(f"unix://{tmp_path / 'proxy.sock'}") as client:
            await client.command("PING")
            cuts.set()
            try:
                await client.command("XADD", "stream", "*", "field", "value")
            except RedisUnavailable:
                pass
            else:
                raise AssertionError("the caller must hear that nobody knows whether it ran")
            assert await client.command("XLEN", "stream") == 1


async def test_a_blocked_reader_wakes_at_close_within_a_second(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client:
            reader = RedisStreamReader(client, stream="stream", group="group", consumer="consumer")
            await reader.make_group()
            reader.start()
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    try:
                        await reader.read(1)
                    except RedisUnavailable:
                        return

                nursery.start_soon(read)

                async def is_blocked() -> bool:
                    info = await client.command("INFO", "clients")
                    return isinstance(info, bytes) and b"blocked_clients:1" in info

                await until(is_blocked)
                with waiting_for("the blocked reader to close", 1):
                    await reader.close()


async def test_a_reader_is_not_deaf_after_any_of_ten_restarts(tmp_path: Path) -> None:
    """Alive but not consuming after a reconnect: each time something is there, it is read."""
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client:
            reader = RedisStreamReader(client, stream="stream", group="group", consumer="consumer")
            await reader.make_group()
            reader.start()
            for number in range(10):
                server.kill()
                server.start()
                with redis.Redis(unix_socket_path=str(server.socket)) as other:
                    if number == 5:
                        other.flushall()  # its group is lost as well (NOGROUP)
                    other.xadd("stream", {"number": number})
                entries: list[StreamEntry] = []
                with waiting_for("the reader to read what came after a restart", WITHIN_SECONDS):
                    while not entries:
                        try:
                            entries = await reader.read(1)
                        except RedisUnavailable:
                            await trio.sleep(0.01)
                assert [entry.fields["number"] for entry in entries] == [str(number).encode()]
                with redis.Redis(unix_socket_path=str(server.socket)) as other:
                    other.xack("stream", "group", entries[0].id)
            assert reader.groups_made_again == 1
            await reader.close()


async def test_entries_are_deleted_when_done_and_memory_is_flat_after_5000_messages(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_bus(server.url) as bus, open_worker(server.url) as worker:
            with redis.Redis(unix_socket_path=str(server.socket)) as looker:
                names = [f"conversation-{number}" for number in range(AT_ONCE)]
                may_grow = [bus.keys.ledger, *map(bus.keys.ids, names)]
                weights = []
                for seq in range(1, MESSAGES // AT_ONCE + 1):
                    await pass_through(bus, worker, names, seq)
                    weights.append(used_without(looker, may_grow))
                assert looker.xlen(bus.keys.ledger) > MESSAGES
                assert looker.xlen(bus.keys.jobs) == looker.xlen(bus.keys.replies) == 0
                assert looker.xpending(bus.keys.jobs, JOBS_GROUP)["pending"] == 0
                assert looker.xpending(bus.keys.replies, REPLIES_GROUP)["pending"] == 0
                assert (
                    looker.zcard(bus.keys.resend_times)
                    == looker.hlen(bus.keys.acks)
                    == looker.zcard(bus.keys.busy)
                    == 0
                )
                early, late = statistics.median(weights[5:25]), statistics.median(weights[-20:])
                assert late <= early * 1.1, "it grows with messages that are done"


async def pass_through(bus: Bus, worker: JobStore, names: list[str], seq: int) -> None:
    """One message of each conversation, from its acceptance to the acknowledgement of its answer."""

    async def accept(name: str) -> None:
        arrival = msgspec.structs.replace(arrival_of(seq, 0, conversation=name), session=None)
        assert (await bus.store.accept(arrival, job_of(seq, name))).is_new

    async def answer(job: Job) -> None:
        await worker.emit(job, "0", reply("answer"))
        await worker.finish(job)
        worker.release(job)

    async def send(entry: StreamEntry) -> None:
        record = decode_reply_record(entry.fields["r"])
        name, cmid = record.conversation_id, f"{record.conversation_id} {seq}"
        commit = await bus.outbox.commit(
            answers=(record.job_id, record.place),
            entry_id=entry.id,
            conversation_id=name,
            client_message_id=cmid,
            record=OutboxRecord(SCHEMA_VERSION, cmid, name, "text", "bytes", None, "h2a", "text", 1),
            sessions=[],
            epoch=0,
            rate_per_second=0,
        )
        assert commit.outcome is Committed.COMMITTED
        assert await bus.outbox.confirm(name, cmid, f"id of {cmid}", 0) is not None

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(accept, name)
    left = len(names)
    while left:
        jobs = await worker.take(left)
        left -= len(jobs)
        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(answer, job)
    left = len(names)
    while left:
        entries = await bus.replies.read(left)
        left -= len(entries)
        async with trio.open_nursery() as nursery:
            for entry in entries:
                nursery.start_soon(send, entry)


def used_without(client: redis.Redis, keys: list[str]) -> int:
    return int(client.info("memory")["used_memory"]) - sum(client.memory_usage(key, samples=0) or 0 for key in keys)


async def test_after_redis_returned_the_retries_of_many_do_not_come_all_at_once(tmp_path: Path) -> None:
    """A retry storm: whoever waits asks again on one connection, in one pipeline, and not each on one of its own."""
    with running_redis(tmp_path) as server:
        async with open_redis(server.url) as client:
            store = InboundStore(client, AGENT, "supervisor-1", WriteCount())
            await store.now_ms()
            connects = client.connects
            server.kill()
            answered: list[int] = []

            async def ask_until_answered() -> None:
                async def asked() -> bool:
                    answered.append(await store.now_ms())
                    return True

                await until(asked, WITHIN_SECONDS)

            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(ask_until_answered)
                await trio.lowlevel.checkpoint()
                server.start()
            assert len(answered) == 200
            assert client.connects == connects + 1
            with redis.Redis(unix_socket_path=str(server.socket)) as looker:
                assert looker.info("stats")["total_connections_received"] < 10, "one for each who waited"
