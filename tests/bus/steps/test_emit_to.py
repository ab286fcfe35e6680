"""A job says something in another conversation: once, and only where somebody has written before."""

import msgspec

from bus.records.cards import CardKept, CardMove
from bus.records.records import Job
from bus.steps.job_steps import Emitted, Finished
from tests.bus.builders import reply
from tests.bus.scenes import Scene, Worker
from tests.bus.steps.test_rules_bounds import BUDGETS
from tests.bus.talk import Talk, talk_and_worker

OTHER = "other"


async def with_job(scene: Scene) -> tuple[Talk, Worker, Job]:
    """Somebody has written in the other conversation, and a job of the first one runs."""
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1, conversation=OTHER)
    earlier = await worker.take()
    assert earlier is not None
    await worker.steps.finish(earlier)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    return talk, worker, job


async def test_what_is_said_elsewhere_goes_out_there_once_whoever_runs_the_job(scene: Scene) -> None:
    talk, worker, job = await with_job(scene)
    assert await worker.steps.emit_to(job, OTHER, "0", reply("there")) is Emitted.QUEUED
    assert await worker.steps.emit_to(job, OTHER, "0", reply("again")) is Emitted.ALREADY
    assert await worker.steps.emit(job, "0", reply("a place is of the job")) is Emitted.ALREADY
    assert (await scene.facts()).busy == {OTHER, job.conversation_id}
    await worker.steps.hand_back(job, has_begun=True)
    again = await worker.take()
    assert again is not None
    assert (await worker.steps.start(again)).places == {"0"}
    assert await worker.steps.emit_to(again, OTHER, "0", reply("again")) is Emitted.ALREADY
    assert await worker.steps.emit_to(again, OTHER, "1", reply("more")) is Emitted.QUEUED
    assert await worker.steps.finish(again) is Finished.DONE
    for number in range(2):
        await talk.send(f"c{number}", 2 + number)
    assert await talk.supervisor.take_reply() is None
    assert await scene.leftovers() == []


async def test_a_conversation_in_which_nobody_has_written_is_unknown(scene: Scene) -> None:
    _, worker, job = await with_job(scene)
    before = await scene.facts()
    assert await worker.steps.emit_to(job, "nowhere", "0", reply("lost")) is Emitted.UNKNOWN
    assert await scene.facts() == before
    assert await worker.steps.emit_to(job, OTHER, "0", reply("found")) is Emitted.QUEUED


async def test_who_lost_the_job_says_nothing_elsewhere(scene: Scene) -> None:
    talk, worker, job = await with_job(scene)
    await talk.reclaim()
    before = await scene.facts()
    assert await worker.steps.emit_to(job, OTHER, "0", reply("late")) is Emitted.FENCED
    assert await scene.facts() == before


async def test_it_waits_for_room_there(scene: Scene) -> None:
    talk, worker, job = await with_job(scene)
    talk.supervisor.store.budgets = msgspec.structs.replace(BUDGETS, out_bytes=20_000)
    await talk.supervisor.store.publish_bounds()
    said = 0
    while await worker.steps.emit_to(job, OTHER, str(said), reply("x" * 1000)) is Emitted.QUEUED:
        said += 1
        assert said < 20
    assert await worker.steps.emit(job, "here", reply("x" * 1000)) is Emitted.QUEUED, "here is room"


async def test_a_card_that_is_shown_elsewhere_is_known_there_and_its_id_is_of_its_place(scene: Scene) -> None:
    talk, worker, job = await with_job(scene)
    card_id = worker.steps.card_id(job, "0")
    move = CardMove(card_id, "app board")
    for expected in (Emitted.QUEUED, Emitted.ALREADY):
        assert await worker.steps.emit_to(job, OTHER, "0", reply("a card"), move) is expected
    assert await worker.steps.card(job, card_id) is None, "it is no card of the job's own conversation"
    await worker.steps.hand_back(job, has_begun=True)
    again = await worker.take()
    assert again is not None
    assert (await worker.steps.start(again)).cards == {"0": card_id}
    await worker.steps.finish(again)
    await talk.send("c0", 2)
    await talk.accept(3, conversation=OTHER)
    there = await worker.take()
    assert there is not None
    assert await worker.steps.card(there, card_id) == CardKept(0, job.job_id, "0", "app board")
