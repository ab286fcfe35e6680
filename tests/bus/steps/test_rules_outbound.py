"""DESIGN §3, rules 12 to 15: replies leave in order and once (test_rules.py says where the others are)."""

import msgspec

from bus.records.records import decode_reply_record
from bus.steps.outbox import Committed, Outbox
from bus.steps.recovery import Reclaim
from bus.steps.store import Intake, SessionWrite
from bus.steps.write_count import Found
from tests.bus.builders import AGENT, CONVERSATION, PEER, reply, text_of
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import Scene
from tests.bus.talk import answer, talk_and_worker, talk_of


async def test_rule_12_the_next_reply_starts_at_confirm_whoever_hears_the_ack(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    other = (await scene.supervisor("supervisor-2")).outbox
    await talk.accept(1)
    await answer(worker, "0", "1")
    assert (await talk.commit(await talk.take_reply(), "c0")).outcome is Committed.COMMITTED
    assert await talk.supervisor.take_reply() is None
    assert await other.conversation_of("c0") == CONVERSATION
    sent = await other.confirm(CONVERSATION, "c0", "m", 2)
    assert sent is not None
    assert (sent.conversation_type, sent.payload_type) == ("h2a", "text")
    assert text_of((await talk.take_reply()).fields["r"]) == "1"
    assert await other.confirm(CONVERSATION, "c0", "m", 2) is None


async def test_rule_17_an_offer_goes_out_before_the_reply_that_needs_its_session(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker, "0", "1")
    taken = await talk.take_reply()
    offer = msgspec.msgpack.encode(msgspec.structs.replace(decode_reply_record(taken.fields["r"]), place="!renewed-1"))
    outbox = talk.supervisor.outbox
    assert not await outbox.post_before(CONVERSATION, "1-1", offer), (
        "only who holds the head may put something before it"
    )
    assert not await (await scene.supervisor("supervisor-2")).outbox.post_before(CONVERSATION, taken.id, offer)
    assert await outbox.post_before(CONVERSATION, taken.id, offer)
    assert not await outbox.post_before(CONVERSATION, taken.id, offer)
    for place in ("!renewed-1", "0", "1"):
        head = await talk.take_reply()
        assert decode_reply_record(head.fields["r"]).place == place
        await talk.commit(head, f"c{place}")
        await outbox.confirm(CONVERSATION, f"c{place}", "m", 2)
    assert await talk.supervisor.take_reply() is None


async def test_rule_12_an_own_message_takes_the_seq_that_is_next(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker, "0")
    await talk.send("c0", 2)
    assert await talk.next_seq() == 3
    assert await talk.accept(3) is Intake.ACCEPTED


async def test_rule_12_an_own_message_takes_its_seq_also_when_the_ack_overtakes_a_push(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker, "0")
    await talk.send("c0", 3)  # the person's seq 2 is still on its way
    assert await talk.accept(2) is Intake.ACCEPTED
    assert await talk.accept(4) is Intake.ACCEPTED


async def test_rule_12_the_same_bytes_go_out_again_when_due_or_at_once_for_a_dead_sender(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    other = (await scene.supervisor("supervisor-2")).outbox
    await talk.accept(1)
    await answer(worker, "0")
    await talk.commit(await talk.take_reply(), "c0")
    assert await other.due() == []
    assert await other.resend(CONVERSATION) is None
    assert await other.resend(CONVERSATION, former_holder="supervisor-3") is None
    at_once = await other.resend(CONVERSATION, former_holder="supervisor-1")
    assert at_once is not None
    assert await other.holder_of(CONVERSATION) == "supervisor-2"
    await scene.time_passes(10_000)
    assert await other.due() == [CONVERSATION]
    again = await talk.supervisor.outbox.resend(CONVERSATION)
    assert again == at_once
    assert await talk.supervisor.outbox.resend(CONVERSATION) is None


async def test_rule_12_a_send_that_the_relay_puts_off_waits_for_its_time(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    outbox = talk.supervisor.outbox
    await talk.accept(1)
    await answer(worker, "0")
    await talk.commit(await talk.take_reply(), "c0")
    await outbox.postpone(CONVERSATION, "c0", 30_000)
    await outbox.postpone(CONVERSATION, "another", 0)
    await scene.time_passes(20_000)
    assert await outbox.resend(CONVERSATION) is None
    await scene.time_passes(10_000)
    assert await outbox.resend(CONVERSATION) is not None


async def test_rule_13_a_reply_of_a_dead_supervisor_is_offered_again_and_the_dead_one_is_fenced(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    lease = talk.supervisor.recovery
    await talk.accept(1)
    await answer(worker, "0")
    taken = await talk.take_reply()
    [pending] = await lease.pending(lease.replies)
    assert (await lease.reclaim(lease.replies, pending, Reclaim(idle_ms=15_000))).outcome == "kept", "it is not silent"
    assert (await lease.reclaim(lease.replies, pending, Reclaim())).outcome == "restarted"
    assert (await lease.reclaim(lease.replies, pending, Reclaim())).outcome == "kept"
    assert (await talk.commit(taken, "c0")).outcome is Committed.DONE_BEFORE
    assert not await talk.supervisor.outbox.drop_reply(CONVERSATION, "late", entry_id=taken.id)
    assert (await talk.commit(await talk.take_reply(), "c0")).outcome is Committed.COMMITTED


async def test_rule_13_who_never_took_a_reply_cannot_commit_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    other = await talk_of(scene, "supervisor-2")
    await talk.accept(1)
    await answer(worker, "0")
    entry = await talk.take_reply()
    assert (await other.commit(entry, "c0")).outcome is Committed.FENCED
    assert not await other.supervisor.outbox.drop_reply(CONVERSATION, "mine", entry_id=entry.id)
    assert (await talk.commit(entry, "c0")).outcome is Committed.COMMITTED


async def test_rule_13_a_supervisor_that_loses_its_connection_hands_its_reply_back(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    other = await talk_of(scene, "supervisor-2")
    await talk.accept(1)
    await answer(worker, "0")
    entry = await talk.take_reply()
    await talk.supervisor.outbox.give_back_reply(entry.id, CONVERSATION)
    await talk.supervisor.outbox.give_back_reply(entry.id, CONVERSATION)
    assert await other.send("c0", 2) == "0"
    assert await other.supervisor.take_reply() is None


async def test_rule_13_what_can_never_be_sent_is_a_dead_letter_and_blocks_nothing(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    outbox, dead = talk.supervisor.outbox, talk.supervisor.dead
    await talk.accept(1)
    await answer(worker, "0", "1", "2")
    assert await outbox.drop_reply(CONVERSATION, "no_grant", entry_id=(await talk.take_reply()).id)
    await talk.commit(await talk.take_reply(), "c1")
    assert await outbox.drop_reply(CONVERSATION, "refused_413", client_message_id="c1")
    assert await outbox.confirm(CONVERSATION, "c1", "m", 2) is None
    assert await talk.send("c2", 2) == "2"
    letters = await dead.first()
    assert [letter.reason for letter in letters] == ["no_grant", "refused_413"]
    assert [await dead.retry(letter, "supervisor-1") for letter in letters] == ["revived", "busy"]
    assert await talk.send("c0", 3) == "0"
    assert await dead.retry(letters[1], "supervisor-1") == "revived"
    again = await outbox.resend(CONVERSATION)
    assert again is not None
    assert again.encrypted_payload == "bytes of c1"


async def test_rule_14_a_repeated_commit_answers_with_the_stored_bytes_and_a_stale_one_changes_nothing(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker, "0")
    entry = await talk.take_reply()
    before = await scene.facts()
    assert (await talk.commit(entry, "c0", version=0)).outcome is Committed.STALE
    assert await scene.facts() == before
    assert await talk.supervisor.outbox.all() == []
    assert (await talk.commit(entry, "c0")).outcome is Committed.COMMITTED
    again = await talk.commit(entry, "c0")
    assert again.outcome is Committed.ALREADY
    assert again.stored is not None
    assert again.stored.encrypted_payload == "bytes of c0"
    await talk.supervisor.outbox.confirm(CONVERSATION, "c0", "m", 2)
    assert (await talk.commit(entry, "c0")).outcome is Committed.DONE_BEFORE


async def test_rule_14_one_stale_session_of_several_stops_the_whole_commit(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker, "0")
    entry = await talk.take_reply()
    current = SessionWrite(*PEER, await talk.version(), b"moved")
    stale = SessionWrite(PEER[0], "tablet", 5, b"moved")
    assert (await talk.commit(entry, "c0", sessions=[current, stale])).outcome is Committed.STALE
    assert await talk.version() == current.version
    fresh = SessionWrite(PEER[0], "tablet", 0, b"moved")
    assert (await talk.commit(entry, "c0", sessions=[current, fresh])).outcome is Committed.COMMITTED
    assert await talk.version() == current.version + 1


async def test_rule_14_what_is_not_the_head_of_its_out_box_is_not_committed(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for conversation in ("one", "two"):
        await talk.accept(1, conversation=conversation)
        await answer(worker, "0")
    one, two = await talk.take_reply(), await talk.take_reply()
    mixed_up = msgspec.structs.replace(one, fields=two.fields)  # held by us, not what is under way in that conversation
    assert (await talk.commit(mixed_up, "c0")).outcome is Committed.NOT_HEAD
    assert (await talk.commit(one, "c0")).outcome is Committed.COMMITTED


async def test_rule_13_who_holds_the_head_of_one_conversation_ends_nothing_in_another(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    outbox = talk.supervisor.outbox
    for conversation in ("one", "two"):
        await talk.accept(1, conversation=conversation)
        await answer(worker, "0")
    one, two = await talk.take_reply(), await talk.take_reply()
    before = await scene.facts()
    assert not await outbox.drop_reply("two", "no_grant", entry_id=one.id)
    assert not await outbox.post_before("two", one.id, two.fields["r"])
    assert (await talk.commit(two, "c2")).outcome is Committed.COMMITTED
    assert not await outbox.drop_reply("two", "refused_413", client_message_id="another")
    assert await talk.supervisor.dead.first() == []
    assert await outbox.confirm("two", "c2", "m", 2) is not None
    assert (await talk.commit(one, "c1")).outcome is Committed.COMMITTED
    assert (await scene.facts()).busy == before.busy - {"two"}


async def test_a_conversation_is_known_to_be_at_work_as_long_as_anything_of_it_is_under_way(scene: Scene) -> None:
    """Else the audit would not look at it."""
    talk, worker = await talk_and_worker(scene)
    outbox = talk.supervisor.outbox

    async def is_at_work() -> bool:
        facts = await scene.facts()
        assert facts.busy == facts.at_work
        return bool(facts.busy)

    await talk.accept(1)
    assert await is_at_work()
    job = await worker.take()
    assert job is not None
    await worker.steps.emit(job, "0", reply("sent while it runs"))
    await talk.send("c0", 2)
    assert await is_at_work()
    await worker.steps.emit(job, "1", reply("dropped while it runs"))
    entry = await talk.take_reply()
    assert await outbox.drop_reply(CONVERSATION, "no_grant", entry_id=entry.id)
    assert await is_at_work()
    await worker.steps.finish(job)
    assert not await is_at_work()
    await outbox.post(CONVERSATION, entry.fields["r"])
    assert await is_at_work()
    await talk.send("c1", 3)
    assert not await is_at_work()


async def test_a_conversation_is_at_work_while_a_job_runs_and_a_message_waits_behind_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await talk.accept(2)  # it waits and is counted
    await worker.steps.emit(job, "0", reply("sent while it runs"))
    await talk.send("c0", 3)
    facts = await scene.facts()
    assert facts.busy == facts.at_work
    assert facts.busy


async def test_rule_14_what_needs_no_acknowledgement_needs_no_token_and_an_hour_of_silence_gives_no_more_of_them(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene)
    for conversation in ("one", "two", "three"):
        await talk.accept(1, conversation=conversation)
        await answer(worker, "0")
    first, second, third = [await talk.take_reply() for _ in range(3)]
    assert (await talk.commit(first, first.id, rate=1)).outcome is Committed.COMMITTED
    await scene.time_passes(3_600_000)
    assert (await talk.commit(second, second.id, rate=1)).outcome is Committed.COMMITTED
    assert (await talk.commit(third, third.id, rate=1)).outcome is Committed.WAIT
    assert (await talk.start_stream(third, "s1", rate=1)).outcome is Committed.COMMITTED


async def test_rule_17_nothing_is_committed_in_doubt(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker, "0")
    entry = await talk.take_reply()
    talk.supervisor.write_count.is_doubted = True
    assert (await talk.commit(entry, "c0")).outcome is Committed.WENT_BACK
    assert await talk.supervisor.check() is Found.OLDER, "doubt is enough to raise the epoch"
    assert (await talk.commit(entry, "c0")).outcome is Committed.COMMITTED
    assert await talk.supervisor.check() is Found.SAME


async def test_of_its_own_sends_a_process_remembers_the_latest(redis_url: str) -> None:
    scene = RedisScene(redis_url)
    talk, worker = await talk_and_worker(scene)
    outbox = Outbox(scene.client, AGENT, talk.supervisor.name, talk.supervisor.write_count, most_remembered=2)
    talk.supervisor.outbox = outbox
    for number in range(3):
        await talk.accept(1, conversation=f"{number}")
        await answer(worker, "0")
        assert (await talk.commit(await talk.take_reply(), f"c{number}")).outcome is Committed.COMMITTED
    assert [outbox.own_conversation_of(f"c{number}") for number in range(3)] == [None, "1", "2"]
    assert await outbox.conversation_of("c0") == "0", "Redis knows it still"
    scene.close()


async def test_rule_14_the_rate_bucket_is_shared_and_fills_again(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    other = await talk_of(scene, "supervisor-2")
    conversations = ["one", "two", "three", "four"]
    for conversation in conversations:
        await talk.accept(1, conversation=conversation)
        await answer(worker, "0")
    entries = [await who.take_reply() for who in (talk, other, talk, other)]
    outcomes = [
        await who.commit(entry, entry.id, rate=2)
        for who, entry in zip((talk, other, talk, other), entries, strict=True)
    ]
    assert [one.outcome.name for one in outcomes] == ["COMMITTED", "COMMITTED", "WAIT", "WAIT"]
    assert all(0 < one.wait_ms <= 500 for one in outcomes[2:])
    await scene.time_passes(500)
    assert (await talk.commit(entries[2], entries[2].id, rate=2)).outcome is Committed.COMMITTED


async def test_rule_15_a_stream_that_was_begun_is_known_to_all_until_it_has_ended_once(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    other = (await scene.supervisor("supervisor-2")).outbox
    await talk.accept(1)
    await answer(worker, "0")
    assert (await talk.start_stream(await talk.take_reply(), "s1")).outcome is Committed.COMMITTED
    assert await other.open_streams() == {CONVERSATION: "s1 supervisor-1"}
    assert not await other.end_stream(CONVERSATION, "s2 supervisor-1")
    assert await other.end_stream(CONVERSATION, "s1 supervisor-1")
    assert not await other.end_stream(CONVERSATION, "s1 supervisor-1")
    assert await other.open_streams() == {}


async def test_rule_15_the_begin_of_a_stream_waits_for_no_acknowledgement_and_its_end_closes_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    outbox = talk.supervisor.outbox
    await talk.accept(1)
    await answer(worker, "0", "1")
    start = await talk.take_reply()
    assert (await talk.start_stream(start, "s1")).outcome is Committed.COMMITTED
    assert (await talk.start_stream(start, "s1")).outcome is Committed.DONE_BEFORE
    assert await outbox.all() == []
    assert (await talk.commit(await talk.take_reply(), "c1", ends_stream="s1")).outcome is Committed.COMMITTED
    assert await outbox.open_streams() == {}


async def test_rule_15_a_stream_may_be_ended_by_its_run_and_by_what_waits_to_be_sent(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    outbox = talk.supervisor.outbox
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    run = job.entry_id
    await worker.steps.start(job)
    assert await outbox.may_end_stream(CONVERSATION, run)
    assert not await outbox.may_end_stream(CONVERSATION, "1-1"), "a former run's"
    assert not await outbox.may_end_stream("another", run)
    await worker.steps.emit(job, "0", reply("0"))
    await worker.steps.finish(job)
    assert await outbox.may_end_stream(CONVERSATION, run), "what it said waits"
    assert (await talk.commit(await talk.take_reply(), "c1")).outcome is Committed.COMMITTED
    assert await outbox.may_end_stream(CONVERSATION, run), "it is not acknowledged"
    await outbox.confirm(CONVERSATION, "c1", "m1", 2)
    assert not await outbox.may_end_stream(CONVERSATION, run)


async def test_rule_15_who_begins_a_stream_learns_which_it_takes_the_place_of(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    other = await talk_of(scene, "supervisor-2")
    await talk.accept(1)
    await answer(worker, "0", "1")
    first = await talk.start_stream(await talk.take_reply(), "s1")
    assert (first.outcome, first.stream_id) == (Committed.COMMITTED, "")
    second = await other.start_stream(await other.take_reply(), "s2")
    assert (second.outcome, second.stream_id) == (Committed.COMMITTED, "s1")
    assert await talk.supervisor.outbox.open_streams() == {CONVERSATION: "s2 supervisor-2"}


async def test_rule_14_a_clock_that_was_set_back_holds_up_nobody(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for conversation in ("one", "two", "three"):
        await talk.accept(1, conversation=conversation)
        await answer(worker, "0")
    first, second, third = [await talk.take_reply() for _ in range(3)]
    assert (await talk.commit(first, first.id, rate=1)).outcome is Committed.COMMITTED
    assert (await talk.commit(second, second.id, rate=1)).outcome is Committed.WAIT
    await scene.time_passes(-600_000)
    assert (await talk.commit(second, second.id, rate=1)).outcome is Committed.COMMITTED
    assert (await talk.commit(third, third.id, rate=1)).outcome is Committed.WAIT
