"""Each script of `keys rotate-store` changes nothing where it does not find what was read: a worker may have been quicker."""

from collections.abc import Iterator

import pytest

from bus.records.keys import JOBS_GROUP
from tests.bus.builders import CONVERSATION
from tests.bus.redis_scene import RedisScene
from tests.bus.talk import answer, talk_and_worker


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    scene.close()


async def test_a_value_that_has_changed_stays(redis: RedisScene) -> None:
    ask, write_count = redis.client.ask, redis.keys.write_count
    ask("HSET", "hash", "name", "present")
    ask("RPUSH", "list", "present")
    ask("ZADD", "mailbox", 7, "present")
    ask("SET", "string", "present")
    for read, changes in ((b"former", 0), (b"present", 1)):
        assert await redis.client.script("reseal_field", ["hash", write_count], "name", read, b"new") == changes
        assert await redis.client.script("reseal_item", ["list", write_count], 0, read, b"new") == changes
        assert await redis.client.script("reseal_member", ["mailbox", write_count], read, b"new") == changes
        assert await redis.client.script("reseal_string", ["string", write_count], read, b"new") == changes
        now = b"new" if changes else b"present"
        assert ask("GET", "string") == now
        assert (ask("HGET", "hash", "name"), ask("LRANGE", "list", 0, -1)) == (now, [now])
        assert ask("ZRANGE", "mailbox", 0, -1, "WITHSCORES") == [now, b"7"]
        assert int(ask("GET", write_count) or 0) == changes * 4  # type: ignore[arg-type]


async def test_a_reply_that_has_changed_stays_in_its_out_box_and_under_way(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    await talk.accept(1)
    await answer(worker, "0")
    keys, before = redis.keys, redis.contents()
    names = [keys.out_box(CONVERSATION), keys.replies, keys.conversation(CONVERSATION), keys.write_count]
    assert await redis.client.script("reseal_reply", names, 0, b"former", b"new") == 0
    assert redis.contents() == before


async def test_a_job_that_has_changed_keeps_its_entry(redis: RedisScene) -> None:
    talk, _ = await talk_and_worker(redis)
    await talk.accept(1)
    keys, before = redis.keys, redis.contents()
    entry = redis.client.ask("HGET", keys.conversation(CONVERSATION), "entry")
    assert isinstance(entry, bytes)
    names = [keys.jobs, keys.conversation(CONVERSATION), keys.write_count]
    for which in (entry, b"1-1"):
        assert await redis.client.script("reseal_entry", names, which, b"former", b"new", JOBS_GROUP, "entry") == 0
    assert redis.contents() == before


@pytest.mark.parametrize(
    ("letters", "copied"),
    [
        pytest.param("123", "12", id="one-has-come"),
        pytest.param("2", "12", id="one-was-dropped"),
        pytest.param("13", "12", id="one-was-dropped-and-one-has-come"),
        pytest.param("", "12", id="all-were-dropped"),
        pytest.param("12", "1", id="not-all-were-copied"),
    ],
)
async def test_a_copy_of_other_dead_letters_does_not_take_their_place(
    redis: RedisScene, letters: str, copied: str
) -> None:
    ask, names = redis.client.ask, ["dead", "copy", redis.keys.write_count]
    for stream, numbers in (("dead", letters), ("copy", copied)):
        for number in numbers:
            ask("XADD", stream, f"{number}-1", "r", "sealed")
    assert await redis.client.script("reseal_swap", names, 2, "2-1") == 0
    assert (ask("XLEN", "dead"), ask("XLEN", "copy")) == (len(letters), len(copied))


async def test_a_copy_of_all_dead_letters_takes_their_place(redis: RedisScene) -> None:
    ask, names = redis.client.ask, ["dead", "copy", redis.keys.write_count]
    for stream, value in (("dead", "sealed"), ("copy", "sealed anew")):
        ask("XADD", stream, "1-1", "r", value)
    assert await redis.client.script("reseal_swap", names, 1, "1-1") == 1
    assert ask("XRANGE", "dead", "-", "+") == [[b"1-1", [b"r", b"sealed anew"]]]
    assert ask("EXISTS", "copy") == 0
