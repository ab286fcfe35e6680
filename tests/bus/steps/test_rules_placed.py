"""Jobs that no message began: placed once by their id, behind all that waits; they neither interrupt, nor are interrupted, nor coalesce."""

import pytest

from bus.records.records import AFTER_ALL, BadRecord
from bus.steps.job_steps import Failed, Finished
from bus.steps.placing import MOST_PLACED, MOST_PLACED_BYTES, JobTooLarge, Pins, Placed
from bus.steps.policies import Policies
from bus.steps.store import Intake
from tests.bus.builders import CONVERSATION, PEER, job_of, placed_job, reply, text_of
from tests.bus.scenes import Scene, Worker
from tests.bus.talk import Talk, talk_and_worker


async def place(talk: Talk, *names: str) -> list[Placed]:
    return [await talk.supervisor.placing.place(placed_job(name)) for name in names]


async def run_all(worker: Worker) -> list[str]:
    """Runs what there is to run to its end; returns the texts, in their order."""
    texts = list[str]()
    while (job := await worker.take()) is not None:
        started = await worker.steps.start(job)
        texts += [job.message.text, *(one.text for one in started.together)]
        if started.outcome == "superseded":
            texts[-1] += " superseded"
        assert await worker.steps.finish(job) is Finished.DONE
    return texts


async def test_a_placed_job_says_what_it_is_and_runs_at_once_in_a_conversation_at_rest(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    assert await place(talk, "digest") == [Placed.PLACED]
    job = await worker.take()
    assert job is not None
    assert (job.kind, job.job_id, job.message.text) == ("reminder", "timer:digest:1", "digest")
    assert await worker.steps.finish(job, last=[("0", reply("it"))]) is Finished.DONE
    assert text_of((await talk.take_reply()).fields["r"]) == "0"


async def test_it_joins_behind_all_that_waits_and_before_all_that_comes_later(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2):
        await talk.accept(seq)
    await place(talk, "b", "a")
    await talk.accept(3)
    await place(talk, "c")
    await talk.accept(4)
    assert await run_all(worker) == ["message 1", "message 2", "b", "a", "message 3", "c", "message 4"]
    assert await talk.next_seq() == 5
    assert (await scene.facts()).busy == frozenset()
    assert await scene.leftovers() == []


async def test_it_waits_behind_what_is_parked_too(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(full="park", most_waiting=1))
    for seq in (1, 2, 3, 4):
        await talk.accept(seq)
    await place(talk, "digest")
    await talk.accept(5)
    assert await run_all(worker) == ["message 1", "message 2", "message 3", "message 4", "digest", "message 5"]
    assert await scene.leftovers() == []


@pytest.mark.parametrize("is_busy", [False, True])
async def test_it_is_placed_once_by_its_id_also_when_it_has_ended(scene: Scene, *, is_busy: bool) -> None:
    talk, worker = await talk_and_worker(scene)
    if is_busy:
        await talk.accept(1)
    assert await place(talk, "digest", "digest") == [Placed.PLACED, Placed.ALREADY]
    assert await run_all(worker) == ["message 1", "digest"][not is_busy :]
    assert await place(talk, "digest") == [Placed.ALREADY]
    assert await worker.take() is None


async def test_rule_9_a_placed_job_neither_interrupts_nor_is_interrupted(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await talk.accept(1)
    running = await worker.take()
    assert running is not None
    await place(talk, "digest")
    assert await worker.renew(running.entry_id) == ([], [])
    assert await worker.steps.finish(running) is Finished.DONE
    running = await worker.take()
    assert running is not None
    assert running.kind == "reminder"
    for seq in (2, 3):
        await talk.accept(seq)
    assert await worker.renew(running.entry_id) == ([], [])
    await worker.steps.hand_back(running, has_begun=True)
    assert await run_all(worker) == ["digest", "message 2 superseded", "message 3"]


async def test_rule_9_a_message_before_a_placed_job_is_not_interrupted_by_it_when_it_starts(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await talk.accept(1)
    running = await worker.take()
    assert running is not None
    await talk.accept(2)
    await place(talk, "digest")
    await worker.steps.finish(running, "superseded")
    assert await run_all(worker) == ["message 2", "digest"]


async def test_rule_9_a_placed_job_that_waits_for_its_second_run_is_not_superseded(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await place(talk, "digest")
    job = await worker.take()
    assert job is not None
    assert await worker.steps.fail(job, "broke", 0) is Failed.RETRY
    await talk.accept(1)
    assert await worker.take() is None
    await talk.start_due()
    assert await run_all(worker) == ["digest", "message 1"]


async def test_rule_9_a_placed_job_has_no_company_and_ends_that_of_the_messages_before_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="coalesce"))
    for seq in (1, 2):
        await talk.accept(seq)
    await place(talk, "digest")
    for seq in (3, 4):
        await talk.accept(seq)
    runs = list[list[str]]()
    while (job := await worker.take()) is not None:
        started = await worker.steps.start(job)
        runs.append([job.message.text, *(one.text for one in started.together)])
        await worker.steps.finish(job)
    assert runs == [["message 1", "message 2"], ["digest"], ["message 3", "message 4"]]
    facts = await scene.facts()
    assert (facts.waiting, facts.counted) == (0, {})


async def test_it_counts_against_no_mailbox_and_has_a_bound_of_its_own(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(most_waiting=1))
    await talk.accept(1)
    names = [f"{number:03}" for number in range(MOST_PLACED)]
    assert set(await place(talk, *names)) == {Placed.PLACED}
    before = await scene.facts()
    assert await place(talk, "one more") == [Placed.FULL]
    assert await scene.facts() == before
    assert await talk.accept(2) is Intake.ACCEPTED, "the mailbox has room for its one message"
    assert await talk.accept(3) is Intake.FULL
    assert await run_all(worker) == ["message 1", *names, "message 2"]
    assert await place(talk, "one more") == [Placed.PLACED]


async def test_placed_jobs_take_a_share_of_the_bytes_that_wait_and_nobody_pays_for_them(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    placing = talk.supervisor.placing
    placing.budgets = talk.supervisor.store.budgets.of(64_000)
    await talk.accept(1)
    some = 0
    while await placing.place(placed_job(f"{some}", characters=5000)) is Placed.PLACED:
        some += 1
    facts = await scene.facts()
    assert 0 < some < MOST_PLACED
    assert facts.counted == facts.waits
    assert f"s:{PEER[0]}" not in facts.counted
    assert len(await run_all(worker)) == some + 1
    assert (await scene.facts()).counted == {}


async def test_what_is_too_large_or_a_message_is_not_placed(scene: Scene) -> None:
    talk, _ = await talk_and_worker(scene)
    before = await scene.facts()
    with pytest.raises(JobTooLarge, match=str(MOST_PLACED_BYTES)):
        await talk.supervisor.placing.place(placed_job("large", characters=MOST_PLACED_BYTES))
    with pytest.raises(BadRecord, match="is not placed"):
        await talk.supervisor.placing.place(job_of(1))
    assert await scene.facts() == before


async def test_rule_8_a_placed_job_that_fails_for_good_is_a_dead_letter_and_comes_back_as_what_it_was(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await place(talk, "digest")
    job = await worker.take()
    assert job is not None
    await worker.steps.start(job)
    await worker.steps.emit(job, "0", reply("once"))
    assert await worker.steps.fail(job, "broke", None, reply("sorry")) is Failed.DEAD
    [letter] = await talk.supervisor.dead.first()
    assert (letter.job_id, letter.reason) == ("timer:digest:1", "broke")
    await talk.accept(1)
    first = await worker.take()
    assert first is not None
    assert await talk.supervisor.dead.retry(letter) == "revived"
    assert await worker.renew(first.entry_id) == ([], []), "it interrupts nothing"
    assert first.message.text == "message 1"
    await worker.steps.finish(first)
    again = await worker.take()
    assert again is not None
    assert (again.kind, again.has_past) == ("reminder", True)
    await talk.accept(2)
    assert await worker.renew(again.entry_id) == ([], []), "no message interrupts it"
    assert (await worker.steps.start(again)).places == {"0"}
    await worker.steps.finish(again, last=[("0", reply("again")), ("1", reply("more"))])
    assert [text_of((await talk.take_reply()).fields["r"])] == ["0"]
    assert await run_all(worker) == ["message 2"]


async def test_whom_a_reply_to_it_goes_to_is_what_the_conversation_has_pinned(scene: Scene) -> None:
    talk, _ = await talk_and_worker(scene)
    assert await talk.supervisor.placing.pins(CONVERSATION) is None
    await talk.accept(1)
    assert await talk.supervisor.placing.pins(CONVERSATION) == Pins("h2a", PEER[0])


def test_no_message_has_a_seq_as_high_as_that_of_a_placed_job() -> None:
    assert float(AFTER_ALL) == AFTER_ALL
    assert AFTER_ALL > 2**50
