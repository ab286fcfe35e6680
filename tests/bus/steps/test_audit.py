"""What somebody else has taken out of Redis: the audit starts the conversation again, says so, and loses nothing that is still there."""

from collections.abc import Iterator

import pytest

from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim
from tests.bus.builders import CONVERSATION, reply
from tests.bus.redis_scene import RedisScene
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


@pytest.mark.parametrize("lost", ["replies", "outbox", "due"])
async def test_a_conversation_that_lost_its_place_in_an_index_gets_it_back(redis: RedisScene, lost: str) -> None:
    talk, worker = await talk_and_worker(redis)
    outbox = talk.supervisor.outbox
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    await worker.steps.emit(job, "0", reply("answer"))
    await worker.steps.fail(job, "broke", 0)
    if lost == "outbox":
        await talk.commit(await talk.take_reply(), "c0")
    redis.client.ask("XTRIM", redis.keys.replies, "MAXLEN", 0) if lost == "replies" else redis.client.ask(
        "DEL", getattr(redis.keys, lost)
    )
    assert await audited(talk) == 1
    match lost:
        case "replies":
            assert await talk.send("c0", 2) == "0"
        case "outbox":
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
