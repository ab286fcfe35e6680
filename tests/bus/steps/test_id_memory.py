"""The times that the memory of ids keeps, by which a message is `stale`: those of what was dropped from it, and never of the future."""

from collections.abc import Iterator

import msgspec
import pytest

from bus.steps.store import InboundStore, Intake
from tests.bus.builders import AGENT, CONVERSATION, PEER, arrival_of
from tests.bus.redis_scene import RedisScene

TRIMMED_AT = 1536
ID_BYTES = 8


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    scene.close()


async def accept(redis: RedisScene, seq: int, message_ms: int) -> int:
    """A message of this time is taken in; the latest time dropped from memory afterwards."""
    store = InboundStore(redis.client, AGENT, "supervisor-1")
    arrival = msgspec.structs.replace(arrival_of(seq, 0), session=None, message_ms=message_ms)
    assert await store.accept(arrival, None) is Intake.ACCEPTED
    return (await store.look(CONVERSATION, PEER, bytes(ID_BYTES))).dropped_ms


def full_memory(redis: RedisScene, **times: int) -> None:
    """The next id makes the first block go."""
    redis.client.ask("SET", redis.keys.ids(CONVERSATION), b"x" * (TRIMMED_AT - 1) * ID_BYTES)
    redis.client.ask("HSET", redis.keys.conversation(CONVERSATION), *(part for pair in times.items() for part in pair))


async def test_a_block_has_the_latest_time_in_it_whatever_comes_after(redis: RedisScene) -> None:
    assert await accept(redis, 1, 5000) == 0
    assert await accept(redis, 2, 10) == 0
    redis.client.ask("DEL", redis.keys.ids(CONVERSATION))
    assert await accept(redis, 3, 1) == 5000, "all of it has expired"


async def test_all_that_expired_is_as_old_as_its_latest_block(redis: RedisScene) -> None:
    redis.client.ask("HSET", redis.keys.conversation(CONVERSATION), "td", 1000, "t0", 2000, "t1", 4000, "t2", 3000)
    look = await InboundStore(redis.client, AGENT, "supervisor-1").look(CONVERSATION, PEER, bytes(ID_BYTES))
    assert look.dropped_ms == 4000
    assert await accept(redis, 1, 1) == 4000
    assert redis.client.ask("HMGET", redis.keys.conversation(CONVERSATION), "t0", "t1", "t2") == [b"1", None, None]


@pytest.mark.parametrize(("before", "first_block", "after"), [(900, 500, 900), (500, 900, 900)])
async def test_the_latest_time_dropped_only_rises(redis: RedisScene, before: int, first_block: int, after: int) -> None:
    full_memory(redis, td=before, t0=first_block, t1=700, t2=800)
    assert await accept(redis, 1, 600) == after
    assert redis.client.ask("STRLEN", redis.keys.ids(CONVERSATION)) == 1024 * ID_BYTES
    assert redis.client.ask("HMGET", redis.keys.conversation(CONVERSATION), "t0", "t1", "t2") == [b"700", b"800", None]


async def test_a_time_of_the_future_is_now_when_it_is_dropped(redis: RedisScene) -> None:
    """As older versions could write it, and a clock that was set back."""
    store = InboundStore(redis.client, AGENT, "supervisor-1")
    later = await store.now_ms() + 3_600_000
    full_memory(redis, t0=later)
    assert 0 < await accept(redis, 1, 600) <= await store.now_ms()
    redis.client.ask("DEL", redis.keys.ids(CONVERSATION))
    redis.client.ask("HSET", redis.keys.conversation(CONVERSATION), "t0", later)
    assert 0 < await accept(redis, 2, 600) <= await store.now_ms()
