"""A Redis that is full: what waits for a decision is shown and let go of all the same, which makes room."""

from pathlib import Path

import redis
import trio

from bus.steps.seal import StoreSeal
from bus.transport.client import open_redis
from tests.redis_server import running_redis
from tests.supervisor.cli.keys.builders import fill
from tests.supervisor.cli.keys.running import NAMES, environ_of, run
from tests.supervisor.settings.environment import STORE_KEY

STORE_SECRET = bytes(range(64, 96))  # STORE_KEY


def test_dead_letters_are_listed_and_dropped_while_redis_takes_no_writes(tmp_path: Path) -> None:
    async def make(url: str) -> None:
        async with open_redis(url) as client:
            await fill(client, await StoreSeal(client, NAMES).adopt(STORE_SECRET))

    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        trio.run(make, server.url)
        client.config_set("maxmemory", 1)
        environ = environ_of(tmp_path, HASHEE_REDIS_URL=server.url, HASHEE_STORE_KEY=STORE_KEY)
        listed = run("dead", "list", environ=environ, cwd=tmp_path)
        assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 3), listed.stderr
        dropped = run("dead", "drop", "--all", "--yes", environ=environ, cwd=tmp_path)
        assert (dropped.returncode, dropped.stdout) == (0, "3 dropped\n"), dropped.stderr
        assert client.xlen(NAMES.dead) == 0
