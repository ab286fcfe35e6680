"""What somebody else has taken out of Redis: the audit starts the conversation again, says so, and loses nothing that is still there."""

from collections.abc import Iterator

import pytest

from bus.records.keys import JOBS_GROUP
from bus.steps.job_steps import Emitted, Finished
from bus.steps.placing import Placed
from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim
from tests.bus.builders import CONVERSATION, placed_job, reply
from tests.bus.redis_scene import RedisScene, RedisWorker
from tests.bus.talk import Talk, answer, talk_and_worker


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    scene.close()


async def audited(talk: Talk) -> int:
    return await talk.supervisor.recovery.audit(await talk.supervisor.store.now_ms() + 1)


async def test_a_conversation_whose_job_was_trimmed_away_goes_on_with_the_next(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    await talk.accept(1)
    await talk.accept(2)
    assert await worker.take() is not None
    redis.client.ask("XTRIM", redis.keys.jobs, "MAXLEN", 0)
    before = (await redis.facts()).write_count
    assert await audited(talk) == 1
    assert (await redis.facts()).write_count > before
    assert await answer(worker) == "message 2"
    assert await audited(talk) == 0
    await talk.reclaim(Reclaim())
    assert await talk.supervisor.recovery.holders(talk.supervisor.recovery.jobs) == []


async def test_a_run_whose_job_was_taken_out_writes_nothing_beside_the_next_one(redis: RedisScene) -> None:
    """The audit has begun the next job meanwhile: what is kept, and that job, are no longer the first one's."""
    talk, worker = await talk_and_worker(redis)
    other = await redis.worker("other")
    await talk.accept(1)
    lost = await worker.take()
    assert lost is not None
    await talk.accept(2)
    redis.client.ask("XDEL", redis.keys.jobs, lost.entry_id)
    assert await audited(talk) == 1
    job = await other.take()
    assert job is not None
    assert isinstance(worker, RedisWorker)
    effects = [worker.steps.state_effect(lost, b"of the lost one")]
    assert await worker.steps.settle(lost, "done", effects) is Finished.FENCED
    assert await worker.steps.finish(lost) is Finished.FENCED
    assert await worker.steps.emit(lost, "0", reply("of the lost one")) is Emitted.FENCED
    assert await other.steps.finish(job) is Finished.DONE
    assert redis.client.ask("EXISTS", redis.keys.kept_in(CONVERSATION).state) == 0


async def test_what_was_handled_together_with_a_lost_job_is_kept_as_dead_letters(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis, Policies(busy="coalesce"))
    for seq in (1, 2, 3):
        await talk.accept(seq)
    job = await worker.take()
    assert job is not None
    await worker.steps.start(job)
    redis.client.ask("DEL", redis.keys.jobs)
    assert await audited(talk) == 1
    assert [letter.reason for letter in await talk.supervisor.dead.first()] == ["lost", "lost"]


async def test_a_placed_job_that_a_former_version_let_rest_with_its_conversation_is_run(redis: RedisScene) -> None:
    """Its scripts know nothing of placed jobs: they end the conversation's last message and let it rest."""
    talk, worker = await talk_and_worker(redis)
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    assert await talk.supervisor.placing.place(placed_job("digest")) is Placed.PLACED
    client, keys = redis.client, redis.keys
    client.ask("XACK", keys.jobs, JOBS_GROUP, job.entry_id)
    client.ask("XDEL", keys.jobs, job.entry_id)
    client.ask("HDEL", keys.conversation(CONVERSATION), "entry", "seq", "began", "frozen", "load")
    client.ask("ZREM", keys.busy, CONVERSATION)
    assert await audited(talk) == 1
    assert client.ask("ZCARD", keys.behind) == 0
    assert (await redis.facts()).busy == {CONVERSATION}
    assert await answer(worker) == "digest"
    assert await audited(talk) == 0
    assert await redis.leftovers() == []


async def test_a_placed_job_waits_behind_what_is_parked_also_where_the_mailbox_was_taken_away(
    redis: RedisScene,
) -> None:
    talk, worker = await talk_and_worker(redis, Policies(full="park", most_waiting=1))
    for seq in (1, 2, 3):
        await talk.accept(seq)
    await talk.supervisor.placing.place(placed_job("digest"))
    redis.client.ask("DEL", redis.keys.mailbox(CONVERSATION))
    redis.client.ask("SET", redis.keys.waiting, 0)
    assert [await answer(worker) for _ in range(3)] == ["message 1", "message 3", "digest"]


async def test_while_a_placed_job_waits_behind_a_long_one_its_conversation_is_looked_after_again(
    redis: RedisScene,
) -> None:
    talk, worker = await talk_and_worker(redis)
    await talk.accept(1)
    await talk.supervisor.placing.place(placed_job("digest"))
    await redis.time_passes(120_000)
    assert await audited(talk) == 0
    assert redis.client.ask("ZCARD", redis.keys.behind) == 1
    assert await answer(worker) == "message 1"
    assert await answer(worker) == "digest"
    assert await audited(talk) == 0
    assert redis.client.ask("EXISTS", redis.keys.behind) == 0


@pytest.mark.parametrize("lost", ["replies", "resend_times", "due"])
async def test_a_conversation_that_lost_its_place_in_an_index_gets_it_back(redis: RedisScene, lost: str) -> None:
    talk, worker = await talk_and_worker(redis)
    outbox = talk.supervisor.outbox
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await worker.steps.emit(job, "0", reply("answer"))
    await worker.steps.fail(job, "broke", 0)
    if lost == "resend_times":
        await talk.commit(await talk.take_reply(), "c0")
    redis.client.ask("XTRIM", redis.keys.replies, "MAXLEN", 0) if lost == "replies" else redis.client.ask(
        "DEL", getattr(redis.keys, lost)
    )
    assert await audited(talk) == 1
    match lost:
        case "replies":
            assert await talk.send("c0", 2) == "0"
        case "resend_times":
            assert await outbox.resend(CONVERSATION) is not None
        case _:
            assert await talk.start_due() == 1
    assert await audited(talk) == 0


async def test_what_waits_behind_nothing_is_started(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    for seq in (1, 2):
        await talk.accept(seq)
    job = await worker.take()
    assert job is not None
    for place in ("0", "1"):
        await worker.steps.emit(job, place, reply("answer"))
    redis.client.ask("HDEL", redis.keys.conversation(CONVERSATION), "entry", "reply")
    for stream in (redis.keys.jobs, redis.keys.replies):
        redis.client.ask("XTRIM", stream, "MAXLEN", 0)
    assert await audited(talk) == 2
    assert await answer(worker) == "message 2"
    assert await talk.send("c0", 3) == "0"
    assert await audited(talk) == 0
