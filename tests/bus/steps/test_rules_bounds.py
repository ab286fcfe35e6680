"""Bounds in bytes: whatever waits has a budget of its sender and in all, so that one sender leaves room for the others."""

import msgspec
import pytest

from bus.records.records import ReplyPlace, pack_reply
from bus.steps.job_steps import Emitted, Finished
from bus.steps.policies import Policies
from bus.steps.store import Intake, Source
from host.budgets import EVIDENCE_BYTES, MIB, StoreBudgets
from tests.bus.builders import AGENT, BUS_KEY, CONVERSATION, PEER, arrival_of, reply
from tests.bus.scenes import Scene
from tests.bus.talk import Talk, answer, talk_and_worker, talk_of

BUDGETS = StoreBudgets.of(96 * MIB)
LARGE = bytes(100_000)


async def kept_bytes(talk: Talk, conversation: str, count: int) -> int:
    found = [await talk.supervisor.quarantine.find(f"{conversation}-{seq}") for seq in range(1, count + 1)]
    return sum(len(one.frame) for one in found if one is not None)


async def bounded_talk(scene: Scene) -> Talk:
    talk = await talk_of(scene)
    talk.supervisor.store.budgets = BUDGETS
    return talk


@pytest.mark.pure
def test_the_smallest_redis_keeps_as_many_as_people_need_and_the_largest_no_more_than_can_be_walked() -> None:
    smallest, largest = StoreBudgets.of(MIB), StoreBudgets.of(1024 * 1024 * MIB)
    assert [smallest.most_quarantined, smallest.most_dead, smallest.most_held] == [500, 1000, 1000]
    assert [largest.most_quarantined, largest.most_dead, largest.most_held] == [10_000] * 3


@pytest.mark.pure
def test_all_kinds_together_leave_room_below_the_point_at_which_nothing_is_taken_in() -> None:
    for redis_mib in (24, 32, 96, 1024):
        budgets = StoreBudgets.of(redis_mib * MIB)
        small = budgets.most_quarantined * EVIDENCE_BYTES + budgets.most_held * 300 + budgets.ledger_entries * 100
        large = budgets.waiting_bytes + budgets.quarantine_bytes + budgets.dead_bytes + budgets.out_bytes
        assert small + large <= redis_mib * MIB * 0.9


async def test_one_senders_frames_take_a_fifth_of_the_quarantine_and_the_next_sender_has_room(scene: Scene) -> None:
    talk = await bounded_talk(scene)
    for seq in range(1, 101):
        assert await talk.quarantine(seq, frame=LARGE) is Intake.ACCEPTED
    theirs = await kept_bytes(talk, CONVERSATION, 100)
    assert 0.15 <= theirs / BUDGETS.quarantine_bytes <= 0.25
    await talk.quarantine(1, frame=LARGE, sender="another", conversation="another")
    assert await kept_bytes(talk, "another", 1) == len(LARGE)


async def test_all_senders_together_stay_within_the_quarantines_budget(scene: Scene) -> None:
    talk = await bounded_talk(scene)
    kept = 0
    for number in range(20):
        for seq in range(1, 11):
            await talk.quarantine(seq, frame=LARGE, sender=f"{number}", conversation=f"{number}")
        kept += await kept_bytes(talk, f"{number}", 10)
    assert BUDGETS.quarantine_bytes * 0.8 <= kept <= BUDGETS.quarantine_bytes


async def test_what_nobody_has_proven_to_have_signed_is_charged_to_nobody_it_names(scene: Scene) -> None:
    talk = await bounded_talk(scene)
    await scene.add_prekey(1)
    for seq in range(1, 61):
        await talk.quarantine(seq, frame=LARGE, is_signed=False)
    unsigned = await kept_bytes(talk, CONVERSATION, 60)
    assert 0 < unsigned <= BUDGETS.unsigned_bytes
    await talk.quarantine(1, frame=LARGE, conversation="another")
    assert await kept_bytes(talk, "another", 1) == len(LARGE)


async def test_what_leaves_the_quarantine_makes_room(scene: Scene) -> None:
    talk = await bounded_talk(scene)
    for _ in range(3):
        for seq in range(1, 31):
            await talk.quarantine(seq, frame=LARGE, is_signed=False)
        assert await kept_bytes(talk, CONVERSATION, 30) > BUDGETS.unsigned_bytes - len(LARGE)
        for seq in range(1, 31):
            assert await talk.supervisor.quarantine.drop(f"{CONVERSATION}-{seq}")
    assert await scene.leftovers() == []


async def test_what_is_not_kept_whole_says_behind_which_cursor_the_relay_has_it(scene: Scene) -> None:
    talk = await bounded_talk(scene)
    await talk.supervisor.store.advance_cursor(None, "m7")
    await talk.quarantine(1, frame=b"")
    found = await talk.supervisor.quarantine.find(f"{CONVERSATION}-1")
    assert found is not None
    assert (found.frame, found.evidence, found.cursor) == (b"", b"evidence", "m7")


# What waits for a handler


async def loads(scene: Scene) -> dict[str, int]:
    """What is counted, which is what lies there."""
    facts = await scene.facts()
    assert facts.counted == facts.waits
    return facts.counted


async def fill(talk: Talk, sender: str, *, most: int = 200, characters: int = 100_000) -> int:
    """Messages of one sender in one conversation, until one has to wait at the relay; how many were taken in."""
    for seq in range(1, most + 1):
        if await talk.accept(seq, conversation=sender, sender=sender, characters=characters) is Intake.HELD:
            return seq - 1
    return most


async def test_one_sender_fills_a_fifth_and_fourteen_leave_room_for_a_fifteenth(scene: Scene) -> None:
    talk, _ = await talk_and_worker(scene, Policies(most_waiting=1000))
    talk.supervisor.store.budgets = BUDGETS
    await fill(talk, "1")
    assert 0.15 <= (await loads(scene))["total"] / BUDGETS.waiting_bytes <= 0.25
    for number in range(2, 15):
        await fill(talk, f"{number}")
    assert 0.9 <= (await loads(scene))["total"] / BUDGETS.waiting_bytes <= 0.98  # one after the other: 1 - 0.8¹⁴
    assert await talk.accept(1, conversation="new", sender="new", characters=100_000) is Intake.ACCEPTED
    assert await talk.accept(2, conversation="new", sender="new") is Intake.ACCEPTED


async def test_what_is_counted_goes_when_the_job_has_ended_however_it_ends(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(most_waiting=1000))
    for seq, characters in enumerate((10, 10_000, 10, 10_000, 10), start=1):
        await talk.accept(seq, characters=characters)
    job = await worker.take()
    assert job is not None
    assert (await loads(scene))["total"] > 20_000
    await worker.steps.fail(job, "broke", 0)
    await loads(scene)
    assert await talk.start_due() == 1
    assert (await answer(worker)).strip() == "message 1"
    job = await worker.take()
    assert job is not None
    assert 20_000 < (await loads(scene))["total"] < 23_000, "the large one that runs counts too"
    await worker.steps.hand_back(job)
    job = await worker.take()
    assert job is not None
    await worker.steps.fail(job, "broke", None)
    [letter] = await talk.supervisor.dead.first()
    assert await talk.supervisor.dead.retry(letter) == "revived"
    assert (await loads(scene))["total"] > 20_000
    assert [(await answer(worker)).strip()[-1] for _ in range(4)] == ["3", "2", "4", "5"]
    assert await loads(scene) == {}
    assert await scene.leftovers() == []


async def test_what_is_handled_together_is_counted_until_it_has_ended(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="coalesce", most_waiting=10))
    for seq in (1, 2, 3):
        await talk.accept(seq, characters=10_000)
    job = await worker.take()
    assert job is not None
    await worker.steps.start(job)
    assert (await loads(scene))["total"] > 30_000
    await worker.steps.finish(job)
    assert await loads(scene) == {}


# What waits at the relay


async def test_who_waits_at_the_relay_holds_up_nobody_and_comes_in_its_order_when_there_is_room(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(most_waiting=1000))
    talk.supervisor.store.budgets = msgspec.structs.replace(BUDGETS, waiting_bytes=50_000)
    taken = await fill(talk, PEER[0], characters=3000)
    assert 3 <= taken <= 5
    for seq in range(taken + 1, taken + 6):
        assert await talk.hold(seq, conversation=PEER[0]) is Intake.NOTED
    before = await scene.facts()
    assert await talk.hold(taken + 1, conversation=PEER[0]) is Intake.NOTED, "the poll brings it too"
    assert await scene.facts() == before
    look = await talk.supervisor.store.look(PEER[0], PEER, bytes(8))
    assert (look.sender_waits, look.known, look.next_seq) == (True, False, taken + 6)
    assert await talk.accept(taken + 6, conversation=PEER[0], sender="another") is Intake.ACCEPTED
    assert await talk.accept(taken + 7, conversation=PEER[0]) is Intake.HELD, "others of its sender wait"
    assert await talk.fetch() == []
    for _ in range(taken):
        await answer(worker)
    fetched = await talk.fetch()
    assert fetched == list(range(taken + 1, taken + 1 + len(fetched)))
    while await talk.supervisor.notes.count():
        await answer(worker)
        await talk.fetch()
    assert await talk.hold(taken + 7, conversation=PEER[0], by_itself=False) is Intake.CONFLICT
    while (job := await worker.take()) is not None:
        await worker.steps.finish(job)
    assert await loads(scene) == {}
    assert await scene.leftovers() == []


async def test_what_nobody_can_verify_yet_waits_at_the_relay_behind_what_was_taken_in(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(most_waiting=1000))
    assert await talk.accept(1) is Intake.ACCEPTED
    assert await talk.hold(2, is_signed=False) is Intake.NOTED
    assert await talk.hold(2, is_signed=False) is Intake.NOTED
    assert await talk.supervisor.notes.count() == 1
    assert await talk.next_seq() == 3
    assert await talk.fetch() == [2]
    for _ in range(2):
        await answer(worker)
    assert await scene.leftovers() == []


async def test_what_waits_at_the_relay_comes_when_half_of_the_room_is_free(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(most_waiting=4))
    notes, budgets = talk.supervisor.notes, msgspec.structs.replace(BUDGETS, waiting_bytes=100_000)
    small = msgspec.structs.replace(budgets, waiting_bytes=10_000)
    for seq in range(1, 6):
        await talk.accept(seq, characters=1000)
    await talk.hold(6)
    [first] = await notes.of(PEER[0])
    assert not await notes.may_come(PEER[0], first, budgets), "the mailbox is more than half full"
    for _ in range(2):
        await answer(worker)
    assert await notes.may_come(PEER[0], first, budgets)
    assert not await notes.may_come(PEER[0], first, small), "the sender has more than half of its share"
    for _ in range(3):
        await answer(worker)
    assert await notes.may_come(PEER[0], first, small)


async def test_a_note_is_small_and_says_behind_which_cursor_its_message_stands(scene: Scene) -> None:
    talk = await bounded_talk(scene)
    await talk.supervisor.store.advance_cursor(None, "m7")
    await talk.hold(1)
    await talk.supervisor.store.advance_cursor("m7", "m9")
    await talk.hold(2)
    found = await talk.supervisor.notes.of(PEER[0])
    assert [(note.seq, note.message_id, note.cursor) for note in found] == [
        (1, f"{CONVERSATION}-1", "m7"),
        (2, f"{CONVERSATION}-2", "m9"),
    ]
    assert await talk.supervisor.notes.senders() == [PEER[0]]


async def test_what_was_taken_in_is_not_noted(scene: Scene) -> None:
    talk = await talk_of(scene)
    await talk.accept(1)
    assert await talk.hold(1, source=Source.POLL) is Intake.DUPLICATE
    assert await talk.supervisor.notes.count() == 0


async def test_beyond_so_many_notes_the_whole_agent_holds(scene: Scene) -> None:
    talk = await talk_of(scene)
    talk.supervisor.store.budgets = msgspec.structs.replace(BUDGETS, most_held=2)
    assert [await talk.hold(seq) for seq in (1, 2, 3)] == [Intake.NOTED] * 3, (
        "the second note stands for all that follow"
    )
    assert await talk.hold(1, sender="another", conversation="another") is Intake.NOT_NOW


async def few_notes(scene: Scene) -> Talk:
    talk = await bounded_talk(scene)
    talk.supervisor.store.budgets = msgspec.structs.replace(BUDGETS, most_held=16)
    return talk


async def test_a_sender_has_a_share_of_the_notes_and_one_more_for_all_that_follows_in_a_conversation(
    scene: Scene,
) -> None:
    talk = await few_notes(scene)
    notes = talk.supervisor.notes
    await talk.supervisor.store.advance_cursor(None, "m7")
    assert [await talk.hold(seq) for seq in range(1, 200)] == [Intake.NOTED] * 199
    found = await notes.of(PEER[0])
    singles, [rest] = [note for note in found if not note.is_open], [note for note in found if note.is_open]
    assert [note.seq for note in singles] == [1, 2, 3, 4]
    assert (rest.seq, rest.last_seq, rest.message_id, rest.cursor) == (5, 199, f"{CONVERSATION}-199", "m7")
    before = await scene.facts()
    for seq in (1, 5, 100, 199):
        assert await talk.hold(seq, source=Source.POLL) is Intake.NOTED, "the poll brings it too"
    assert await scene.facts() == before
    assert await notes.count() == 5
    assert await talk.hold(1, sender="another", conversation="another") is Intake.NOTED
    assert (await talk.supervisor.store.look(CONVERSATION, PEER, bytes(8))).next_seq == 200


async def test_what_an_open_ended_note_stands_for_is_fetched_in_order_while_more_comes_to_it(scene: Scene) -> None:
    talk = await few_notes(scene)
    for seq in range(1, 21):
        await talk.hold(seq)
    assert await talk.fetch() == list(range(1, 21)), "in order, once"
    assert await talk.supervisor.notes.count() == 0
    assert await talk.supervisor.dead.first() == [], "all of them were seen"
    assert not (await talk.supervisor.store.look(CONVERSATION, PEER, bytes(8))).sender_waits
    for seq in range(21, 31):
        await talk.hold(seq)
    rest = (await talk.supervisor.notes.of(PEER[0]))[-1]
    await talk.hold(31)
    before = await talk.supervisor.notes.of(PEER[0])
    assert await talk.supervisor.notes.reached(PEER[0], rest, rest.seq - 1, "of another supervisor, which was slower")
    assert not await talk.supervisor.notes.forget(PEER[0], rest, is_gone=True), "one has come to it meanwhile"
    assert await talk.supervisor.notes.of(PEER[0]) == before
    assert await talk.supervisor.notes.reached(PEER[0], rest, 30, f"{CONVERSATION}-30")
    [*_, rest] = await talk.supervisor.notes.of(PEER[0])
    assert (rest.seq, rest.last_seq, rest.cursor) == (31, 31, f"{CONVERSATION}-30"), "one has come to it meanwhile"


async def test_what_an_open_ended_note_counted_and_nobody_saw_is_a_dead_letter(scene: Scene) -> None:
    talk = await few_notes(scene)
    for seq in range(1, 11):
        await talk.hold(seq)
    *singles, rest = await talk.supervisor.notes.of(PEER[0])
    for note in singles:
        await talk.supervisor.notes.forget(PEER[0], note)
    assert await talk.supervisor.notes.reached(PEER[0], rest, 5, f"{CONVERSATION}-5")
    assert not await talk.supervisor.notes.reached(PEER[0], rest, 10, f"{CONVERSATION}-10"), "6 to 9 never came"
    assert [letter.reason for letter in await talk.supervisor.dead.first()] == ["gone_at_relay"]
    assert await talk.supervisor.notes.count() == 0
    for seq in range(11, 21):
        await talk.hold(seq)
    for note in await talk.supervisor.notes.of(PEER[0]):
        assert await talk.supervisor.notes.forget(PEER[0], note, is_gone=True)
    assert await talk.supervisor.notes.count() == 0


async def test_a_message_that_comes_late_begins_no_open_ended_note(scene: Scene) -> None:
    """Something behind it may have been taken in: that must not be fetched again."""
    talk = await few_notes(scene)
    await talk.accept(30, source=Source.POLL)
    for seq in range(10, 20):
        assert await talk.hold(seq) is Intake.NOTED
    assert not any(note.is_open for note in await talk.supervisor.notes.of(PEER[0]))


async def test_what_came_before_an_open_ended_note_has_one_of_its_own(scene: Scene) -> None:
    talk = await few_notes(scene)
    for seq in (1, 2, 3, 4, 7, 8, 6):
        assert await talk.hold(seq, source=Source.POLL) is Intake.NOTED
    notes = await talk.supervisor.notes.of(PEER[0])
    assert [(note.seq, note.last_seq) for note in notes[4:]] == [(7, 8), (6, None)]


async def test_what_the_relay_has_no_more_is_a_dead_letter_without_content(scene: Scene) -> None:
    talk = await bounded_talk(scene)
    await talk.hold(1)
    [note] = await talk.supervisor.notes.of(PEER[0])
    assert await talk.supervisor.notes.forget(PEER[0], note, is_gone=True)
    assert not await talk.supervisor.notes.forget(PEER[0], note, is_gone=True)
    assert [letter.reason for letter in await talk.supervisor.dead.first()] == ["gone_at_relay"]
    assert await talk.supervisor.notes.count() == 0


# What waits to be sent


async def test_a_conversation_says_no_more_than_a_quarter_of_what_is_free_and_nothing_is_lost(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    talk.supervisor.store.budgets = msgspec.structs.replace(BUDGETS, out_bytes=20_000)
    await talk.supervisor.store.publish_bounds()
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    said = 0
    while await worker.steps.emit(job, str(said), reply("x" * 1000)) is Emitted.QUEUED:
        said += 1
        assert said < 20
    assert 3 <= said <= 6
    assert await worker.steps.finish(job, last=[("last", reply("y"))]) is Finished.FULL
    assert await worker.steps.settle(job, "done", [], last=[("last", reply("y"))]) is Finished.FULL
    assert await worker.steps.emit(job, "0", reply("x" * 1000)) is Emitted.ALREADY
    await talk.accept(1, conversation="another")
    other = await worker.take()
    assert other is not None
    assert await worker.steps.emit(other, "0", reply("x" * 1000)) is Emitted.QUEUED
    assert await worker.steps.emit(other, "1", reply("x" * 1000)) is Emitted.QUEUED, "others have room"
    await loads(scene)
    for number in range(3):
        await talk.send(f"c{number}", 10 + number)
    assert await worker.steps.finish(job, last=[("last", reply("y"))]) is Finished.DONE
    await loads(scene)


async def test_three_thousand_pings_get_one_pong_at_a_time(scene: Scene) -> None:
    talk = await talk_of(scene)
    pong = ReplyPlace("job", CONVERSATION, "!pong", 1)
    packed = pack_reply(pong, reply("pong"), emitted_ms=1, key=BUS_KEY, agent_id=AGENT)
    for seq in range(1, 31):
        assert (
            await talk.supervisor.store.accept(arrival_of(seq, await talk.version()), None, answer=packed)
            is Intake.ACCEPTED
        )
    assert await talk.send("c1", 31) == "!pong"
    assert await talk.supervisor.take_reply() is None
    assert (
        await talk.supervisor.store.accept(arrival_of(32, await talk.version()), None, answer=packed) is Intake.ACCEPTED
    )
    assert await talk.send("c2", 33) == "!pong"
    assert await scene.leftovers() == []
