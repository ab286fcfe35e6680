"""A job whose record does not open is a dead letter, and whoever wrote it is told."""

import contextlib
from pathlib import Path

import msgspec
import pytest
import trio

from bus.records.records import BadRecord, decode_job_record, decode_reply_record, open_reply, pack_job
from bus.records.sealing import KEY_BYTES, BusKey
from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim
from tests.bus.builders import AGENT, BUS_KEY, PEER, arrival_of, job_of, message_of, open_bus, open_worker
from tests.redis_server import redis_server
from tests.waiting import waiting_for

SORRY = "Sorry."


@pytest.mark.parametrize(
    ("kind", "apology", "told"), [("h2a", SORRY, [SORRY]), ("group", SORRY, []), ("h2a", None, [])]
)
async def test_whoever_wrote_what_does_not_open_is_told_unless_it_was_a_group(
    tmp_path: Path, kind: str, apology: str | None, told: list[str]
) -> None:
    sealed_by_another = pack_job(
        message_of(1), seq=1, accepted_ms=1, message_ms=1, key=BusKey(bytes(KEY_BYTES)), agent_id=AGENT
    )
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url, policies=Policies(apology=apology)) as worker:
            arrival = msgspec.structs.replace(arrival_of(1, 0), session=None, peer=PEER, kind=kind)
            assert (await bus.store.accept(arrival, sealed_by_another)).is_new
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.take, 1)
                with waiting_for("a dead letter", 10):
                    while not await bus.client.command("XLEN", bus.store.keys.dead):
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            assert await bus.client.command("XLEN", bus.store.keys.replies) == len(told)  # written with the dead letter
            heard = [
                open_reply(decode_reply_record(entry.fields["r"]), key=BUS_KEY, agent_id=AGENT).payload["text"]
                for entry in (await bus.replies.read(1) if told else [])
            ]
            assert heard == told


@pytest.mark.parametrize("fields", [("zz", "1"), ("r", "x"), ("a", "1", "d", "1"), ("a", "\xff", "d", "1", "r", "x")])
async def test_an_entry_without_its_fields_holds_up_no_other(tmp_path: Path, fields: tuple[str, ...]) -> None:
    """Else it ended the worker that read it, with all that it ran."""
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            added = await bus.client.command("XADD", bus.store.keys.jobs, "*", *fields)
            assert isinstance(added, bytes)
            bare = added.decode()
            arrival = msgspec.structs.replace(arrival_of(1, 0), session=None, peer=PEER)
            assert (await bus.store.accept(arrival, job_of(1))).is_new
            with waiting_for("the job behind it", 10):
                [job] = await worker.take(2)
            assert job.job_id == decode_job_record(job_of(1)).job_id
            left: list[str] = []
            bus.recovery.on_left = lambda _name, error: left.append(str(error))
            held = [one for one in await bus.recovery.pending(bus.recovery.jobs) if one.entry_id == bare]
            with contextlib.suppress(BadRecord):  # of one that has a record: the reclaimer says it, once
                await bus.recovery.reclaim(bus.recovery.jobs, held[0], Reclaim())
            is_there = await bus.client.command("XRANGE", bus.store.keys.jobs, bare, bare)
            assert bool(is_there) == ("r" in fields), "what has no record is removed once its lease is over, and said"
            assert len(left) == ("r" not in fields)
