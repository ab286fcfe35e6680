"""A worker that is told to go: what runs is finished, what has not begun is handed back, and nothing falls between the two."""

from functools import partial

import pytest
import trio
import trio.testing

from bus.records.records import Job
from tests.waiting import waiting_for
from tests.workers.builders import agent_that, running
from tests.workers.doubles import MemoryBus, job_of
from workers.process.runner import Runner
from workers.process.vitals import Vitals


class TellingBus(MemoryBus):
    """Says when it has given something out."""

    def on_taken(self) -> None:
        """For a test to set."""

    async def take(self, count: int) -> list[Job]:
        jobs = await super().take(count)
        self.on_taken()
        return jobs


@pytest.mark.parametrize("turns", range(8))
async def test_a_job_that_comes_as_the_drain_begins_ends_or_is_handed_back(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drain_after(turns: int, runner: Runner) -> None:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        runner.drain()

    for _ in range(20):  # trio shuffles whose turn it is
        bus = TellingBus()
        async with trio.open_nursery() as nursery, running(agent_that(), bus) as runner:
            monkeypatch.setattr(bus, "on_taken", partial(nursery.start_soon, drain_after, turns, runner))
            bus.give(job_of())
            with waiting_for("the job to be finished or handed back", 10):
                await bus.until(lambda bus=bus: bus.finished or bus.handed_back)  # type: ignore[misc]  # binds the loop's value
        assert [*bus.finished, *bus.handed_back] == ["message-1"]


async def test_a_job_whose_slot_falls_free_as_the_drain_begins_is_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = MemoryBus()
    take_one = bus.take

    async def take_two(count: int) -> list[Job]:  # more than asked for, as when what is pending is read again
        return [*await take_one(count), *await take_one(count)]

    monkeypatch.setattr(bus, "take", take_two)
    async with running(agent_that(), bus, concurrency=1) as runner:
        monkeypatch.setattr(Vitals, "ended", lambda _self, _job: runner.drain())
        bus.give(job_of(number=1), job_of(number=2))
        with waiting_for("a job to be handed back", 10):
            await bus.until(lambda: bus.handed_back)
    assert len(bus.finished) == 1
    assert {*bus.finished, *bus.handed_back} == {"message-1", "message-2"}
    assert bus.handed_back_begun == []


async def test_a_drain_finishes_what_runs_and_takes_nothing_more(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    async with running(agent_that(seconds=10), bus) as runner:
        bus.give(job_of(number=1))
        await bus.until(lambda: bus.held)
        await trio.sleep(1)
        runner.drain()
        bus.give(job_of(number=2))
    assert bus.finished == ["message-1"]
    assert bus.handed_back == []


async def test_a_stop_hands_back_what_runs(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    async with running(agent_that(seconds=10), bus) as runner:
        bus.give(job_of())
        await bus.until(lambda: bus.held)
        await trio.sleep(1)
        runner.stop()
    assert bus.handed_back == bus.handed_back_begun == ["message-1"]
    assert not (bus.finished)
    assert not (bus.failed)
    assert not (bus.replies)
    assert bus.held == set()
