"""Two versions of the program beside each other: what the newer one wrote, the older one neither reads nor loses."""

from pathlib import Path

import msgspec
import pytest
import structlog
import trio

from bus.records import records
from bus.records.records import (
    ACT_SCHEMA,
    PLACED_SCHEMA,
    SCHEMA_VERSION,
    BadRecord,
    JobRecord,
    NewerRecord,
    decode_job_record,
    decode_reply_record,
)
from bus.steps.placing import Placed, Placing
from bus.steps.recovery import Reclaim
from bus.steps.vault import StoreIsNewer
from crypto.errors import NewerFormat, Unreadable, stored_unreadable
from crypto.records import EMPTY_RECORD, DeviceRecord
from tests.bus.builders import BUS_KEY, CONVERSATION, arrival_of, job_of, open_bus, open_worker, placed_job
from tests.redis_server import redis_server
from tests.supervisor.builders import KEYS, open_core, reply_to_next, sending
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import PERSON, Person
from tests.waiting import waiting_for

WAIT_SECONDS = 20.0


def of_schema(packed: bytes, schema: int, *more: object) -> bytes:
    """The record as another version would write it, with more at its end."""
    _, *rest = msgspec.msgpack.decode(packed)
    return msgspec.msgpack.encode([schema, *rest, *more])


@pytest.mark.pure
def test_one_schema_back_is_read_and_two_are_not() -> None:
    packed = job_of(1)
    assert decode_job_record(of_schema(packed, SCHEMA_VERSION - 1)).job_id == decode_job_record(packed).job_id
    with pytest.raises(BadRecord) as caught:
        decode_job_record(of_schema(packed, SCHEMA_VERSION - 2))
    assert not isinstance(caught.value, NewerRecord)


@pytest.mark.pure
def test_a_newer_record_is_told_from_a_damaged_one_whatever_its_shape() -> None:
    newer = of_schema(job_of(1), PLACED_SCHEMA + 1, "a field of the future")
    with pytest.raises(NewerRecord, match="of schema 3, and this version of hashee-agent reads up to 2"):
        decode_job_record(newer)
    with pytest.raises(NewerRecord):
        decode_reply_record(msgspec.msgpack.encode([ACT_SCHEMA + 1, {"shape": "other"}]))
    no_utf_8 = job_of(1).replace(CONVERSATION.encode(), b"\xff" + CONVERSATION.encode()[1:])
    for damaged in (b"\x91", no_utf_8, b"\x91" * 100_000):
        with pytest.raises(BadRecord) as caught:
            decode_job_record(damaged)
        assert not isinstance(caught.value, NewerRecord)


@pytest.mark.pure
def test_a_placed_job_is_newer_to_a_program_that_knows_none_and_a_message_is_the_same_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert decode_job_record(placed_job("digest")).kind == "reminder"
    assert len(msgspec.msgpack.decode(job_of(1))) == 8, "neither trace nor kind is written"
    of_the_future = [*msgspec.msgpack.decode(placed_job("digest"))[:-1], "a kind of the future"]
    with pytest.raises(NewerRecord, match="a kind of the future"):
        decode_job_record(msgspec.msgpack.encode(of_the_future))
    placed = placed_job("digest")
    monkeypatch.setattr(records, "PLACED_SCHEMA", SCHEMA_VERSION)
    with pytest.raises(NewerRecord):
        decode_job_record(placed)
    assert decode_job_record(job_of(1)).seq == 1


async def test_a_placed_job_waits_for_a_worker_that_knows_such_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url, "older") as older:
            assert await Placing(bus.client, bus.keys).place(placed_job("digest")) is Placed.PLACED
            monkeypatch.setattr(records, "PLACED_SCHEMA", SCHEMA_VERSION)
            with trio.move_on_after(1.0) as waited:
                await older.take(1)
            assert waited.cancelled_caught
            monkeypatch.undo()
            [pending] = await bus.recovery.pending(bus.recovery.jobs)
            assert await bus.client.command("XLEN", bus.keys.dead) == 0
            assert (await bus.recovery.reclaim(bus.recovery.jobs, pending, Reclaim())).outcome == "restarted"
        async with open_worker(url, "newer") as worker:
            with waiting_for("a placed job that a former version had passed over", WAIT_SECONDS):
                [job] = await worker.take(1)
            assert (job.kind, job.job_id) == ("reminder", "timer:digest:1")


@pytest.mark.pure
def test_a_newer_session_record_is_told_from_a_damaged_one() -> None:
    _, *rest = msgspec.msgpack.decode(EMPTY_RECORD.encode())
    with pytest.raises(NewerFormat, match="device record of format 4"):
        DeviceRecord.decode(msgspec.msgpack.encode([4, *rest, "more"]))
    with pytest.raises(Unreadable):
        DeviceRecord.decode(b"\x93\x01")
    assert isinstance(stored_unreadable(b"", 1, "record"), Unreadable)


async def test_a_job_of_a_newer_version_waits_for_a_worker_of_that_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = of_schema(job_of(1), PLACED_SCHEMA + 1)
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url, "older") as older:
            await bus.store.accept(arrival_of(1, 0), newer)
            with trio.move_on_after(1.0) as waited:
                await older.take(1)
            assert waited.cancelled_caught
            [pending] = await bus.recovery.pending(bus.recovery.jobs)
            assert pending.consumer == "older"
            assert await bus.client.command("XLEN", bus.keys.dead) == 0
            monkeypatch.setattr(records, "PLACED_SCHEMA", PLACED_SCHEMA + 1)
            released = await bus.recovery.reclaim(bus.recovery.jobs, pending, Reclaim())
            assert released.outcome == "restarted"
        async with open_worker(url, "newer") as worker:
            with waiting_for("a job that a former version wrote", WAIT_SECONDS):
                [job] = await worker.take(1)
            assert job.conversation_id == CONVERSATION


async def test_a_session_of_a_newer_version_holds_its_conversation_and_is_not_overwritten(tmp_path: Path) -> None:
    rest = FakeRest()
    with redis_server(tmp_path) as url:
        async with open_core(url, rest) as core:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await core.push(ada.say("one"))
            key = core.keys.session(PERSON, "phone")
            version, sealed, _ = await core.vault.read_session(PERSON, "phone")
            assert sealed is not None
            _, *stored = msgspec.msgpack.decode(core.vault.open_session(PERSON, "phone", version, sealed))
            newer = KEYS.state.seal(msgspec.msgpack.encode([4, *stored, "more"]), key, version)
            await core.client.command("HSET", key, "b", newer)
        async with open_core(url, rest) as core:
            with pytest.raises(StoreIsNewer, match="upgrade this one"):
                await core.sessions.load((PERSON, "phone"))
            second = ada.say("two")
            with structlog.testing.capture_logs() as logs:
                await core.push(second)
                async with sending(core):
                    core.connection.connect()
                    await reply_to_next(core, "an answer")
                    with waiting_for("the log to say that the reply waits for Redis", WAIT_SECONDS):
                        while not any(line["event"] == "reply: waits for Redis" for line in logs):
                            await trio.sleep(0.01)
                    assert core.connection.sent == []
                    assert await core.quarantined(second) is None
                    assert (await core.vault.read_session(PERSON, "phone"))[1] == newer

                    await core.client.command("HSET", key, "b", sealed)  # as the newer version reads it
                    [answer] = await core.connection.wait_sent(1, seconds=WAIT_SECONDS)
            assert ada.read(answer)["text"] == "an answer"
            assert (await core.polled(second)) is not None
            assert await core.jobs() == ["two"]


def test_the_builders_write_what_this_version_reads() -> None:
    record = msgspec.msgpack.decode(job_of(1), type=JobRecord)
    assert record.schema == SCHEMA_VERSION
    assert BUS_KEY.open(record.sealed, "job", "01906abc-0000-7000-8000-000000000001", record.job_id)
