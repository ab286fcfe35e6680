"""A recall and a reaction leave the out-box once the relay has heard them, and what stands behind them is sent."""

from bus.records.records import Reply, decode_reply_record
from tests.bus.builders import CONVERSATION, reply
from tests.bus.scenes import Scene
from tests.bus.talk import Talk, talk_and_worker

RECALL = Reply(kind="recall", content_type="recall", payload={"job_id": "job", "place": "0"})


async def with_an_act(scene: Scene) -> tuple[Talk, str]:
    """An act is the head of the out-box, a text stands behind it, and the job has ended."""
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await worker.steps.finish(job, last=[("0", RECALL), ("1", reply("behind it"))])
    return talk, (await talk.take_reply()).id


async def test_an_act_that_was_done_leaves_and_the_next_reply_comes(scene: Scene) -> None:
    talk, entry = await with_an_act(scene)
    assert await talk.supervisor.outbox.acted(CONVERSATION, entry, answers=("job", "0"), what="recalled")
    assert not await talk.supervisor.outbox.acted(CONVERSATION, entry, answers=("job", "0"), what="recalled")
    await talk.send("c1", 2)
    assert await scene.leftovers() == []


async def test_who_lost_the_act_changes_nothing(scene: Scene) -> None:
    talk, entry = await with_an_act(scene)
    other = await scene.supervisor("supervisor-2")
    before = await scene.facts()
    assert not await other.outbox.acted(CONVERSATION, entry, answers=("job", "0"), what="recalled")
    assert not await talk.supervisor.outbox.acted("another", entry, answers=("job", "0"), what="recalled")
    assert await scene.facts() == before
    assert await talk.supervisor.outbox.acted(CONVERSATION, entry, answers=("job", "0"), what="recalled")
    assert (await scene.facts()).write_count == before.write_count + 1


async def test_a_supervisor_that_knows_no_acts_leaves_them_to_one_that_does(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await worker.steps.emit(job, "0", RECALL)
    packed = (await talk.take_reply()).fields["r"]
    assert decode_reply_record(packed).schema == 2, "which a version that reads up to 1 leaves pending"
