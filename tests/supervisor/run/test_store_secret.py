"""A store secret is made for a store that none has opened, and for no other."""

from pathlib import Path

import pytest

from bus.transport.client import open_redis
from bus.transport.wire import RedisFailed
from supervisor.keeper.state_directory import make_private
from supervisor.run.app import open_store
from supervisor.settings.secrets import STORE_SECRET_FILE, StoreSecretMissing, load_store_secret
from supervisor.settings.supervisor import SupervisorSettings
from tests.redis_server import redis_server
from tests.supervisor.cli.keys.running import environ_of, look, make_store, run
from tests.supervisor.settings.environment import process_environ


async def never(error: RedisFailed) -> None:
    raise error


async def test_a_missing_store_secret_is_not_made_anew_for_a_store_that_is_there(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    make_private(state_dir)
    settings = SupervisorSettings.from_environ(process_environ(state_dir, HOME=str(tmp_path)))
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            made = await open_store(client, settings, None, never)
            kept = load_store_secret(settings.state_dir)
            assert kept is not None
            place = settings.state_dir / STORE_SECRET_FILE
            place.unlink()
            with pytest.raises(StoreSecretMissing, match="restore it from a backup"):
                await open_store(client, settings, None, never)
            assert not place.exists()
            assert (await open_store(client, settings, kept, never)).bus.export() == made.bus.export()


async def test_a_store_secret_that_another_made_meanwhile_is_taken(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    make_private(state_dir)
    settings = SupervisorSettings.from_environ(process_environ(state_dir, HOME=str(tmp_path)))
    found = load_store_secret(state_dir)
    assert found is None
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            made = await open_store(client, settings, found, never)
            assert (await open_store(client, settings, found, never)).bus.export() == made.bus.export()


def test_up_without_the_store_secret_of_its_store_ends_with_78_and_touches_nothing(tmp_path: Path) -> None:
    environ = environ_of(tmp_path, HASHEE_BASE_URL="http://127.0.0.1:9")
    before = make_store(environ)
    place = tmp_path / "state" / STORE_SECRET_FILE
    kept = place.read_bytes()
    place.unlink()
    ended = run("up", environ=environ, cwd=tmp_path)
    assert (ended.returncode, place.exists()) == (78, False)
    assert f"{place} is missing" in ended.stdout + ended.stderr
    assert "hashee-agent keys restore" in ended.stdout + ended.stderr
    place.write_bytes(kept)
    assert look(environ) == before
