"""DESIGN §3, rules 1 to 3 and 11: what is taken in, and what waits (test_rules.py says where the others are)."""

import msgspec

from bus.records.records import ReplyPlace, pack_reply
from bus.steps.outbox import Committed
from bus.steps.policies import Policies
from bus.steps.store import Intake, Source
from tests.bus.builders import (
    AGENT,
    BUS_KEY,
    CONVERSATION,
    PEER,
    arrival_of,
    job_of,
    reply,
    signed_id_of,
)
from tests.bus.scenes import Scene
from tests.bus.talk import Talk, answer, talk_and_worker, talk_of

REFUSAL = pack_reply(
    ReplyPlace("refused", CONVERSATION, "!refused", 1), reply("later"), emitted_ms=1, key=BUS_KEY, agent_id=AGENT
)


async def test_rule_1_a_known_signed_id_is_a_duplicate_whatever_its_seq(scene: Scene) -> None:
    talk = await talk_of(scene)
    assert await talk.accept(1) is Intake.ACCEPTED
    assert await talk.accept(2, signed_id=signed_id_of(1)) is Intake.DUPLICATE
    assert await talk.accept(2) is Intake.ACCEPTED


async def test_rule_1_a_duplicate_is_one_before_anything_else_is_found_wrong_with_it(scene: Scene) -> None:
    talk = await talk_of(scene)
    await talk.accept(1)
    stale = arrival_of(7, session_version=0)
    wrong_person = msgspec.structs.replace(stale, signed_id=signed_id_of(1), person="another")
    assert await talk.supervisor.store.accept(wrong_person, job_of(7)) is Intake.DUPLICATE
    assert await talk.quarantine(1) is Intake.DUPLICATE


async def test_rule_1_a_pushed_message_out_of_sequence_changes_nothing_and_a_polled_one_jumps(scene: Scene) -> None:
    talk = await talk_of(scene)
    assert await talk.accept(1) is Intake.ACCEPTED
    before = await scene.facts()
    assert await talk.accept(3) is Intake.GAP
    assert (await scene.facts(), await talk.next_seq()) == (before, 2)
    assert await talk.accept(3, source=Source.POLL) is Intake.ACCEPTED
    assert await talk.next_seq() == 4


async def test_rule_1_an_unknown_id_below_next_is_taken_in_late_and_in_its_place(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 4, 3):
        outcome = await talk.accept(seq, source=Source.POLL)
    assert outcome is Intake.LATE
    assert [await answer(worker) for _ in range(3)] == ["message 1", "message 3", "message 4"]


async def test_rule_17_seqs_that_are_nobodys_are_counted_before_a_message(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)

    async def missing(seq: int) -> int:
        look = await talk.supervisor.store.look(CONVERSATION, PEER, bytes(8), seq)
        return look.missing

    assert await missing(7) == 0, "nothing is known of a conversation that begins"
    await talk.accept(1)
    assert [await missing(seq) for seq in (0, 1, 2, 3, 6)] == [0, 0, 0, 1, 4]
    await answer(worker, "0")
    assert (await talk.commit(await talk.take_reply(), "c1")).outcome is Committed.COMMITTED
    assert [await missing(seq) for seq in (2, 3, 6)] == [0, 0, 3], "it waits for its confirmation"
    await talk.supervisor.outbox.confirm(CONVERSATION, "c1", "m4", 4)
    assert [await missing(seq) for seq in (3, 4, 5, 6)] == [1, 2, 2, 3], "it was the fourth"


async def test_rule_2_the_cursor_moves_only_from_the_value_that_was_read(scene: Scene) -> None:
    store = (await talk_of(scene)).supervisor.store
    assert await store.advance_cursor(None, "m1")
    assert not await store.advance_cursor(None, "m2")
    assert await store.cursor() == "m1"


async def test_rule_2_what_is_quarantined_is_kept_once_and_comes_back_in_its_place(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    assert await talk.quarantine(2) is Intake.ACCEPTED
    assert await talk.quarantine(2) is Intake.DUPLICATE
    assert await talk.accept(3) is Intake.ACCEPTED
    assert await talk.requeue(2) is Intake.ACCEPTED
    assert await talk.requeue(2) is Intake.GONE
    assert await talk.accept(2) is Intake.DUPLICATE
    assert [await answer(worker) for _ in range(3)] == ["message 1", "message 2", "message 3"]


async def test_rule_1_only_what_was_taken_in_moves_the_memory_of_ids(scene: Scene) -> None:
    """Else whoever may write to a group makes everything in it `stale`, by what cannot be read."""
    talk, _ = await talk_and_worker(scene)
    assert await talk.quarantine(1) is Intake.ACCEPTED
    assert not await talk.knows(1)
    assert await talk.requeue(1) is Intake.ACCEPTED
    assert await talk.knows(1)


async def test_rule_1_what_was_read_when_it_came_again_is_not_answered_out_of_quarantine(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    assert await talk.quarantine(1) is Intake.ACCEPTED
    assert await talk.accept(1) is Intake.LATE
    assert await talk.requeue(1) is Intake.DUPLICATE
    assert await talk.supervisor.quarantine.count() == 0
    assert await answer(worker) == "message 1"
    assert await worker.take() is None


async def test_what_came_again_and_cannot_be_read_is_noted_once_and_nothing_else_changes(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await talk.quarantine(2)
    store = talk.supervisor.store
    assert await store.note_old(arrival_of(1, 0), "key_used") is Intake.OLD
    assert await store.note_old(arrival_of(1, 0), "key_used") is Intake.DUPLICATE
    assert await store.note_old(arrival_of(2, 0), "key_used") is Intake.DUPLICATE, "it stands in quarantine"
    assert (await talk.next_seq(), await talk.supervisor.quarantine.count()) == (3, 1)
    assert await answer(worker) == "message 1"


async def test_rule_2_two_messages_under_one_message_id_are_both_kept(scene: Scene) -> None:
    talk, _ = await talk_and_worker(scene)
    assert await talk.quarantine(1, digest="one") is Intake.ACCEPTED
    before = await scene.facts()
    assert await talk.quarantine(1, digest="two") is Intake.TAKEN
    assert await scene.facts() == before
    assert await talk.quarantine(1, digest="two", kept_as="beside") is Intake.LATE
    assert await talk.quarantine(1, digest="two", kept_as="beside") is Intake.DUPLICATE
    assert await talk.supervisor.quarantine.count() == 2
    assert await talk.requeue(1, kept_as="beside") is Intake.ACCEPTED
    assert await talk.supervisor.quarantine.count() == 1


async def test_rule_2_an_unsigned_copy_in_quarantine_is_no_obstacle_to_the_genuine_message(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    assert await talk.quarantine(1, is_signed=False) is Intake.ACCEPTED
    assert await talk.quarantine(1, is_signed=False) is Intake.DUPLICATE
    assert await talk.accept(1) is Intake.LATE
    assert await talk.requeue(1) is Intake.DUPLICATE
    assert await talk.supervisor.quarantine.count() == 0
    assert await answer(worker) == "message 1"
    assert await worker.take() is None


async def test_rule_3_an_accept_with_a_stale_session_changes_nothing(scene: Scene) -> None:
    talk = await talk_of(scene)
    assert await talk.accept(1) is Intake.ACCEPTED
    before = await scene.facts()
    assert await talk.supervisor.store.accept(arrival_of(2, session_version=0), job_of(2)) is Intake.CONFLICT
    assert await scene.facts() == before
    assert not await talk.knows(2)
    assert await talk.accept(2) is Intake.ACCEPTED


async def test_rule_3_a_one_time_prekey_is_used_once(scene: Scene) -> None:
    talk = await talk_of(scene)
    await scene.add_prekey(7)
    for seq, outcome in ((1, Intake.ACCEPTED), (2, Intake.CONFLICT)):
        arrival = msgspec.structs.replace(arrival_of(seq, await talk.version()), used_one_time_prekey=7)
        assert await talk.supervisor.store.accept(arrival, job_of(seq)) is outcome


async def test_rule_3_a_conversation_keeps_its_kind_and_its_person(scene: Scene) -> None:
    talk = await talk_of(scene)
    await talk.accept(1)
    for changed in ({"kind": "group"}, {"person": "another"}):
        other = msgspec.structs.replace(arrival_of(2, await talk.version()), **changed)
        assert await talk.supervisor.store.accept(other, job_of(2)) is Intake.CONFLICT


async def test_rule_11_beyond_its_room_a_conversation_is_refused_with_a_reply_and_goes_on(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(most_waiting=2))
    for seq in (1, 2, 3):
        await talk.accept(seq)
    before = await scene.facts()
    assert await talk.accept(4) is Intake.FULL
    assert await scene.facts() == before
    assert not await talk.knows(4)
    assert await talk.accept(4, refusal=REFUSAL) is Intake.REFUSED
    assert await talk.accept(4) is Intake.DUPLICATE
    assert await talk.accept(1, conversation="another") is Intake.ACCEPTED
    assert await talk.send("c0", 5) == "!refused"
    assert [await answer(worker) for _ in range(2)] == ["message 1", "message 1"]
    assert await talk.accept(6) is Intake.ACCEPTED
    assert [await answer(worker) for _ in range(3)] == ["message 2", "message 3", "message 6"]


async def test_rule_11_it_is_said_once_and_while_that_is_on_its_way_the_next_ones_wait_at_the_relay(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene, Policies(most_waiting=1))
    await talk.accept(1)
    await talk.accept(2)
    assert await talk.accept(3, refusal=REFUSAL) is Intake.REFUSED
    for seq in range(4, 104):
        assert await talk.accept(seq, refusal=REFUSAL) is Intake.HELD
        assert await talk.hold(seq) is Intake.NOTED
    assert await talk.next_seq() == 104
    assert await talk.send("c0", 104) == "!refused"
    assert await talk.accept(105, refusal=REFUSAL) is Intake.HELD, "nothing overtakes what waits"
    assert [await answer(worker) for _ in range(2)] == ["message 1", "message 2"]
    assert await talk.fetch() == [4, 5]
    assert await talk.supervisor.dead.first() == []


async def test_rule_11_what_is_parked_comes_up_in_order_and_nothing_is_lost(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(most_waiting=2, full="park"))
    for seq in (1, 2, 3, 4, 5, 6):
        assert await talk.accept(seq) is Intake.ACCEPTED
    assert (await scene.facts()).waiting == 2
    assert [await answer(worker) for _ in range(6)] == [f"message {seq}" for seq in range(1, 7)]
    assert await scene.leftovers() == []


async def test_rule_11_what_is_handled_together_makes_room_for_what_is_parked(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="coalesce", most_waiting=2, full="park"))
    for seq in (1, 2, 3, 4, 5, 6):
        assert await talk.accept(seq) is Intake.ACCEPTED
    job = await worker.take()
    assert job is not None
    assert [one.text for one in (await worker.steps.start(job)).together] == ["message 2", "message 3"]
    facts = await scene.facts()
    assert (facts.waiting, facts.in_mailboxes) == (2, 2)


async def test_rule_11_nothing_overtakes_what_is_parked_when_other_code_has_more_room(scene: Scene) -> None:
    """The worker that is replaced declares another bound than the one before it."""
    narrow = Policies(busy="coalesce", most_waiting=2, full="park")
    talk, _ = await talk_and_worker(scene, narrow)
    for seq in (1, 2, 3, 4, 5):
        assert await talk.accept(seq) is Intake.ACCEPTED
    worker = await scene.worker("worker-2", msgspec.structs.replace(narrow, most_waiting=10))
    assert await talk.accept(6) is Intake.ACCEPTED
    handled = list[str]()
    while (job := await worker.take()) is not None:
        together = (await worker.steps.start(job)).together
        handled += [job.message.text, *(one.text for one in together)]
        await worker.steps.finish(job)
    assert handled == [f"message {seq}" for seq in range(1, 7)]


async def test_rule_11_a_late_message_is_handled_before_later_ones_also_when_those_fill_the_mailbox(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene, Policies(most_waiting=2, full="park"))
    for seq in (1, 3, 4, 5, 2):
        await talk.accept(seq, source=Source.POLL)
    assert (await scene.facts()).waiting == 2
    assert [await answer(worker) for _ in range(5)] == [f"message {seq}" for seq in range(1, 6)]


async def test_rule_11_beyond_its_room_the_whole_agent_takes_nothing_in_until_some_are_answered(scene: Scene) -> None:
    worker = await scene.worker("worker-1")
    talk = Talk(await scene.supervisor("supervisor-1", most_waiting_in_all=3))
    for conversation in ("one", "two", "three"):
        assert await talk.accept(1, conversation=conversation) is Intake.ACCEPTED
    before = await scene.facts()
    assert await talk.accept(1, conversation="four") is Intake.NOT_NOW
    assert await talk.accept(1, conversation="one") is Intake.DUPLICATE
    assert await scene.facts() == before
    await answer(worker)
    assert await talk.accept(1, conversation="four") is Intake.ACCEPTED
