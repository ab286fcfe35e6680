"""DESIGN §3, rules 6 to 9: a job is run by one worker at a time, to its one end (test_rules.py says where the others are)."""

import pytest

from bus.records.records import MOST_DELIVERIES, SUSPECTED, Job
from bus.steps.job_steps import APOLOGY_PLACE, Emitted, Failed, Finished, Taken
from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim
from bus.steps.store import Intake, Source
from tests.bus.builders import CONVERSATION, reply, text_of
from tests.bus.scenes import Scene, Worker
from tests.bus.talk import Talk, answer, taken, talk_and_worker

LEASE_MS = 15_000
STRIKE = Reclaim(is_strike=True)
ONE_OF_MANY = Reclaim(is_strike=True, ran_many=True)


async def test_rule_6_a_fenced_worker_changes_nothing(scene: Scene) -> None:
    talk, old = await talk_and_worker(scene)
    new = await scene.worker("new")
    await talk.accept(1)
    lost = await old.take()
    assert lost is not None
    assert [one.outcome for one in await talk.reclaim()] == ["restarted"]
    before = await scene.facts()
    assert (await old.steps.start(lost)).outcome == "fenced"
    assert await old.steps.emit(lost, "0", reply("late")) is Emitted.FENCED
    assert await old.steps.finish(lost) is Finished.FENCED
    assert await old.steps.fail(lost, "late", 0) is Failed.FENCED
    await old.steps.hand_back(lost)
    assert await scene.facts() == before
    job = await new.take()
    assert job is not None
    assert (job.job_id, job.attempt, job.deliveries) == (lost.job_id, 1, 2)
    assert await new.steps.emit(job, "0", reply("in time")) is Emitted.QUEUED


async def test_rule_6_an_entry_that_another_holds_is_ended_by_nobody_else(scene: Scene) -> None:
    talk, other = await talk_and_worker(scene)
    holder = await scene.worker("new")
    await talk.accept(1)
    job = await holder.take()
    assert job is not None
    before = await scene.facts()
    assert (await other.steps.start(job)).outcome == "fenced"
    assert await other.steps.emit(job, "0", reply("of another")) is Emitted.FENCED
    assert await other.steps.finish(job) is Finished.FENCED
    assert await other.steps.fail(job, "of another", 0) is Failed.FENCED
    await other.steps.hand_back(job, has_begun=True)
    assert await scene.facts() == before
    assert await holder.steps.finish(job) is Finished.DONE


async def test_rule_6_a_stopped_worker_that_wakes_does_not_take_its_job_back(scene: Scene) -> None:
    talk, old = await talk_and_worker(scene)
    new = await scene.worker("new")
    await talk.accept(1)
    lost = await old.take()
    await talk.reclaim()
    job = await new.take()
    assert lost is not None
    assert job is not None
    assert await old.renew(lost.entry_id, job.entry_id) == ([lost.entry_id, job.entry_id], [])
    assert await new.steps.finish(job) is Finished.DONE


async def test_rule_6_what_is_handed_back_is_a_new_entry_and_the_same_attempt(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    first = await worker.take()
    assert first is not None
    await worker.steps.hand_back(first)
    again = await worker.take()
    assert again is not None
    assert again.entry_id != first.entry_id
    assert (again.job_id, again.attempt, again.deliveries) == (first.job_id, 1, 1)


async def test_rule_8_a_job_that_is_handed_back_in_its_middle_is_a_delivery_and_the_last_is_a_dead_letter(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    for delivery in range(1, MOST_DELIVERIES + 1):
        job = await worker.take()
        assert job is not None
        assert (job.attempt, job.deliveries) == (1, delivery)
        is_dead = await worker.steps.hand_back(job, has_begun=True, apology=reply("sorry"))
        assert is_dead is (delivery == MOST_DELIVERIES)
    assert await worker.take() is None
    assert text_of((await talk.take_reply()).fields["r"]) == APOLOGY_PLACE
    [letter] = await talk.supervisor.dead.first()
    assert letter.reason == "deliveries"


async def test_rule_8_a_dead_letter_that_is_given_up_again_tells_its_sender_nothing_more(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    for _ in range(2):
        job = await worker.take()
        assert job is not None
        assert (await worker.steps.start(job)).places == frozenset()
        assert await worker.steps.fail(job, "broke", None, reply("sorry")) is Failed.DEAD
        [letter] = await talk.supervisor.dead.first()
        assert await talk.supervisor.dead.retry(letter) == "revived"
    entry = await talk.take_reply()
    assert text_of(entry.fields["r"]) == APOLOGY_PLACE
    assert await talk.supervisor.outbox.drop_reply(CONVERSATION, "seen", entry_id=entry.id)
    assert await talk.supervisor.take_reply() is None


async def test_rule_7_a_renewed_lease_is_kept_and_a_silent_one_is_reclaimed(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await scene.time_passes(LEASE_MS - 5000)
    assert await worker.renew(job.entry_id) == ([], [])
    await scene.time_passes(LEASE_MS - 5000)
    assert await talk.reclaim(Reclaim(idle_ms=LEASE_MS)) == []
    await scene.time_passes(5000)
    assert [one.outcome for one in await talk.reclaim(Reclaim(idle_ms=LEASE_MS))] == ["restarted"]


async def test_rule_7_what_was_renewed_since_it_was_seen_to_be_silent_is_kept(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    lease = talk.supervisor.recovery
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await scene.time_passes(LEASE_MS)
    [silent] = await lease.pending(lease.jobs, idle_ms=LEASE_MS)
    await worker.renew(job.entry_id)
    assert (await lease.reclaim(lease.jobs, silent, Reclaim(idle_ms=LEASE_MS))).outcome == "kept"


async def test_rule_7_one_reclaimer_at_a_time(scene: Scene) -> None:
    first, second = await scene.supervisor("supervisor-1"), await scene.supervisor("supervisor-2")
    assert await first.recovery.lease.hold(LEASE_MS)
    assert not await second.recovery.lease.hold(LEASE_MS)
    await scene.time_passes(LEASE_MS - 5000)
    assert await first.recovery.lease.hold(LEASE_MS)
    await scene.time_passes(LEASE_MS - 5000)
    assert not await second.recovery.lease.hold(LEASE_MS)
    await scene.time_passes(5000)
    assert await second.recovery.lease.hold(LEASE_MS)
    await first.recovery.lease.leave()
    assert not await first.recovery.lease.hold(LEASE_MS), "it was the other's to leave"
    await second.recovery.lease.leave()
    assert await first.recovery.lease.hold(LEASE_MS)


async def test_rule_8_what_kills_its_worker_twice_is_poison(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    for strikes, outcome, reason in ((0, "restarted", ""), (1, "dead", "poison")):
        job = await worker.take()
        assert job is not None
        assert job.strikes == strikes
        await worker.steps.start(job)
        [reclaimed] = await talk.reclaim(STRIKE)
        assert (reclaimed.outcome, reclaimed.reason) == (outcome, reason)


async def test_rule_8_what_was_one_of_many_is_suspected_first_then_struck_and_then_poison(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    for strikes, outcome in ((0, "restarted"), (SUSPECTED, "restarted"), (1, "dead")):
        job = await worker.take()
        assert job is not None
        assert job.strikes == strikes
        await worker.steps.start(job)
        [reclaimed] = await talk.reclaim(ONE_OF_MANY)
        assert reclaimed.outcome == outcome
    assert reclaimed.reason == "poison"


async def test_rule_8_a_suspect_that_was_one_of_few_is_struck(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    for strikes, ran_many in ((0, True), (SUSPECTED, False), (1, True)):
        job = await worker.take()
        assert job is not None
        assert job.strikes == strikes
        await worker.steps.start(job)
        [reclaimed] = await talk.reclaim(Reclaim(is_strike=True, ran_many=ran_many))
    assert reclaimed.reason == "poison"


async def test_rule_8_a_first_delivery_counts_as_begun_a_later_one_when_it_says_so(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    for strikes in (0, 1, 1, 1):
        job = await worker.take()
        assert job is not None
        assert job.strikes == strikes
        assert [one.outcome for one in await talk.reclaim(STRIKE)] == ["restarted"]


@pytest.mark.parametrize("before", [0, SUSPECTED])
async def test_rule_8_what_had_not_begun_is_neither_suspected_nor_struck(scene: Scene, before: int) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    begun = await worker.take()
    assert begun is not None
    await worker.steps.start(begun)
    await talk.reclaim(ONE_OF_MANY if before else Reclaim())
    for how in (ONE_OF_MANY, STRIKE, ONE_OF_MANY):
        job = await worker.take()
        assert job is not None
        assert job.strikes == before
        await talk.reclaim(how)


async def test_rule_8_a_strike_outlives_what_is_handed_back_and_what_is_tried_again(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    for strikes, ending in ((0, "dies"), (1, "hands back"), (1, "fails"), (1, "")):
        job = await worker.take()
        assert job is not None
        assert job.strikes == strikes
        await worker.steps.start(job)
        if ending == "dies":
            await talk.reclaim(STRIKE)
        elif ending == "hands back":
            await worker.steps.hand_back(job, has_begun=True)
        elif ending == "fails":
            assert await worker.steps.fail(job, "broke", 0) is Failed.RETRY
            await talk.start_due()


async def test_rule_8_a_lease_that_ran_out_is_no_strike(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    for _ in range(5):
        job = await worker.take()
        assert job is not None
        assert job.strikes == 0
        await worker.steps.start(job)
        await scene.time_passes(LEASE_MS)
        await talk.reclaim(Reclaim(idle_ms=LEASE_MS))


async def test_rule_8_a_job_over_its_own_time_limit_ends_there(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await talk.accept(2)
    job = await worker.take()
    assert job is not None
    await worker.steps.start(job)
    [reclaimed] = await talk.reclaim(Reclaim(ends_as="timeout"))
    assert (reclaimed.outcome, reclaimed.reason) == ("dead", "timeout")
    assert await answer(worker) == "message 2"


async def run_again(talk: Talk, worker: Worker, count: int, takes: Taken = "attempt") -> Job:
    """A job is run so often, and each time is to run again; returns it as it is taken then."""
    for _ in range(count):
        assert await worker.steps.fail(await taken(worker), "handler_error", 0, takes=takes) is Failed.RETRY
        assert await talk.start_due() == 1
    return await taken(worker)


async def test_rule_8_the_last_delivery_that_fails_is_not_tried_again(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await run_again(talk, worker, MOST_DELIVERIES - 1)
    assert job.deliveries == job.attempt == MOST_DELIVERIES
    assert await worker.steps.fail(job, "handler_error", 0) is Failed.DEAD


async def test_rule_8_a_job_that_asks_to_be_run_again_has_not_failed_and_is_bounded_by_its_deliveries(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await run_again(talk, worker, MOST_DELIVERIES - 1, "delivery")
    assert (job.attempt, job.deliveries) == (1, MOST_DELIVERIES)
    assert await worker.steps.fail(job, "retry_asked", 0, takes="delivery") is Failed.DEAD
    assert [letter.reason for letter in await talk.supervisor.dead.first()] == ["retry_asked"]


async def test_rule_8_a_job_that_waits_for_something_outside_is_not_used_up_by_waiting(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await talk.accept(2)
    job = await run_again(talk, worker, 2 * MOST_DELIVERIES, "nothing")
    assert (job.attempt, job.deliveries) == (1, 2 * MOST_DELIVERIES + 1)
    assert not await worker.steps.hand_back(job, has_begun=True)
    assert await worker.take() is not None
    [reclaimed] = await talk.reclaim()
    assert reclaimed.outcome == "restarted"
    job = await run_again(talk, worker, MOST_DELIVERIES - 3)
    assert await worker.steps.fail(job, "handler_error", 0) is Failed.DEAD
    job = await run_again(talk, worker, MOST_DELIVERIES - 1)  # the next one has no more for it
    assert await worker.steps.fail(job, "handler_error", 0) is Failed.DEAD


async def test_a_failed_job_waits_for_its_time_by_the_clock_of_redis_whatever_a_supervisor_thinks(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    assert await worker.steps.fail(job, "handler_error", 600_000) is Failed.RETRY
    fast_clock_ms = await talk.supervisor.store.now_ms() + 3_600_000
    assert await talk.supervisor.recovery.start_due(fast_clock_ms) == 0
    assert await worker.take() is None


async def test_rule_8_deliveries_of_all_kinds_are_bounded(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await talk.accept(2)
    for round_ in range(MOST_DELIVERIES - 1):
        job = await worker.take()
        assert job is not None
        if round_ % 2:
            assert await worker.steps.fail(job, "broke", 0) is Failed.RETRY
            assert await talk.start_due() == 1
        else:
            await talk.reclaim()
    assert await worker.take() is not None
    [reclaimed] = await talk.reclaim()
    assert (reclaimed.outcome, reclaimed.reason) == ("dead", "deliveries")
    [letter] = await talk.supervisor.dead.first()
    assert (letter.reason, letter.deliveries) == ("deliveries", MOST_DELIVERIES)
    assert await answer(worker) == "message 2"


async def test_rule_9_a_message_that_interrupts_marks_the_running_job_and_starts_when_it_has_ended(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await talk.accept(1)
    running = await worker.take()
    assert running is not None
    await worker.steps.start(running)
    assert await worker.renew(running.entry_id) == ([], [])
    await talk.accept(2)
    assert await worker.renew(running.entry_id) == ([], [running.entry_id])
    assert await worker.take() is None
    assert await worker.steps.finish(running, "superseded") is Finished.DONE
    assert await answer(worker) == "message 2"


async def test_rule_9_an_older_message_that_comes_late_interrupts_nothing(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await talk.accept(5, source=Source.POLL)
    job = await worker.take()
    assert job is not None
    assert await talk.accept(3, source=Source.POLL) is Intake.LATE
    assert await worker.renew(job.entry_id) == ([], [])
    assert (await worker.steps.start(job)).outcome == "started"
    await worker.steps.finish(job)
    late = await worker.take()
    assert late is not None
    assert (late.message.text, (await worker.steps.start(late)).outcome) == ("message 3", "started")


@pytest.mark.parametrize("is_handed_back", [False, True])
async def test_rule_9_an_interrupted_job_that_loses_its_worker_is_not_begun_again(
    scene: Scene, is_handed_back: bool
) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await talk.accept(1)
    running = await worker.take()
    assert running is not None
    await worker.steps.start(running)
    await talk.accept(2)
    if is_handed_back:
        await worker.steps.hand_back(running, has_begun=True)
    else:
        await talk.reclaim()
    again = await worker.take()
    assert again is not None
    assert (await worker.steps.start(again)).outcome == "superseded"
    await worker.steps.finish(again, "superseded")
    assert await answer(worker) == "message 2"


async def test_rule_9_of_several_that_wait_the_last_is_answered(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    for seq in (1, 2, 3):
        await talk.accept(seq)
    outcomes = []
    for _ in range(3):
        job = await worker.take()
        assert job is not None
        outcomes.append((await worker.steps.start(job)).outcome)
        await worker.steps.finish(job)
    assert outcomes == ["superseded", "superseded", "started"]


@pytest.mark.parametrize("fails_first", [True, False])
async def test_rule_9_what_would_be_retried_is_superseded_instead(scene: Scene, fails_first: bool) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await worker.steps.start(job)
    if fails_first:
        assert await worker.steps.fail(job, "broke", 1000) is Failed.RETRY
        await talk.accept(2)
    else:
        await talk.accept(2)
        assert await worker.steps.fail(job, "broke", 1000) is Failed.SUPERSEDED
    assert await answer(worker) == "message 2"
    assert await scene.leftovers() == [], "nothing waits for its time"
    await scene.time_passes(1000)
    assert await talk.start_due() == 0
    assert await scene.leftovers() == []


async def test_rule_9_coalesced_messages_are_fixed_at_the_first_start_and_the_same_in_every_run(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="coalesce"))
    for seq in (1, 2, 3):
        await talk.accept(seq)
    seen = []
    for round_ in range(3):
        job = await worker.take()
        assert job is not None
        started = await worker.steps.start(job)
        seen.append([message.text for message in started.together])
        await talk.accept(4)
        if round_ == 0:
            await talk.reclaim()
        elif round_ == 1:
            await worker.steps.fail(job, "broke", 0)
            await talk.start_due()
        else:
            await worker.steps.finish(job)
    assert seen == [["message 2", "message 3"]] * 3
    assert await answer(worker) == "message 4"
    assert await worker.take() is None


async def test_rule_9_what_was_handled_together_becomes_dead_letters_together_and_each_can_come_back(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="coalesce"))
    for seq in (1, 2, 3):
        await talk.accept(seq)
    job = await worker.take()
    assert job is not None
    await worker.steps.start(job)
    assert await worker.steps.fail(job, "broke", None) is Failed.DEAD
    letters = await talk.supervisor.dead.first()
    assert [letter.reason for letter in letters] == ["broke"] * 3
    assert [await talk.supervisor.dead.retry(letter) for letter in letters] == ["revived"] * 3
    again = await worker.take()
    assert again is not None
    started = await worker.steps.start(again)
    assert [again.message.text, *(one.text for one in started.together)] == ["message 1", "message 2", "message 3"]
