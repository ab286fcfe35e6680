"""Bounds in bytes: whatever waits has a budget of its sender and in all, so that one sender leaves room for the others."""

import pytest

from bus.budgets import EVIDENCE_BYTES, MIB, StoreBudgets
from bus.store import Intake
from tests.bus.builders import CONVERSATION
from tests.bus.scenes import Scene
from tests.bus.talk import Talk, talk_of

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
