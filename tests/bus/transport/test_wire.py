"""The one connection: it comes back however often Redis was away."""

from pathlib import Path

import pytest

from bus.transport.lua import Scripts
from bus.transport.wire import RedisUnavailable, Wire
from tests.redis_server import running_redis

ATTEMPTS = 250  # redis-py's own pool refuses after 100


def test_a_connection_comes_back_however_often_it_could_not_be_made(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        wire = Wire(server.url, Scripts.load(), answer_timeout_seconds=2.0)
        server.kill()
        for _ in range(ATTEMPTS):
            with pytest.raises(RedisUnavailable, match=r"Connect|No such file"):
                wire.call([("PING",)])
        server.start()
        assert wire.call([("PING",)]) == [b"PONG"]
        wire.close()
