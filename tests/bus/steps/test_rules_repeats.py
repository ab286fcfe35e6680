"""DESIGN §3, rule 10: what a job has sent is known to whoever runs it again (test_rules.py says where the others are)."""

from bus.steps.job_steps import Emitted, Failed, Finished
from bus.steps.letters import DeadLetter
from bus.steps.recovery import Reclaim
from tests.bus.builders import reply
from tests.bus.scenes import Scene, Worker
from tests.bus.talk import Talk, talk_and_worker


async def dead_after_one_reply(talk: Talk, worker: Worker) -> DeadLetter:
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await worker.steps.emit(job, "0", reply("once"))
    await worker.steps.fail(job, "broke", None)
    [letter] = await talk.supervisor.dead.first()
    return letter


async def test_rule_10_who_gets_a_job_that_was_handed_back_in_its_middle_hears_what_it_had_sent(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    assert job.is_first_run
    await worker.steps.emit(job, "0", reply("once"))
    await worker.steps.hand_back(job, has_begun=True)
    again = await worker.take()
    assert again is not None
    assert not again.is_first_run
    assert (await worker.steps.start(again)).places == {"0"}
    assert await worker.steps.emit(again, "0", reply("twice")) is Emitted.ALREADY


async def test_rule_10_a_dead_letter_that_comes_back_says_so_also_after_it_was_handed_back(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    letter = await dead_after_one_reply(talk, worker)
    await talk.supervisor.dead.retry(letter)
    revived = await worker.take()
    assert revived is not None
    await worker.steps.hand_back(revived)
    again = await worker.take()
    assert again is not None
    assert not again.is_first_run
    assert (await worker.steps.start(again)).places == {"0"}


async def test_rule_10_a_second_run_adds_nothing_to_an_emitted_place(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    assert await worker.steps.emit(job, "0", reply("once")) is Emitted.QUEUED
    assert await worker.steps.fail(job, "broke", retry_after_ms=1000) is Failed.RETRY
    assert await talk.start_due() == 0
    await scene.time_passes(1000)
    assert await talk.start_due() == 1
    again = await worker.take()
    assert again is not None
    assert again.attempt == 2
    assert (await worker.steps.start(again)).places == {"0"}
    assert await worker.steps.emit(again, "0", reply("twice")) is Emitted.ALREADY
    assert await worker.steps.emit(again, "1", reply("more")) is Emitted.QUEUED
    await worker.steps.finish(again)
    assert [await talk.send("c0", 2), await talk.send("c1", 3)] == ["0", "1"]
    assert await talk.supervisor.take_reply() is None
    assert await scene.leftovers() == []


async def test_rule_10_what_is_said_last_goes_out_with_the_jobs_end_each_place_once(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await worker.steps.emit(job, "0", reply("first"))
    await talk.reclaim(Reclaim())
    again = await worker.take()
    assert again is not None
    said = [(place, reply(place)) for place in ("0", "1", "2")]
    assert await worker.steps.finish(job, last=said) is Finished.FENCED
    assert await worker.steps.finish(again, last=said) is Finished.DONE
    assert [await talk.send(f"c{number}", 2 + number) for number in range(3)] == ["0", "1", "2"]
    assert await talk.supervisor.take_reply() is None
    assert await scene.leftovers() == []


async def test_rule_10_a_dead_letter_that_comes_back_says_so_and_its_end_repeats_nothing(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2):
        await talk.accept(seq)
    job = await worker.take()
    assert job is not None
    assert not job.has_past
    await worker.steps.emit(job, "0", reply("once"))
    await worker.steps.fail(job, "broke", None)
    [letter] = await talk.supervisor.dead.first()
    await talk.supervisor.dead.retry(letter)
    for _ in range(2):
        again = await worker.take()
        assert again is not None
        await worker.steps.finish(
            again, last=[("0", reply("twice"))] if again.has_past and again.job_id == job.job_id else ()
        )
    await talk.send("c0", 3)
    assert await talk.supervisor.take_reply() is None
    assert await scene.leftovers() == []


async def test_rule_10_what_a_dead_letter_had_sent_stays_sent_however_often_it_is_given_up(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    letter = await dead_after_one_reply(talk, worker)
    assert letter.places == "0"
    await talk.supervisor.dead.retry(letter)
    assert await worker.take() is not None
    await talk.reclaim(Reclaim(ends_as="timeout"))  # it was never begun
    [letter] = await talk.supervisor.dead.first()
    await talk.supervisor.dead.retry(letter)
    again = await worker.take()
    assert again is not None
    assert (await worker.steps.start(again)).places == {"0"}
    await worker.steps.finish(again)
    await talk.send("c0", 2)
    assert await scene.leftovers() == []
