"""A worker sees whether workers of another version are there: of the program, or of the handlers' code."""

from collections.abc import Iterator

import msgspec
import pytest

from bus.records.presence import Presence
from tests.bus.redis_scene import RedisScene, RedisWorker

MINE = Presence(
    consumer="mine",
    host="here",
    pid=1,
    version="1.0",
    handler="shop:agent",
    concurrency=1,
    started_ms=1,
    running=0,
    jobs_done=0,
    jobs_failed=0,
    rss_bytes=1,
    loop_lag_ms=0.0,
    code="a",
)


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    scene.close()


@pytest.mark.parametrize(
    ("other", "is_another"),
    [
        (None, False),
        (msgspec.json.encode(msgspec.structs.replace(MINE, consumer="other", pid=2, running=1)), False),
        (msgspec.json.encode(msgspec.structs.replace(MINE, consumer="other", code="b")), True),
        (msgspec.json.encode(msgspec.structs.replace(MINE, consumer="other", version="0.9", code="")), True),
        (b'{"of": "a later version"}', True),
    ],
    ids=["nobody", "the same", "other code", "a former version", "one that cannot be read"],
)
async def test_rule_10_of_threads_a_worker_sees_those_of_another_version(
    redis: RedisScene, other: bytes | None, is_another: bool
) -> None:
    worker = await redis.worker("mine")
    assert isinstance(worker, RedisWorker)
    for name, report in (("mine", b"{}"), ("other", other), ("gone", None)):
        redis.client.ask("ZADD", redis.keys.consumers, 1, name)
        if report is not None:
            redis.client.ask("SET", redis.keys.presence(name), report)
    assert await worker.steps.is_beside_another_version(MINE) is is_another
