"""Cards and their updates: each goes out once, and their revisions count without a gap, whoever runs the job (issue: a card's id, rule 17)."""

import msgspec
import pytest

from bus.memory.work import CARDS_KEPT, CARDS_TRIM_AT
from bus.records.cards import MOST_UPDATES, CardKept, CardMove, decode_card
from bus.records.records import BadRecord, Job
from bus.steps.job_steps import Carded, CardEmitted, Finished
from bus.steps.store import Intake
from tests.bus.builders import BUS_KEY, CARD_ANSWERED, CONVERSATION, PEER, reply
from tests.bus.scenes import Scene, Worker
from tests.bus.steps.test_rules_bounds import BUDGETS
from tests.bus.talk import Talk, talk_and_worker


async def with_job(scene: Scene, seq: int = 1) -> tuple[Talk, Worker, Job]:
    talk, worker = await talk_and_worker(scene)
    return talk, worker, await next_job(talk, worker, seq)


async def next_job(talk: Talk, worker: Worker, seq: int, conversation: str = "conversation") -> Job:
    await talk.accept(seq, conversation=conversation)
    job = await worker.take()
    assert job is not None
    return job


async def show(worker: Worker, job: Job, place: str, card_id: str, kind: str = "info") -> Carded:
    return (await worker.steps.emit_card(job, place, reply("card"), CardMove(card_id, kind))).outcome


async def update(worker: Worker, job: Job, place: str, card_id: str, based_on: int) -> CardEmitted:
    return await worker.steps.emit_card(job, place, reply("update"), CardMove(card_id, based_on=based_on))


async def test_revisions_count_from_0_over_jobs_and_an_update_is_based_on_the_one_before_it(scene: Scene) -> None:
    talk, worker, job = await with_job(scene)
    assert await show(worker, job, "0", "card", "app vote_card") is Carded.QUEUED
    assert (await update(worker, job, "1", "card", 0)).outcome is Carded.QUEUED
    assert await worker.steps.finish(job) is Finished.DONE
    for number in range(2):
        await talk.send(f"c{number}", 2 + number)
    later = await next_job(talk, worker, 4)
    assert await update(worker, later, "0", "card", 0) == CardEmitted(Carded.MOVED, 1)
    assert (await update(worker, later, "0", "card", 1)).outcome is Carded.QUEUED
    assert await worker.steps.card(later, "card") == CardKept(2, job.job_id, "0", "app vote_card")


async def test_a_card_is_known_in_its_own_conversation_only(scene: Scene) -> None:
    talk, worker, job = await with_job(scene)
    await show(worker, job, "0", "card")
    other = await next_job(talk, worker, 1, "other")
    assert (await update(worker, other, "0", "card", 0)).outcome is Carded.UNKNOWN
    assert await worker.steps.card(other, "card") is None
    assert (await update(worker, job, "1", "never shown", 0)).outcome is Carded.UNKNOWN


async def test_a_second_run_sends_no_place_twice_moves_no_revision_twice_and_hears_which_cards_there_are(
    scene: Scene,
) -> None:
    _, worker, job = await with_job(scene)
    await show(worker, job, "0", "card")
    await worker.steps.emit(job, "1", reply("text"))
    await update(worker, job, "2", "card", 0)
    assert await show(worker, job, "0", "card") is Carded.ALREADY, "its answer may have been lost"
    assert (await update(worker, job, "2", "card", 0)).outcome is Carded.ALREADY
    await worker.steps.hand_back(job, has_begun=True)
    again = await worker.take()
    assert again is not None
    started = await worker.steps.start(again)
    assert started.places == {"0", "1", "2"}
    assert started.cards == {"0": "card", "2": "card"}
    assert await show(worker, again, "0", "card") is Carded.ALREADY
    assert (await update(worker, again, "2", "card", 1)).outcome is Carded.ALREADY
    kept = await worker.steps.card(again, "card")
    assert kept is not None
    assert kept.revision == 1
    assert (await update(worker, again, "3", "card", 1)).outcome is Carded.QUEUED


async def test_who_lost_the_job_shows_nothing(scene: Scene) -> None:
    talk, worker, job = await with_job(scene)
    await talk.reclaim()
    assert await show(worker, job, "0", "card") is Carded.FENCED
    assert await worker.steps.card(job, "card") is None


async def test_a_card_has_a_hundred_updates(scene: Scene) -> None:
    _, worker, job = await with_job(scene)
    await show(worker, job, "card", "card")
    for revision in range(MOST_UPDATES):
        assert (await update(worker, job, f"{revision}", "card", revision)).outcome is Carded.QUEUED
    assert (await update(worker, job, "one more", "card", MOST_UPDATES)).outcome is Carded.SPENT


async def test_the_newest_thousand_cards_of_a_conversation_may_be_updated(scene: Scene) -> None:
    _, worker, job = await with_job(scene)
    for number in range(CARDS_TRIM_AT):
        await show(worker, job, f"{number}", f"card-{number:04}")
    gone = CARDS_TRIM_AT - CARDS_KEPT
    assert [number for number in range(gone) if await worker.steps.card(job, f"card-{number:04}")] == []
    assert await worker.steps.card(job, f"card-{gone:04}") is not None


async def test_a_card_waits_for_room_like_a_reply(scene: Scene) -> None:
    talk, worker, job = await with_job(scene)
    talk.supervisor.store.budgets = msgspec.structs.replace(BUDGETS, out_bytes=20_000)
    await talk.supervisor.store.publish_bounds()
    shown = 0
    while (
        outcome := await worker.steps.emit_card(job, str(shown), reply("x" * 1000), CardMove(f"card-{shown}", "info"))
    ).outcome is Carded.QUEUED:
        shown += 1
        assert shown < 20
    assert outcome.outcome is Carded.FULL
    assert await worker.steps.card(job, f"card-{shown}") is None


async def test_a_conversation_that_is_forgotten_has_no_cards_any_more(scene: Scene) -> None:
    talk, worker, job = await with_job(scene)
    await show(worker, job, "0", "card")
    await worker.steps.settle(job, "done", [worker.steps.forget_effect(job)])
    await talk.send("c0", 2)
    later = await next_job(talk, worker, 3)
    assert await worker.steps.card(later, "card") is None
    assert (await update(worker, later, "0", "card", 0)).outcome is Carded.UNKNOWN


async def test_rule_8_of_threads_a_stop_is_for_whom_the_job_is_and_names_a_card_of_it_until_it_ends(
    scene: Scene,
) -> None:
    talk, worker, job = await with_job(scene)
    await show(worker, job, "0", "card", "progress")

    async def presses(seq: int, card: str = "card", sender: str = PEER[0], where: str = CONVERSATION) -> Intake:
        return await talk.accept(seq, payload=CARD_ANSWERED, stops=card, sender=sender, conversation=where)

    assert await presses(2, "another card") is Intake.ACCEPTED
    assert await presses(3, sender="somebody else") is Intake.ACCEPTED
    assert await presses(1, where="another conversation") is Intake.ACCEPTED
    assert await presses(9) is Intake.GAP
    assert await talk.accept(4, payload=CARD_ANSWERED, stops="card", version=0) is Intake.CONFLICT
    assert await worker.steps.stopped(job) == ""
    assert await presses(4) is Intake.ACCEPTED
    assert await presses(4) is Intake.DUPLICATE
    assert await worker.steps.stopped(job) == "card"
    await worker.steps.fail(job, "broke", 0)
    assert await presses(5) is Intake.ACCEPTED, "it waits for its next run"
    await talk.supervisor.recovery.start_due(await talk.supervisor.store.now_ms())
    elsewhere, again = [await worker.take(), await worker.take()]
    assert elsewhere is not None
    assert again is not None
    assert await worker.steps.stopped(again) == "card", "whoever runs it"
    await worker.steps.finish(again)
    late = list[str]()
    assert await presses(6) is Intake.ACCEPTED, "the job that it was for has ended"
    while (answer := await worker.take()) is not None:
        assert await worker.steps.stopped(answer) == ""
        late.append(answer.job_id.split("-")[1])
        await worker.steps.finish(answer)
    assert late == ["2", "3", "6"], "what has stopped the job is given to no handler"


@pytest.mark.pure
@pytest.mark.parametrize("packed", [b"", b"1", b"x\x1fjob\x1f0\x1finfo", b"1\x1fjob\x1f0"])
def test_what_is_kept_of_a_card_and_is_no_record_of_one_is_refused(packed: bytes) -> None:
    with pytest.raises(BadRecord):
        decode_card(packed)


@pytest.mark.pure
def test_a_cards_id_is_that_of_its_job_and_place_and_tells_neither() -> None:
    ids = {BUS_KEY.card_id(5, job, place) for job, place in (("job", "0"), ("job", "1"), ("job2", "0"), ("job", "0"))}
    assert len(ids) == 3
    assert all(len(one) == 26 and one.startswith("0000000005") for one in ids)
