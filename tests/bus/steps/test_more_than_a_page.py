"""What is asked for with a COUNT or LIMIT is asked for until there is no more, and one that Redis refuses holds up none of the others."""

import re
from pathlib import Path

import pytest
import trio

from bus.records.keys import JOBS_GROUP
from bus.steps.jobs import JobStore
from bus.steps.recovery import Reclaim
from bus.steps.store import Source
from bus.transport.wire import RedisUnavailable
from tests.bus.builders import Bus, open_bus, open_worker
from tests.redis_server import redis_server
from tests.waiting import waiting_for

MORE_THAN_A_PAGE = 130
JOBS = 10
WAIT_SECONDS = 10.0


async def accept_in_many_conversations(bus: Bus, count: int) -> None:
    for number in range(count):
        assert (await bus.accept(1, conversation=f"{number:04}", source=Source.POLL)).is_new


async def test_jobs_that_were_read_and_not_received_come_again_whatever_the_free_slots_are(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url, "worker-1") as worker:
            await accept_in_many_conversations(bus, JOBS)
            # Redis hands all of them to this consumer, and the answer is lost with the connection.
            await bus.client.command(
                "XREADGROUP", "GROUP", JOBS_GROUP, "worker-1", "COUNT", JOBS, "STREAMS", bus.keys.jobs, ">"
            )
            await end_the_read_of(worker, bus)
            taken: list[str] = []
            with waiting_for(
                "all jobs of the pending list, more than a page, to be taken", WAIT_SECONDS
            ):  # less than a lease: nobody reclaims them for us
                while len(taken) < JOBS:
                    taken += [job.entry_id for job in await worker.take(4)]
            assert len(set(taken)) == JOBS
            await bus.accept(2, conversation="0001", source=Source.POLL)
            await bus.accept(1, conversation="new", source=Source.POLL)
            with waiting_for("a job of a new conversation to be taken", WAIT_SECONDS):
                [job] = await worker.take(4)
            assert job.conversation_id == "new"


async def end_the_read_of(worker: JobStore, bus: Bus) -> None:
    """Redis hangs up on the worker's read, which fails."""
    with waiting_for("the worker's read to be ended", WAIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_to_take, worker)
            while not (blocked := await blocked_client(bus)):
                await trio.sleep(0.002)
            await bus.client.command("CLIENT", "KILL", "ID", blocked)


async def fail_to_take(worker: JobStore) -> None:
    with pytest.raises(RedisUnavailable):
        await worker.take(1)


async def blocked_client(bus: Bus) -> str:
    """The id of the connection that waits in Redis for an entry; '' while there is none."""
    listed = await bus.client.command("CLIENT", "LIST")
    assert isinstance(listed, bytes)
    found = re.search(rb"^id=(\d+) .* flags=b", listed, re.MULTILINE)
    return found[1].decode() if found else ""


async def test_all_entries_of_a_dead_consumer_are_found_and_released(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url, "dead") as dead:
            await accept_in_many_conversations(bus, MORE_THAN_A_PAGE)
            held = 0
            while held < MORE_THAN_A_PAGE:
                held += len(await dead.take(MORE_THAN_A_PAGE))
            lease = bus.recovery
            found = await lease.pending(lease.jobs, consumer="dead")
            assert len({one.entry_id for one in found}) == MORE_THAN_A_PAGE
            for one in found:
                assert (await lease.reclaim(lease.jobs, one, Reclaim())).outcome == "restarted"
            assert await lease.pending(lease.jobs) == []


async def test_all_failed_jobs_whose_time_has_come_start_at_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await accept_in_many_conversations(bus, MORE_THAN_A_PAGE)
            failed = 0
            while failed < MORE_THAN_A_PAGE:
                for job in await worker.take(MORE_THAN_A_PAGE):
                    await worker.fail(job, "handler_error", 0)
                    failed += 1
            assert await bus.recovery.start_due(await bus.store.now_ms()) == MORE_THAN_A_PAGE


async def test_all_sends_that_are_due_are_sent_again(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            await bus.client.command(
                "ZADD",
                bus.keys.resend_times,
                *(part for number in range(MORE_THAN_A_PAGE) for part in (1, f"{number}")),
            )
            assert len(await bus.outbox.due()) == MORE_THAN_A_PAGE


@pytest.mark.parametrize("spoiled", ["0000", "0005", "0009"])
async def test_one_that_redis_refuses_holds_up_none_of_the_others(tmp_path: Path, spoiled: str) -> None:
    left: list[tuple[str, str]] = []
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            bus.recovery.on_left = lambda name, error: left.append((name, str(error)[:9]))
            await accept_in_many_conversations(bus, JOBS)
            for job in await worker.take(JOBS):
                await worker.fail(job, "handler_error", 0)
            conversation = bus.keys.conversation(spoiled)
            await bus.client.command("RENAME", conversation, "aside")
            await bus.client.command("SET", conversation, "of a wrong type")
            now = await bus.store.now_ms()
            assert await bus.recovery.start_due(now) == JOBS - 1
            assert await bus.recovery.audit(now + 1) == 0
            lease = bus.recovery
            taken = await worker.take(JOBS)
            assert len(taken) == JOBS - 1
            lost = next(job for job in taken if job.conversation_id != spoiled)
            conversation = bus.keys.conversation(lost.conversation_id)
            await bus.client.command("DEL", conversation)
            await bus.client.command("SET", conversation, "of a wrong type")
            outcomes = [
                (await lease.reclaim(lease.jobs, one, Reclaim())).outcome for one in await lease.pending(lease.jobs)
            ]
    assert sorted(outcomes) == ["kept", *["restarted"] * (JOBS - 2)]
    assert {name for name, _ in left} == {spoiled, lost.entry_id}
    assert {text for _, text in left} == {"WRONGTYPE"}
