"""`keys rotate-store` as a process: killed with SIGKILL at several moments, refused while somebody is connected."""

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from bus.records.keys import REPLIES_GROUP, Keys
from bus.steps.seal import StoreSeal
from bus.transport.client import open_redis
from supervisor.keeper.state_directory import AlreadyRunning, take_lock
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.secrets import RotationUnfinished, load_store_secret
from supervisor.store.access import Quiet, private_redis, who_is_connected
from tests.redis_server import redis_server
from tests.supervisor.cli.keys.builders import fill, opened
from tests.supervisor.cli.keys.running import Onlooker, environ_of, look, make_store, rotate_until, run
from tests.supervisor.settings.environment import AGENT_ID, STORE_KEY

SESSIONS = 800


def test_killed_at_any_moment_it_is_completed_by_the_next_run_and_nothing_starts_before(tmp_path: Path) -> None:
    environ = environ_of(tmp_path)
    state_dir = tmp_path / "state"
    before = make_store(environ, sessions=SESSIONS)
    old = (state_dir / "store.secret").read_bytes()
    onlooker = Onlooker(state_dir)
    moments: dict[str, Callable[[], bool]] = {
        "begun": onlooker.has_next_secret,
        "half": lambda: any(onlooker.turned(session) for session in range(0, SESSIONS, 150)),
        "finished": onlooker.is_finished_in_redis,
    }
    for moment_has_come in moments.values():
        rotate_until(moment_has_come, environ=environ, cwd=tmp_path)
        assert (state_dir / "store.secret").read_bytes() == old
        assert (state_dir / "store.secret.next").stat().st_mode & 0o777 == 0o600
        with pytest.raises(RotationUnfinished, match="hashee-agent keys rotate-store"):
            load_store_secret(state_dir)
        assert run("keys", "bus", environ=environ, cwd=tmp_path).returncode == 78
    done = run("keys", "rotate-store", environ=environ, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(key epoch 1)" in done.stdout
    assert look(environ) == before
    assert (state_dir / "store.secret").read_bytes() != old
    assert not onlooker.has_next_secret()


def test_no_file_of_the_private_redis_holds_a_value_under_the_old_secret(tmp_path: Path) -> None:
    environ = environ_of(tmp_path)
    make_store(environ)
    under_the_old = b"\x01" + bytes(4)  # its header: format 1, key epoch 0
    assert any(under_the_old in path.read_bytes() for path in append_only_files(tmp_path))
    assert run("keys", "rotate-store", environ=environ, cwd=tmp_path).returncode == 0
    assert not any(under_the_old in path.read_bytes() for path in append_only_files(tmp_path))


def append_only_files(directory: Path) -> list[Path]:
    return list((directory / "state" / "redis" / "appendonlydir").glob("*.aof"))


def test_it_is_refused_while_an_agent_runs_on_the_state_directory(tmp_path: Path) -> None:
    environ = environ_of(tmp_path)
    make_store(environ)
    lock = take_lock(tmp_path / "state")
    try:
        with pytest.raises(AlreadyRunning):
            trio.run(reach_at_once, environ)
    finally:
        os.close(lock)


async def reach_at_once(environ: dict[str, str]) -> None:
    async with private_redis(KeySettings.from_environ(environ), patience_seconds=0.0):
        pytest.fail("it was reached")


async def test_a_redis_of_ones_own_is_left_alone_while_a_supervisor_reads_from_it(tmp_path: Path) -> None:
    soon = Quiet(patience_seconds=0.1)
    names = Keys(AGENT_ID)
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            assert await who_is_connected(client, names, soon) is None
            await client.command("XGROUP", "CREATE", names.replies, REPLIES_GROUP, "0", "MKSTREAM")
            await client.command("XGROUP", "CREATECONSUMER", names.replies, REPLIES_GROUP, "host-1-2")
            assert await who_is_connected(client, names, soon) == "supervisor host-1-2"
            await client.command("XGROUP", "DELCONSUMER", names.replies, REPLIES_GROUP, "host-1-2")
            await client.command("SET", names.reclaimer, "host-1-3", "PX", 5000)
            assert await who_is_connected(client, names, soon) == "supervisor host-1-3"
            await client.command("DEL", names.reclaimer)
            await client.command("ZADD", names.consumers, 1, "elsewhere-7")  # by a clock that is far behind
            await client.command("SET", names.presence("elsewhere-7"), "of another release")
            assert await who_is_connected(client, names, soon) == "worker elsewhere-7"


async def test_a_store_key_from_outside_is_written_to_the_named_file_and_opens_everything(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        environ = environ_of(tmp_path, HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY)
        async with open_redis(url) as client:
            keys = await StoreSeal(client, Keys(AGENT_ID)).adopt(bytes(range(64, 96)))
            await fill(client, keys)
            before = await opened(client, keys)
            without = run("keys", "rotate-store", environ=environ, cwd=tmp_path)
            assert (without.returncode, "--new-key-file" in without.stderr) == (2, True)
            new_key = tmp_path / "new.key"
            done = run("keys", "rotate-store", "--force", "--new-key-file", str(new_key), environ=environ, cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert str(new_key) in done.stdout
            assert new_key.stat().st_mode & 0o777 == 0o600
            assert new_key.read_text(encoding="utf-8").strip() not in done.stdout
            shown = environ_of(tmp_path, HASHEE_STORE_KEY_FILE=str(new_key))
            line = run("keys", "bus", environ=shown, cwd=tmp_path).stdout
            rotated = await StoreSeal(client, Keys(AGENT_ID)).adopt(
                base64.b64decode(new_key.read_text(encoding="utf-8"))
            )
            assert await opened(client, rotated) == before
            assert line == f"HASHEE_BUS_KEY={base64.b64encode(rotated.bus.export()).decode()}\n"
