"""The numbers of `status` are of all keys, or they are not told."""

from pathlib import Path

from bus.records.keys import Keys
from bus.transport.client import open_redis
from bus.views.overview import KindSize, Overview, Server
from supervisor.run.status import RedisStatus, sessions_of
from tests.redis_server import redis_server
from tests.supervisor.backup.builders import NAMES, filled

SESSIONS = 60_000
FILL = "for i = 1, tonumber(ARGV[1]) do redis.call('HSET', KEYS[1] .. i, 'v', 1) end"


async def status_of(redis_overview: Overview) -> RedisStatus:
    return RedisStatus(
        Server(version="", used_bytes=0, most_bytes=0, uptime_seconds=0, clients=0), 0.0, *await redis_overview.kinds()
    )


async def test_all_sessions_are_counted_or_none(tmp_path: Path) -> None:
    names = Keys("agent")
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            seen = Overview(client, names)
            assert sessions_of(await status_of(seen)) == 0
            await client.command("EVAL", FILL, 1, names.session("person", ""), SESSIONS)
            await client.command("SET", Keys("another").session("person", "device"), "x")
            found = await status_of(seen)
            assert found.kinds == {"session": KindSize(keys=SESSIONS, about_bytes=found.kinds["session"].about_bytes)}
            assert found.kinds["session"].about_bytes > SESSIONS * 30
            assert sessions_of(found) == SESSIONS
            cut = await status_of(Overview(client, names, most_walked=2000))
            assert (cut.kinds_complete, sessions_of(cut)) == (False, None)
    assert sessions_of(None) is None


async def test_open_questions_are_counted_with_their_bytes_and_those_of_journals(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            empty = await Overview(client, NAMES).counts()
            assert (empty.open_waits, empty.waits_bytes, empty.journal_bytes) == (0, 0, 0)
            await filled(client)
            found = await Overview(client, NAMES).counts()
            assert found.open_waits == 1
            assert 200 < found.waits_bytes < 500
            assert 200 < found.journal_bytes < 5000
