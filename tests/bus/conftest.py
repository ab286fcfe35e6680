"""A bus for each test: in memory, and in a real Redis that a module's tests share one after the other."""

from collections.abc import Iterator

import pytest

from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import MemoryScene, Scene
from tests.redis_server import redis_server


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["memory", "redis"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    made: Scene = MemoryScene() if request.param == "memory" else RedisScene(request.getfixturevalue("redis_url"))
    yield made
    made.close()
