"""DESIGN §3, rules 16 to 19: what only a real server shows: full, unable to persist, restarted, read by others (see test_rules.py)."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from bus.records.keys import JOBS_GROUP, Keys
from bus.records.records import BadRecord, decode_job_record, decode_reply_record, open_job, open_reply, unpack_job
from bus.steps.jobs import Finished, JobStore
from bus.steps.outbox import Committed
from bus.steps.policies import Policies, PolicyStore
from bus.steps.recovery import Reclaim, Recovery
from bus.steps.store import Intake, Source
from bus.steps.write_count import Found
from bus.transport.client import open_redis
from bus.transport.readers import RedisStreamReader
from bus.transport.wire import RedisFull, RedisUnavailable
from tests.bus.builders import (
    AGENT,
    BUS_KEY,
    CONVERSATION,
    PEER,
    Bus,
    arrival_of,
    job_of,
    open_bus,
    open_worker,
    reply,
    signed_id_of,
)
from tests.bus.redis_scene import RedisScene
from tests.bus.talk import answer, talk_and_worker, talk_of
from tests.redis_server import redis_server, running_redis
from tests.waiting import waiting_for

WAIT_SECONDS = 10.0
SECRET = "What nobody else may read"


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    _set_full(scene, False)
    scene.close()


async def test_rule_16_a_full_redis_takes_nothing_in_and_keeps_no_half_of_it(redis: RedisScene) -> None:
    talk, _ = await talk_and_worker(redis)
    await talk.accept(1)
    before = redis.contents()
    _set_full(redis, True)
    with pytest.raises(RedisFull):
        await talk.accept(2)
    with pytest.raises(RedisFull):
        await talk.quarantine(2)
    assert redis.contents() == before


async def test_rule_16_a_full_redis_drains(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    outbox, lease = talk.supervisor.outbox, talk.supervisor.recovery
    for seq in (1, 2, 3, 4):
        await talk.accept(seq)
    await talk.quarantine(5)
    job = await worker.take()
    assert job is not None
    for place in ("0", "1", "2"):
        await worker.steps.emit(job, place, reply(place))
    _set_full(redis, True)

    assert await lease.lease.hold(15_000)
    assert await worker.renew(job.entry_id) == ([], [])
    assert (await worker.steps.start(job)).outcome == "started"
    assert await worker.steps.finish(job) is Finished.DONE
    second = await worker.take()
    assert second is not None
    await worker.steps.hand_back(second)
    second = await worker.take()
    assert second is not None
    await worker.steps.fail(second, "broke", 0)
    assert await talk.start_due() == 1
    assert await worker.take() is not None
    assert [one.outcome for one in await talk.reclaim()] == ["restarted"]
    third = await worker.take()
    assert third is not None
    await worker.steps.fail(third, "broke", None)
    assert [await answer(worker) for _ in range(2)] == ["message 3", "message 4"]
    assert await talk.requeue(5) is Intake.ACCEPTED
    assert await answer(worker) == "message 5"
    assert await talk.send("c0", 6) == "0"
    dropped = await talk.take_reply()
    assert await outbox.drop_reply(CONVERSATION, "no_grant", entry_id=dropped.id)
    assert (await talk.commit(await talk.take_reply(), "c2", rate=5)).outcome is Committed.COMMITTED
    _set_full(redis, False)
    await redis.time_passes(10_000)
    _set_full(redis, True)
    assert await outbox.resend(CONVERSATION) is not None
    assert await outbox.confirm(CONVERSATION, "c2", "m", 7) is not None
    assert await talk.supervisor.check(certainly_back=True) is Found.OLDER
    assert [await talk.supervisor.dead.drop(letter) for letter in await talk.supervisor.dead.first()] == [True, True]
    assert await redis.leftovers() == []


def _set_full(redis: RedisScene, is_full: bool) -> None:
    redis.client.ask("CONFIG", "SET", "maxmemory", int(is_full))


async def test_rule_16_a_redis_that_cannot_persist_is_treated_like_a_full_one(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        scene = RedisScene(url)
        talk = await talk_of(scene)
        in_the_way = tmp_path / "dump.rdb"
        in_the_way.mkdir()
        scene.client.ask("CONFIG", "SET", "save", "3600 1")
        await _save(scene, "err")
        with pytest.raises(RedisFull, match="MISCONF"):
            await talk.accept(1)
        in_the_way.rmdir()
        await _save(scene, "ok")
        assert await talk.accept(1) is Intake.ACCEPTED
        scene.close()


async def _save(scene: RedisScene, expected: str) -> None:
    scene.client.ask("BGSAVE")
    with waiting_for(f"a save that ends with {expected}", WAIT_SECONDS):
        while True:
            info = scene.client.ask("INFO", "persistence")
            assert isinstance(info, bytes)
            lines = info.decode().splitlines()
            if "rdb_bgsave_in_progress:0" in lines and f"rdb_last_bgsave_status:{expected}" in lines:
                return
            await trio.sleep(0.01)


async def test_rule_17_what_is_taken_in_and_sent_after_a_restart_from_an_older_file_is_of_a_new_epoch(
    tmp_path: Path,
) -> None:
    files, kept = tmp_path / "redis", tmp_path / "kept"
    files.mkdir()
    with running_redis(files) as server:
        scene = RedisScene(server.url)
        talk, worker = await talk_and_worker(scene)
        await talk.accept(1)
        await answer(worker, "0", "1")
        server.kill()
        shutil.copytree(files / "appendonlydir", kept)
        server.start()
        _reconnect(scene)
        assert await talk.send("c0", 2) == "0"
        assert await talk.supervisor.check() is Found.SAME
        server.kill()
        shutil.rmtree(files / "appendonlydir")
        shutil.copytree(kept, files / "appendonlydir")
        server.start()
        _reconnect(scene)
        entry = await talk.take_reply()
        assert (await talk.commit(entry, "c0")).outcome is Committed.WENT_BACK
        assert await talk.supervisor.check() is Found.OLDER
        assert (await talk.commit(entry, "c0")).outcome is Committed.COMMITTED
        scene.close()


def _reconnect(scene: RedisScene) -> None:
    with pytest.raises(RedisUnavailable):
        scene.client.ask("PING")


async def test_rule_17_every_script_that_changes_something_of_a_conversation_counts(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    outbox, lease = talk.supervisor.outbox, talk.supervisor.recovery
    seen = [(await redis.facts()).write_count]

    async def counted() -> None:
        seen.append((await redis.facts()).write_count)
        assert seen[-1] > seen[-2]

    await talk.accept(1)
    await counted()
    await talk.quarantine(2)
    await counted()
    await talk.requeue(2)
    await counted()
    job = await worker.take()
    assert job is not None
    await worker.steps.start(job)
    await counted()
    for place in ("0", "1"):
        await worker.steps.emit(job, place, reply(place))
        await counted()
    await worker.steps.hand_back(job)
    await counted()
    job = await worker.take()
    assert job is not None
    await worker.steps.fail(job, "broke", 0)
    await counted()
    await talk.start_due()
    await counted()
    await worker.take()
    await talk.reclaim()
    await counted()
    await answer(worker)
    await counted()
    entry = await talk.take_reply()
    [pending] = await lease.pending(lease.replies)
    await lease.reclaim(lease.replies, pending, Reclaim())
    await counted()
    await talk.commit(await talk.take_reply(), "c0")
    await counted()
    await redis.time_passes(10_000)
    await outbox.resend(CONVERSATION)
    await counted()
    await outbox.confirm(CONVERSATION, "c0", "m", 3)
    await counted()
    entry = await talk.take_reply()
    await outbox.drop_reply(CONVERSATION, "no_grant", entry_id=entry.id)
    await counted()
    [letter] = await talk.supervisor.dead.first()
    await talk.supervisor.dead.retry(letter)
    await counted()
    await talk.supervisor.store.advance_cursor(None, "m")
    await counted()


async def test_rule_18_scripts_and_group_are_made_again_after_redis_lost_them(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.client.command("FLUSHALL")
            await bus.client.command("SCRIPT", "FLUSH")
            assert await bus.accept(1) is Intake.ACCEPTED
            with waiting_for("the job after SCRIPT FLUSH to be taken", WAIT_SECONDS):
                [job] = await worker.take(1)
            assert await worker.finish(job) is Finished.DONE


async def test_rule_18_after_an_error_a_reader_reads_what_was_given_to_it_and_did_not_arrive(redis: RedisScene) -> None:
    talk, _ = await talk_and_worker(redis)
    async with open_redis(redis.url) as client:
        reader = RedisStreamReader(client, stream=redis.keys.jobs, group=JOBS_GROUP, consumer="reader")
        reader.start()
        await talk.accept(1)
        assert len(await reader.read(1)) == 1
        await talk.accept(1, conversation="lost on its way")
        await (await redis.worker("reader")).take()
        redis.client.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with waiting_for("the reader to fail once and then read what was given to it", WAIT_SECONDS):
            with pytest.raises(RedisUnavailable):
                await reader.read(8)
            found = await reader.read(8)
            assert [decode_job_record(entry.fields["r"]).conversation_id for entry in found] == [
                CONVERSATION,
                "lost on its way",
            ]
        await reader.close()


async def test_rule_18_a_consumer_is_forgotten_only_where_nothing_is_pending(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    lease = Recovery(redis.client, redis.keys, "supervisor-1")
    await talk.accept(1)
    await talk.accept(1, conversation="another")
    job = await worker.take()
    assert job is not None
    await answer(await redis.worker("idle"))
    assert await lease.forget_idle_consumers() == 0  # not silent for long enough
    assert await lease.forget_idle_consumers(idle_ms=0) == 1
    assert await worker.steps.finish(job) is Finished.DONE
    assert await lease.forget_idle_consumers(idle_ms=0) == 1


async def test_rule_18_a_script_that_cannot_go_on_has_written_nothing(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    await talk.accept(1)
    await answer(worker, "0")
    entry = await talk.take_reply()
    version = await talk.version()
    before = redis.contents()
    assert (await talk.commit(entry, "c0", version=version + 1)).outcome is Committed.STALE
    assert (await talk.commit(entry, "c0", epoch=1)).outcome is Committed.EPOCH
    assert await talk.accept(5) is Intake.GAP
    assert await talk.accept(1) is Intake.DUPLICATE
    assert await talk.supervisor.outbox.confirm(CONVERSATION, "another", "m", 2) is None
    assert await talk.supervisor.outbox.resend(CONVERSATION) is None
    assert redis.contents() == before


async def test_rule_19_what_lies_in_redis_is_sealed_and_opens_at_its_own_place_only(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis, Policies(refusal=SECRET, apology=SECRET))
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    assert "message 1" in job.message.text
    await worker.steps.emit(job, "0", reply(SECRET))
    everything = repr(redis.contents())
    assert SECRET not in everything
    assert "message 1" not in everything

    packed = job_of(1)
    moved = msgspec.msgpack.encode(msgspec.structs.replace(decode_job_record(packed), job_id="another"))
    assert open_job(packed, key=BUS_KEY, agent_id=AGENT).text == "message 1"
    for record, agent in ((moved, AGENT), (packed, "another agent")):
        with pytest.raises(BadRecord):
            open_job(record, key=BUS_KEY, agent_id=agent)
    with pytest.raises(BadRecord):
        unpack_job(packed, entry_id="1-0", attempt=1, deliveries=1, key=BUS_KEY, agent_id="another agent")
    said = decode_reply_record((await talk.take_reply()).fields["r"])
    assert open_reply(said, key=BUS_KEY, agent_id=AGENT).payload["text"] == SECRET
    for changed in ({"place": "1"}, {"job_id": "another"}):
        with pytest.raises(BadRecord):
            open_reply(msgspec.structs.replace(said, **changed), key=BUS_KEY, agent_id=AGENT)
    assert await PolicyStore(redis.client, Keys(AGENT), BUS_KEY).refusal() == SECRET


async def given_up_in_redis(bus: Bus, worker: JobStore) -> None:
    """A take that is cancelled while Redis has its read: that stays under way there."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.take, 1)
        with waiting_for("the read to reach Redis", WAIT_SECONDS):
            while b"cmd=xreadgroup" not in cast("bytes", await bus.client.command("CLIENT", "LIST")):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_a_cancelled_take_swallows_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await given_up_in_redis(bus, worker)
            await bus.accept(1)
            with waiting_for("the job to be taken by the worker whose read was given up", WAIT_SECONDS):
                [job] = await worker.take(1)
            assert job.message.text == "message 1"


async def test_what_a_leaving_worker_has_read_and_not_taken_goes_to_another(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            async with open_worker(url, "leaving") as leaving:
                await given_up_in_redis(bus, leaving)
                await bus.accept(1)
                with waiting_for("the job to be given to the leaving worker's read", WAIT_SECONDS):
                    while not await bus.recovery.pending(bus.recovery.jobs):
                        await trio.sleep(0.01)
            async with open_worker(url, "staying") as staying:
                with waiting_for("the job to be taken by the staying worker", WAIT_SECONDS):
                    [job] = await staying.take(1)
            assert (job.attempt, job.deliveries) == (1, 1)


@pytest.mark.parametrize("busy", [20, 1600])
async def test_the_id_memory_is_bounded_and_remembers_at_least_the_last_1024(tmp_path: Path, busy: int) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            for seq in range(1, busy + 1):
                arrival = msgspec.structs.replace(arrival_of(seq, 0), session=None)
                assert await bus.store.accept(arrival, None) is Intake.ACCEPTED
            size = await bus.client.command("STRLEN", bus.keys.ids(CONVERSATION))
            assert isinstance(size, int)
            assert size <= (1024 if busy == 20 else 16 * 1024)
            newest_kept = [seq for seq in (busy, max(1, busy - 1023)) if await bus.accept(seq) is Intake.DUPLICATE]
            assert len(newest_kept) == 2
            look = await bus.store.look(CONVERSATION, PEER, signed_id_of(1))
            assert look.known == (busy == 20)
            assert look.dropped_ms == (0 if busy == 20 else 512)


@pytest.mark.parametrize("dated_ms", [(0, 0, 0), (1_800_000_000_000, 1_900_000_000_000, 1_700_000_000_000)])
async def test_the_id_memory_lives_90_days_beyond_the_last_message_however_messages_are_dated(
    tmp_path: Path, dated_ms: tuple[int, ...]
) -> None:
    days = 86_400
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            ids, lives = bus.keys.ids(CONVERSATION), []
            for seq, (dated, left) in enumerate(zip(dated_ms, (90.5 * days, 89.9 * days, 90.5 * days), strict=True), 1):
                arrival = msgspec.structs.replace(arrival_of(seq, 0), session=None, message_ms=dated)
                assert await bus.store.accept(arrival, None) is Intake.ACCEPTED
                lives.append(cast(int, await bus.client.command("TTL", ids)))
                await bus.client.command("EXPIRE", ids, int(left))
            assert [life > 90.9 * days for life in lives] == [True, False, True]
            assert min(lives) > 90 * days


async def test_an_unsigned_copy_in_quarantine_does_not_stand_in_the_way_of_the_genuine_message(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            forged = msgspec.structs.replace(
                arrival_of(1, 0, source=Source.POLL), session=None, signed_id=b"", message_id="m"
            )
            genuine = msgspec.structs.replace(arrival_of(1, 0, source=Source.POLL), session=None, message_id="m")
            for arrival, frame, digest, outcome in (
                (forged, b"forged", "", Intake.ACCEPTED),
                (forged, b"forged again", "", Intake.DUPLICATE),
                (genuine, b"genuine", "", Intake.LATE),
                (genuine, b"genuine", "", Intake.DUPLICATE),
                (genuine, b"another", "other", Intake.TAKEN),
            ):
                taken = await bus.store.quarantine(arrival, reason="no_session", frame=frame, digest=digest)
                assert taken is outcome
            assert await bus.client.command("HGET", bus.keys.quarantined("m"), "frame") == b"genuine"


async def test_a_lease_that_was_taken_before_redis_clock_was_put_back_outlives_its_holder_by_no_more_than_its_lease(
    redis: RedisScene,
) -> None:
    lease = Recovery(redis.client, redis.keys, "supervisor-1").lease
    assert await Recovery(redis.client, redis.keys, "gone").lease.hold(5000)
    await redis.client.command("PEXPIRE", redis.keys.reclaimer, 3_600_000)
    assert not await lease.hold(5000)
    assert 0 < cast(int, await redis.client.command("PTTL", redis.keys.reclaimer)) <= 5000
