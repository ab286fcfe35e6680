"""DESIGN §3, rules 1 to 3, of what cannot be read yet: what a message in quarantine may change, and what it may not (see test_rules.py)."""

from collections.abc import Iterator

import msgspec
import pytest

from bus.steps.letters import DeadLetter
from bus.steps.store import Intake, Source
from tests.bus.builders import CONVERSATION, PEER, arrival_of, job_of
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import Scene
from tests.bus.talk import Talk, answer, talk_and_worker, talk_of


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    scene.close()


async def pinned(talk: Talk) -> tuple[str | None, str | None]:
    look = await talk.supervisor.store.look(CONVERSATION, PEER, bytes(8))
    return look.kind, look.person


@pytest.mark.parametrize("is_kept", [True, False])
async def test_rule_1_what_is_pushed_out_of_sequence_is_neither_kept_nor_noted(scene: Scene, is_kept: bool) -> None:
    talk = await talk_of(scene)
    before = await scene.facts()
    outcome = await (talk.quarantine(3, source=Source.PUSH) if is_kept else talk.hold(3, source=Source.PUSH))
    assert outcome is Intake.GAP
    assert (await scene.facts(), await talk.next_seq()) == (before, 1)
    assert (await talk.supervisor.quarantine.count(), await talk.supervisor.notes.count()) == (0, 0)


async def test_rule_3_what_was_judged_by_a_session_that_has_moved_is_judged_again(scene: Scene) -> None:
    talk = await talk_of(scene)
    await talk.accept(1)
    stale = msgspec.structs.replace(arrival_of(2, 0, source=Source.POLL), session=None)
    assert await talk.supervisor.store.quarantine(stale, reason="no_session", frame=b"frame") is Intake.CONFLICT
    assert (await talk.next_seq(), await talk.supervisor.quarantine.count()) == (2, 0)


async def test_rule_3_what_nobody_has_proven_to_have_signed_pins_nothing(scene: Scene) -> None:
    talk = await talk_of(scene)
    assert await talk.quarantine(1, is_signed=False) is Intake.ACCEPTED
    assert await pinned(talk) == (None, None)
    assert await talk.quarantine(2) is Intake.ACCEPTED
    assert await pinned(talk) == ("h2a", PEER[0])


async def test_rule_2_a_verified_message_takes_the_place_of_its_unverified_copy_which_is_counted_no_more(
    scene: Scene,
) -> None:
    talk = await talk_of(scene)
    outcomes = [await talk.quarantine(1, is_signed=is_signed) for is_signed in (False, True, True)]
    assert outcomes == [Intake.ACCEPTED, Intake.LATE, Intake.DUPLICATE]
    found = await talk.supervisor.quarantine.find(f"{CONVERSATION}-1")
    assert found is not None
    assert found.is_signed
    assert await talk.requeue(1) is Intake.ACCEPTED
    await answer(await scene.worker("worker-1"))
    assert await scene.leftovers() == []


async def test_rule_3_out_of_quarantine_nothing_is_read_with_a_stale_session_or_a_used_prekey(scene: Scene) -> None:
    talk = await talk_of(scene)
    inbound = talk.supervisor.store
    await talk.quarantine(1)
    await talk.accept(2)
    used = msgspec.structs.replace(arrival_of(1, await talk.version()), used_one_time_prekey=7)
    for arrival in (arrival_of(1, 0), used):
        assert await inbound.requeue(arrival, job_of(1)) is Intake.CONFLICT
    assert (await talk.supervisor.quarantine.count(), await talk.knows(1)) == (1, False)
    await scene.add_prekey(7)
    assert await inbound.requeue(used, job_of(1)) is Intake.ACCEPTED


async def test_rule_3_what_can_be_read_at_last_pins_and_meets_the_pins(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2):
        await talk.quarantine(seq, is_signed=False)
    assert await talk.requeue(1) is Intake.ACCEPTED
    assert await pinned(talk) == ("h2a", PEER[0])
    for changed in ({"kind": "group"}, {"person": "another"}):
        other = msgspec.structs.replace(arrival_of(2, await talk.version()), **changed)
        assert await talk.supervisor.store.requeue(other, job_of(2)) is Intake.CONFLICT
    assert await talk.requeue(2) is Intake.ACCEPTED
    assert [await answer(worker) for _ in range(2)] == ["message 1", "message 2"]
    assert await scene.leftovers() == []


async def test_of_what_came_again_and_cannot_be_read_the_oldest_notes_go(redis: RedisScene) -> None:
    talk = await talk_of(redis)
    talk.supervisor.store.budgets = msgspec.structs.replace(talk.supervisor.store.budgets, most_old=3)
    for seq in range(1, 6):
        assert await talk.supervisor.store.note_old(arrival_of(seq, 0), "key_used") is Intake.OLD
    assert redis.client.ask("ZCARD", redis.keys.old) == 3


async def test_what_has_left_is_given_up_and_brought_back_no_more(redis: RedisScene) -> None:
    talk = await talk_of(redis)
    quarantine = talk.supervisor.quarantine
    await talk.quarantine(1)
    assert await quarantine.drop(f"{CONVERSATION}-1")
    before = redis.contents()
    assert not await quarantine.drop(f"{CONVERSATION}-1")
    gone = DeadLetter("1-1", "broke", job_of(1), 1, 1, 0)
    assert await talk.supervisor.dead.retry(gone) == "gone"
    assert not await talk.supervisor.dead.drop(gone)
    assert redis.contents() == before
