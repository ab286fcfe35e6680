"""DESIGN §3, rule 17, a bus that goes back in time; and a bus in which all is answered (test_rules.py says where the others are)."""

import pytest

from bus.outbox import Committed
from bus.policies import Busy, Policies
from tests.bus.builders import (
    CONVERSATION,
    PEER,
    reply,
)
from tests.bus.scenes import Scene
from tests.bus.talk import answer, talk_and_worker, talk_of


async def test_rule_17_a_commit_of_one_who_has_seen_more_says_that_redis_went_back(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker, "0")
    remembered = await scene.remember()
    for seq in range(2, 9):
        await talk.accept(seq)
    await scene.go_back(remembered)
    entry = await talk.take_reply()
    assert (await talk.commit(entry, "c0")).outcome is Committed.WENT_BACK
    assert await talk.supervisor.check()
    assert talk.supervisor.generation.epoch == 1
    assert (await talk.commit(entry, "c0", epoch=0)).outcome is Committed.EPOCH
    assert (await talk.commit(entry, "c0")).outcome is Committed.COMMITTED
    assert not await talk.supervisor.check()


async def test_rule_17_supervisors_that_notice_the_same_raise_the_epoch_once(scene: Scene) -> None:
    first, second = await talk_of(scene, "supervisor-1"), await talk_of(scene, "supervisor-2")
    remembered = await scene.remember()
    await first.accept(1)
    await second.accept(2)
    await scene.go_back(remembered)
    assert [await who.supervisor.check(certainly_back=True) for who in (first, second)] == [True, True]
    assert [who.supervisor.generation.epoch for who in (first, second)] == [1, 1]
    assert [await who.supervisor.check() for who in (first, second)] == [False, False]


async def test_rule_17_an_epoch_that_others_have_raised_further_stays(scene: Scene) -> None:
    first, second = await talk_of(scene, "supervisor-1"), await talk_of(scene, "supervisor-2")
    for epoch in (1, 2):
        assert await first.supervisor.check(certainly_back=True)
        assert first.supervisor.generation.epoch == epoch
    assert await second.supervisor.check(certainly_back=True)
    assert second.supervisor.generation.epoch == 2


async def test_rule_17_a_redis_that_forgot_its_epoch_gets_a_higher_one_than_was_ever_used(scene: Scene) -> None:
    talk = await talk_of(scene)
    remembered = await scene.remember()
    for epoch in (1, 2, 3):
        await talk.accept(1)
        await scene.go_back(remembered)
        assert await talk.supervisor.check()
        assert talk.supervisor.generation.epoch == epoch


async def test_rule_17_a_session_tells_of_which_epoch_it_is(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker, "0")
    await talk.supervisor.check(certainly_back=True)
    assert (await talk.supervisor.store.look(CONVERSATION, PEER, bytes(8))).session_epoch == 0
    await talk.send("c0", 2)
    assert (await talk.supervisor.store.look(CONVERSATION, PEER, bytes(8))).session_epoch == 1


@pytest.mark.parametrize("busy", ["queue", "interrupt", "coalesce"])
async def test_when_all_is_answered_nothing_is_left(scene: Scene, busy: Busy) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy=busy, most_waiting=3, full="park"))
    for seq in range(1, 8):
        await talk.accept(seq)
    while (job := await worker.take()) is not None:
        started = await worker.steps.start(job)
        if started.outcome == "started":
            await worker.steps.emit(job, "0", reply("answer"))
        await worker.steps.finish(job)
    count = 0
    while await talk.supervisor.outbox.all() or (await scene.facts()).at_work:
        await talk.send(f"c{count}", 8 + count)
        count += 1
    assert count == {"queue": 7, "interrupt": 1, "coalesce": 2}[busy]
    facts = await scene.facts()
    assert (facts.waiting, facts.busy) == (0, frozenset())
    assert await scene.leftovers() == []
