"""DESIGN §3, rule 17, a bus that goes back in time; and a bus in which all is answered (test_rules.py says where the others are)."""

import pytest

from bus.steps.outbox import Committed
from bus.steps.policies import Busy, Policies
from bus.steps.write_count import Found, Proof
from tests.bus.builders import (
    CONVERSATION,
    PEER,
    reply,
)
from tests.bus.scenes import Scene
from tests.bus.talk import Talk, answer, talk_and_worker, talk_of


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
    assert await talk.supervisor.check() is Found.OLDER
    assert talk.supervisor.write_count.epoch == 1
    assert (await talk.commit(entry, "c0", epoch=0)).outcome is Committed.EPOCH
    assert (await talk.commit(entry, "c0")).outcome is Committed.COMMITTED
    assert await talk.supervisor.check() is Found.SAME


async def test_rule_17_supervisors_that_notice_the_same_raise_the_epoch_once(scene: Scene) -> None:
    first, second = await talk_of(scene, "supervisor-1"), await talk_of(scene, "supervisor-2")
    remembered = await scene.remember()
    await first.accept(1)
    await second.accept(2)
    await scene.go_back(remembered)
    assert [await who.supervisor.check(certainly_back=True) for who in (first, second)] == [Found.OLDER, Found.OLDER]
    assert [who.supervisor.write_count.epoch for who in (first, second)] == [1, 1]
    assert [await who.supervisor.check() for who in (first, second)] == [Found.SAME, Found.SAME]


async def test_rule_17_an_epoch_that_others_have_raised_further_stays(scene: Scene) -> None:
    first, second = await talk_of(scene, "supervisor-1"), await talk_of(scene, "supervisor-2")
    for epoch in (1, 2):
        assert await first.supervisor.check(certainly_back=True) is Found.OLDER
        assert first.supervisor.write_count.epoch == epoch
    assert await second.supervisor.check(certainly_back=True) is Found.OLDER
    assert second.supervisor.write_count.epoch == 2


async def test_rule_17_a_redis_that_forgot_its_epoch_gets_a_higher_one_than_was_ever_used(scene: Scene) -> None:
    talk = await talk_of(scene)
    remembered = await scene.remember()
    for epoch in (1, 2, 3):
        await talk.accept(1)
        await scene.go_back(remembered)
        assert await talk.supervisor.check() is Found.OLDER
        assert talk.supervisor.write_count.epoch == epoch


async def test_rule_17_what_others_write_first_does_not_hide_that_a_commit_is_lost(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    other = await talk_of(scene, "supervisor-2")
    await talk.accept(1)
    await answer(worker, "0")
    remembered = await scene.remember()
    await talk.send("c0", 2)
    await scene.go_back(remembered)
    for seq in range(2, 20):
        await other.accept(seq)
    assert (await scene.facts()).write_count > talk.supervisor.write_count.highest
    assert await talk.supervisor.check() is Found.OLDER


async def test_rule_17_another_server_has_to_hold_every_commit_that_was_witnessed(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker, "0")
    await talk.send("c0", 2)
    assert talk.supervisor.write_count.commits == 1

    async def found(proof: Proof) -> Found:
        return await (await scene.supervisor("next")).check(proof)

    assert await found(Proof("server", commits=9)) is Found.SAME, "what one process holds does not go back"
    assert await found(Proof("second", ("first", "server"), commits=1)) is Found.SAME
    assert await found(Proof("third", ("second",), commits=2)) is Found.OLDER
    assert await found(Proof("fourth", ("third",), commits=2)) is Found.SAME, "the count goes on from the highest"
    assert await found(Proof("fifth", ("third",), commits=2)) is Found.OTHER
    assert await found(Proof("sixth")) is Found.OTHER
    assert await found(Proof("sixth")) is Found.SAME


async def test_rule_17_a_store_of_a_version_that_noted_no_server_proves_nothing(scene: Scene) -> None:
    old = Talk(await scene.supervisor("of a former version"))
    await old.accept(1)
    assert await old.supervisor.check(Proof("server", ("another",))) is Found.UNPROVEN
    assert old.supervisor.write_count.epoch == 1


async def test_rule_17_nothing_is_lost_where_nothing_was_ever_written(scene: Scene) -> None:
    first = await scene.supervisor("first")
    assert await first.check(Proof("server", ("another",), commits=3)) is Found.SAME
    assert first.write_count.epoch == 0


async def test_rule_17_how_many_commits_there_are_is_told_before_what_was_committed_leaves(scene: Scene) -> None:
    """By whoever sends the bytes: at a commit, at its repetition, and at a resend by another."""
    talk, worker = await talk_and_worker(scene)
    other = await talk_of(scene, "supervisor-2")
    told, told_other = list[int](), list[int]()
    talk.supervisor.write_count.on_commit = told.append
    other.supervisor.write_count.on_commit = told_other.append
    await talk.accept(1)
    await answer(worker, "0")
    entry = await talk.take_reply()
    assert (await talk.commit(entry, "c0")).outcome is Committed.COMMITTED
    assert told == [1]
    assert (await other.commit(entry, "c0")).outcome is Committed.ALREADY
    assert told_other == [1]
    assert await other.supervisor.outbox.resend(CONVERSATION, former_holder="supervisor-1") is not None
    assert told_other == [1, 1]


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
