"""Rule 17: a Redis that goes back in time forks no ratchet. Real servers, real files, real keys."""

import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from bus.steps.write_count import FEWEST_IDS
from bus.transport.wire import RedisUnavailable
from host import proc
from host.instance import Instance
from supervisor.recovery import time_guard
from supervisor.recovery.time_guard import TimeGuard
from supervisor.relay.frames import Frame, MessageAck, MessageNew, MessageSend
from tests.redis_server import RedisServer, redis_server, running_redis
from tests.supervisor.builders import Core, open_core, reply_to_next, sending, until, worker
from tests.supervisor.doubles import FakeRest
from tests.supervisor.outbound.test_outbound import dead_reasons
from tests.supervisor.person import CONVERSATION, Person
from tests.waiting import waiting_for

FILES = "appendonlydir"


def keep_a_copy(directory: Path) -> None:
    """What the append-only file holds now; every write is in the kernel before its answer."""
    shutil.copytree(directory / FILES, directory / "older")


def go_back(server: RedisServer, directory: Path) -> None:
    """The server ends and starts again on the older copy of its file."""
    server.kill()
    shutil.rmtree(directory / FILES)
    shutil.copytree(directory / "older", directory / FILES)
    server.start()


async def confirmed(core: Core, frame: Frame, seq: int) -> None:
    """The relay acknowledges, and that stands in Redis."""
    assert isinstance(frame, MessageSend)
    core.delivery.heard(MessageAck(frame.client_message_id, f"relay's-{seq}", seq))

    async def is_confirmed() -> bool:
        return not await core.client.command("HEXISTS", core.keys.acks, frame.client_message_id)

    await until(is_confirmed)


@asynccontextmanager
async def conversation(
    tmp_path: Path, server: RedisServer, rest: FakeRest, instance: Instance | None = None
) -> AsyncIterator[Core]:
    """A supervisor that has looked, is connected and sends."""
    async with open_core(server.url, rest, instance) as core:
        await core.guard.begin()
        core.connection.connect()
        async with sending(core):
            yield core


async def answered(core: Core, text: str, seq: int) -> Frame:
    """The next job's reply goes out and is confirmed."""
    count = len(core.connection.sent)
    await reply_to_next(core, text)
    frame = (await core.connection.wait_sent(count + 1))[-1]
    await confirmed(core, frame, seq)
    return frame


async def answered_after_an_offer(core: Core, person: Person, text: str, offer_seq: int, seq: int) -> Frame:
    """The next job's reply, before which a session is offered in a message of its own."""
    count = len(core.connection.sent)
    await reply_to_next(core, text)
    offer = (await core.connection.wait_sent(count + 1))[count]
    assert person.read(offer) == {"type": "system", "event": {"kind": "session.renewed"}}
    await confirmed(core, offer, offer_seq)
    frame = (await core.connection.wait_sent(count + 2))[-1]
    await confirmed(core, frame, seq)
    return frame


async def test_rule_17_a_redis_that_went_back_is_never_sent_with_an_old_session(tmp_path: Path) -> None:
    rest = FakeRest()
    with running_redis(tmp_path) as server:
        async with conversation(tmp_path, server, rest) as core:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await core.push(ada.say("one"))
            ada.read(await answered(core, "answer to one", 2))
            keep_a_copy(tmp_path)
            two, in_flight = ada.say("two", seq=3), ada.say("three", seq=5)
            await core.push(two)
            lost = await answered(core, "answer to two", 4)
            ada.read(lost)
            old = ada.state.sessions
            go_back(server, tmp_path)

            await until(lambda: is_settled(core, two))  # the cursor is an older one too: the relay shows it again
            again = await answered_after_an_offer(core, ada, "in other words", 6, 4)
            assert core.write_count.epoch == 1
            assert isinstance(lost, MessageSend)
            assert isinstance(again, MessageSend)
            assert again.client_message_id == lost.client_message_id, "the relay knows it, and shows it to nobody"
            await until(lambda: is_settled(core, in_flight))  # sealed in the old session: it is read
            assert ada.read(await answered(core, "answer to three", 7))["text"] == "answer to three"
            assert len(ada.state.sessions - old) == 1, "the offer began a new session"
            await core.push(ada.say("four", seq=8))
            assert ada.read(await answered(core, "answer to four", 9))["text"] == "answer to four"
            assert await dead_reasons(core) == []
            assert core.count("redis_went_back_total") == 1


async def is_settled(core: Core, frame: MessageNew) -> bool:
    """Whether a polled frame has come in, now or before; a Redis that comes back is asked again."""
    outcome = await core.polled(frame)
    return outcome is not None and outcome.is_settled


async def test_workers_that_count_beyond_what_was_seen_hide_nothing(tmp_path: Path) -> None:
    """The count alone is overtaken by whoever comes back first; the lost session tells, and it is not sent with."""
    rest = FakeRest()
    with running_redis(tmp_path) as server:
        async with conversation(tmp_path, server, rest) as core:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await core.push(ada.say("one"))
            ada.read(await answered(core, "first", 2))
            await core.push(ada.say("two", seq=3))
            keep_a_copy(tmp_path)
            await answered(core, "second", 4)
            go_back(server, tmp_path)
            with redis.Redis(unix_socket_path=str(server.socket)) as others:
                others.incrby(core.keys.write_count, 1000)
            again = len(core.connection.sent)
            old = ada.state.sessions
            await reply_after(core, "second, in other words")
            offer = (await core.connection.wait_sent(again + 1))[again]
            assert ada.read(offer)["type"] == "system"
            await confirmed(core, offer, 5)
            await confirmed(core, (await core.connection.wait_sent(again + 2))[-1], 4)
            assert core.write_count.epoch == 1
            await core.push(ada.say("three", seq=6))
            assert ada.read(await answered(core, "third", 7))["text"] == "third"
            assert len(ada.state.sessions - old) == 1
            assert core.count("redis_went_back_total") == 1


async def reply_after(core: Core, text: str) -> None:
    """As `reply_to_next`, of a Redis whose connections have to be made anew."""

    async def taken() -> bool:
        await reply_to_next(core, text)
        return True

    await until(taken)


async def test_what_was_decided_before_a_reconnect_does_not_run_after_it(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            decided = core.client.on_connection(core.client.connects)
            assert await decided.command("INCR", "counter") == 1
            server.kill()
            server.start()
            with pytest.raises(RedisUnavailable):
                await core.client.command("PING")  # the old connection
            await core.client.command("PING")
            with (
                waiting_for("the late command to be refused", 2),
                pytest.raises(RedisUnavailable, match="since this was decided"),
            ):
                await decided.command("INCR", "counter")
            assert await core.client.command("GET", "counter") == b"1"


async def test_a_note_that_cannot_be_written_is_said_once_and_so_is_that_it_is_again(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            note = tmp_path / time_guard.FILE
            note.mkdir()
            with capture_logs() as said:
                for _ in range(3):
                    await core.guard.look_again()
                note.rmdir()
                await core.guard.look_again()
            told = [line["event"] for line in said if line["event"].startswith("state directory")]
            assert told == ["state directory: cannot be written", "state directory: is written again"]
            assert note.is_file()


async def test_two_supervisors_that_notice_the_same_raise_once(tmp_path: Path) -> None:
    rest = FakeRest()
    with running_redis(tmp_path) as server:
        keep_a_copy(tmp_path)
        host = Instance.of_this_process()
        async with (
            open_core(server.url, rest, Instance(host.host, 1, 1)) as one,
            open_core(server.url, rest, Instance(host.host, 1, 2)) as other,
        ):
            for core in (one, other):
                await core.guard.begin()
            await one.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await one.push(ada.say())
            for core in (one, other):
                await core.guard.look_again()
            go_back(server, tmp_path)
            for core in (one, other):
                await look_until_answered(core.guard)
            for core in (one, other):
                await core.guard.look_again()
                assert core.write_count.epoch == 1
                assert core.count("redis_went_back_total") == 1


async def look_until_answered(guard: TimeGuard) -> None:
    async def looked() -> bool:
        await guard.look_again()
        return True

    await until(looked)


def guard_of(core: Core, state_dir: Path, *, is_private: bool = True) -> TimeGuard:
    return TimeGuard(core.client, core.keys, core.write_count, core.metrics, state_dir=state_dir, is_private=is_private)


async def test_after_a_failover_the_promoted_replica_is_another_server(tmp_path: Path) -> None:
    """Nothing is lost here that a count could tell: the replication id alone says that writes may be gone."""
    (tmp_path / "replica").mkdir()
    with running_redis(tmp_path) as server, running_redis(tmp_path / "replica") as replica:
        async with open_core(server.url, FakeRest()) as core:
            guard = guard_of(core, tmp_path, is_private=False)
            await guard.begin()
            await core.client.command("INCRBY", core.keys.write_count, 100)
            await guard.look_again()
            assert core.write_count.epoch == 0
            with redis.Redis(unix_socket_path=str(replica.socket)) as promoted:
                become_replica(promoted, server)
                promoted.execute_command("REPLICAOF", "NO", "ONE")
            server.kill()
            replica.socket.rename(server.socket)  # the name leads to the new master
            await look_until_answered(guard)
            assert core.write_count.epoch == 1
            assert core.count("redis_went_back_total") == 1
            await guard.look_again()
            assert core.count("redis_went_back_total") == 1


def become_replica(client: redis.Redis, master: RedisServer) -> None:
    """A copy of the master's data over its socket; Redis replicates over TCP only, so the master gets a loopback port."""
    with redis.Redis(unix_socket_path=str(master.socket)) as at_master:
        port = free_port()
        at_master.config_set("bind", "127.0.0.1")
        at_master.config_set("port", port)
    client.execute_command("REPLICAOF", "127.0.0.1", str(port))
    while client.info("replication").get("master_link_status") != "up":
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_a_master_that_became_a_replica_is_left_for_the_new_one(tmp_path: Path) -> None:
    """Alive, answering, and refusing every write for ever: only a new connection finds the new master."""
    (tmp_path / "other").mkdir()
    with running_redis(tmp_path) as server, running_redis(tmp_path / "other") as other:
        async with open_core(server.url, FakeRest()) as core:
            with redis.Redis(unix_socket_path=str(server.socket)) as old:
                become_replica(old, other)
            server.socket.unlink()
            server.socket.symlink_to(other.socket)
            connects = core.client.connects
            with pytest.raises(RedisUnavailable):
                await core.client.command("SET", "key", "value")

            async def written() -> bool:
                return await core.client.command("SET", "key", "value") == b"OK"

            await until(written)
            assert core.client.connects == connects + 1


async def test_what_was_seen_outlives_supervisor_and_redis_together(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        keep_a_copy(tmp_path)
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            await core.client.command("INCRBY", core.keys.write_count, 100)
            await core.guard.look_again()
        go_back(server, tmp_path)
        with redis.Redis(unix_socket_path=str(server.socket)) as nothing_left:
            assert nothing_left.dbsize() == 0
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            assert core.write_count.epoch == 1
            assert core.count("redis_went_back_total") == 1


async def test_a_redis_that_lost_its_epoch_went_back_however_much_was_written_since(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            await core.client.command("MSET", core.keys.write_count, 7, core.keys.epoch, 3)
            await core.guard.begin()
            assert core.count("redis_went_back_total") == 0
            assert core.write_count.epoch == 4  # what stood there is no server's: nothing proves it
            await core.client.command("MSET", core.keys.write_count, 1000, core.keys.epoch, 3)
            told = list[int]()
            core.guard.on_back = lambda: told.append(core.write_count.epoch)
            await core.guard.look_again()
            assert core.write_count.epoch == 5
            assert core.count("redis_went_back_total") == 1
            assert told == [5]  # the cursor went back too: it is polled again


async def spoilt_by_another_boot(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state_dir / "boot_id").write_text("another\n", encoding="utf-8")
    monkeypatch.setattr(proc, "BOOT_ID", state_dir / "boot_id")


async def spoilt_by_garbage(state_dir: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    (state_dir / time_guard.FILE).write_bytes(b'{"count": "\xff')


async def spoilt_by_a_directory(state_dir: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    (state_dir / time_guard.FILE).unlink()
    (state_dir / time_guard.FILE).mkdir()


@pytest.mark.parametrize("spoil", [spoilt_by_another_boot, spoilt_by_garbage, spoilt_by_a_directory])
async def test_a_host_that_started_again_or_a_file_that_is_not_readable_is_taken_for_the_worst(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, pytest.MonkeyPatch], Awaitable[None]],
) -> None:
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            assert core.write_count.epoch == 0
        await spoil(tmp_path, monkeypatch)
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            assert core.write_count.epoch == 1
            await core.guard.look_again()
            assert core.write_count.epoch == 1, "once is enough, also where nothing can be noted"


async def test_a_kill_of_redis_alone_is_no_going_back(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            await core.prekeys.publish()
            ada = Person(core.rest)
            ada.meet()
            await core.push(ada.say())
            server.kill(signal.SIGKILL)
            server.start()
            await look_until_answered(core.guard)
            assert core.write_count.epoch == 0
            assert core.count("redis_went_back_total") == 0
            async with worker(core) as jobs:
                with waiting_for("the job to be taken", 5):
                    [job] = await jobs.take(1)
                assert job.conversation_id == CONVERSATION


async def test_prekeys_given_out_since_are_not_made_again_under_their_ids(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest()) as core:
            await core.guard.begin()
            await core.prekeys.publish()
            before = await core.vault.next_prekey_ids("one_time", 1)
            [first] = core.rest.registered
            core.write_count.seen(1_000_000)  # of which Redis knows nothing any more
            await core.guard.look_again()
            await core.guard.look_again()
            await core.prekeys.publish()
            second = core.rest.registered[-1]
            assert signed_prekey_id(second) > signed_prekey_id(first) + FEWEST_IDS
            assert before + FEWEST_IDS <= min(one_time_ids(second)) <= before + 2 * FEWEST_IDS


def one_time_ids(registered: dict[str, object]) -> list[int]:
    given = registered["one_time_prekeys"]
    assert isinstance(given, list)
    return [int(prekey["id"]) for prekey in given]


def signed_prekey_id(registered: dict[str, object]) -> int:
    signed = registered["signed_prekey"]
    assert isinstance(signed, dict)
    return int(signed["id"])
