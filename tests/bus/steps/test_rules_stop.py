"""What a person's /stop does to the job under way that is for them: whoever runs it is told, whoever has it next asks before it begins."""

import pytest

from bus.records.cards import CardMove
from bus.records.records import STOP_ALL, Job
from bus.steps.job_steps import Failed, Finished
from bus.steps.policies import Policies
from bus.steps.store import Intake
from tests.bus.builders import CARD_ANSWERED, PEER, placed_job, reply
from tests.bus.scenes import Scene, Worker
from tests.bus.talk import Talk, talk_and_worker

STOPS = Policies(stop=True)
WAYS = ("fails", "is handed back", "loses its worker", "was not taken yet", "waits for its next run")


async def taken(worker: Worker) -> Job:
    job = await worker.take()
    assert job is not None
    return job


async def stop(talk: Talk, seq: int, sender: str = PEER[0]) -> Intake:
    return await talk.accept(seq, payload={"type": "text", "text": "/stop"}, stops=STOP_ALL, sender=sender)


async def test_whoever_runs_the_job_is_told_and_no_handler_gets_the_word(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, STOPS)
    await talk.accept(1)
    job = await taken(worker)
    assert await worker.renew(job.entry_id) == ([], [])
    assert await stop(talk, 2) is Intake.ACCEPTED
    assert await worker.renew(job.entry_id) == ([], [job.entry_id])
    assert await worker.steps.stopped(job) == STOP_ALL
    await talk.accept(3)
    assert await worker.steps.finish(job, "stopped", last=[("stopped", reply("stopped"))]) is Finished.DONE
    after = await taken(worker)
    assert after.message.text == "message 3"
    assert await worker.steps.stopped(after) == ""
    assert (await worker.steps.start(after)).outcome == "started"


@pytest.mark.parametrize("way", WAYS)
async def test_who_has_it_next_asks_before_it_begins_and_knows_what_was_said(scene: Scene, way: str) -> None:
    talk, worker = await talk_and_worker(scene, STOPS)
    await talk.accept(1)
    if way == "was not taken yet":
        await stop(talk, 2)
    else:
        job = await taken(worker)
        await worker.steps.start(job)
        await worker.steps.emit(job, "0", reply("0"))
        if way == "waits for its next run":
            assert await worker.steps.fail(job, "busy", 300_000, takes="nothing") is Failed.RETRY
        await stop(talk, 2)
        if way == "fails":
            assert await worker.steps.fail(job, "handler", 300_000) is Failed.RETRY
        if way == "is handed back":
            await worker.steps.hand_back(job, has_begun=True)
        if way == "loses its worker":
            await talk.reclaim()
    await talk.start_due()
    again = await taken(worker)
    assert not again.is_first_run, "who takes it for the first time begins without a question"
    started = await worker.steps.start(again)
    assert (started.outcome, started.places) == ("stopped", frozenset() if way == "was not taken yet" else {"0"})
    assert await worker.steps.finish(again, "stopped") is Finished.DONE
    assert await worker.take() is None


async def test_what_is_not_theirs_goes_on_and_the_word_is_a_message_like_others(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, STOPS)
    await stop(talk, 1)
    job = await taken(worker)
    assert job.message.text == "/stop", "nothing ran: a handler says so"
    await stop(talk, 2, sender="ben")
    assert await worker.renew(job.entry_id) == ([], [])
    await worker.steps.finish(job)
    assert (await taken(worker)).message.text == "/stop"


async def test_an_agent_without_the_command_gets_the_word(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies())
    await talk.accept(1)
    job = await taken(worker)
    await stop(talk, 2)
    assert await worker.renew(job.entry_id) == ([], [])
    await worker.steps.finish(job)
    assert (await taken(worker)).message.text == "/stop"


async def test_what_no_message_began_is_stopped_where_two_talk(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, STOPS)
    await talk.accept(1)
    await worker.steps.finish(await taken(worker))
    await talk.supervisor.placing.place(placed_job("timer"))
    job = await taken(worker)
    await stop(talk, 2)
    assert await worker.renew(job.entry_id) == ([], [job.entry_id])


@pytest.mark.parametrize(("kind", "is_told"), [("h2a", True), ("group", False)])
@pytest.mark.parametrize("by", ["the word", "the button"])
async def test_a_card_of_what_no_message_began_is_stopped_by_who_talks_there_alone(
    scene: Scene, kind: str, is_told: bool, by: str
) -> None:
    """In a group it is nobody's more than another's."""
    talk, worker = await talk_and_worker(scene, STOPS)
    await talk.accept(1, kind=kind)
    await worker.steps.finish(await taken(worker))
    await talk.supervisor.placing.place(placed_job("timer"))
    job = await taken(worker)
    await worker.steps.emit_card(job, "0", reply("0"), CardMove("card", "progress"))
    if by == "the word":
        await talk.accept(2, kind=kind, payload={"type": "text", "text": "/stop"}, stops=STOP_ALL)
    else:
        await talk.accept(2, kind=kind, payload=CARD_ANSWERED, stops="card")
    told = STOP_ALL if by == "the word" else "card"
    assert await worker.steps.stopped(job) == (told if is_told else "")


async def test_a_card_s_stop_does_not_take_the_place_of_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, STOPS)
    await talk.accept(1)
    job = await taken(worker)
    await worker.steps.emit_card(job, "0", reply("0"), CardMove("card", "progress"))
    await stop(talk, 2)
    await talk.accept(3, payload=CARD_ANSWERED, stops="card")
    assert await worker.steps.stopped(job) == STOP_ALL


async def test_a_later_message_does_not_make_it_superseded(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt", stop=True))
    await talk.accept(1)
    job = await taken(worker)
    await stop(talk, 2)
    await talk.accept(3)
    assert await worker.steps.stopped(job) == STOP_ALL
    await worker.steps.hand_back(job, has_begun=True)
    again = await taken(worker)
    assert (await worker.steps.start(again)).outcome == "stopped"
