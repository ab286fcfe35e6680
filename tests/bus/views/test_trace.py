"""The ledger as it is read: what a job's end tells in one line is several events."""

from pathlib import Path

from bus.records.records import Reply
from bus.steps.jobs import Finished
from bus.views.trace import Ledger
from tests.bus.builders import open_bus, open_worker
from tests.redis_server import redis_server


async def test_a_job_that_says_two_things_as_it_ends_is_told_of_step_by_step(tmp_path: Path) -> None:
    reply = Reply(kind="message", content_type="text", payload={"type": "text", "text": "hello"})
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            assert await worker.finish(job, last=[("0", reply), ("key", reply)], began_ms=5) is Finished.DONE
            events = await Ledger(bus.client, bus.keys).trace(job.job_id)
            assert [event.name for event in events] == ["queued", "replied", "replied", "done"]
            _, first, second, done = events
            assert (first.facts, second.facts) == ({"place": "0"}, {"place": "key"})
            assert done.facts == {"worker": "worker-1", "attempt": "1", "delivery": "1", "started_ms": "5"}
            assert first.at_ms == second.at_ms == done.at_ms


async def test_what_was_said_before_the_end_is_not_told_twice(tmp_path: Path) -> None:
    reply = Reply(kind="message", content_type="text", payload={"type": "text", "text": "hello"})
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            await worker.start(job)
            await worker.emit(job, "0", reply)
            assert await worker.finish(job, last=[("0", reply)]) is Finished.DONE
            events = await Ledger(bus.client, bus.keys).trace(job.job_id)
            assert [event.name for event in events] == ["queued", "started", "replied", "done"]
            assert events[-1].facts == {"worker": "worker-1", "attempt": "1", "delivery": "1"}
