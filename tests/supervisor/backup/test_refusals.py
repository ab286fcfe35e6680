"""What a restore refuses once the backup is proven and before anything is touched: it would stand beside what does not belong to it."""

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from bus.transport.client import open_redis
from bus.transport.wire import RedisFull
from crypto.identity import IdentityKeys
from supervisor.backup import restoring
from supervisor.backup.restoring import Restore, RestoreRefused, Wishes, write_once
from supervisor.keeper.state_directory import take_lock
from supervisor.settings.key_settings import KeySettings
from tests.redis_server import redis_server
from tests.supervisor.backup.builders import FINGERPRINT, IDENTITY, KEY, SECRET, backup_of, filled
from tests.supervisor.settings.environment import STORE_KEY, agent_environ

ANOTHER_AGENT = "01906abc-0000-7000-8000-00000000000a"
OWN_REDIS = {"HASHEE_REDIS_URL": "redis://h"}
ITS_KEY = base64.b64encode(SECRET.reveal()).decode()


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    async def make() -> bytes:
        async with open_redis(url) as client:
            await filled(client)
            return await backup_of(client)

    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield trio.run(make)


def prove(backup: bytes, state_dir: Path, given: dict[str, str], wishes: Wishes, identity: IdentityKeys) -> None:
    settings = KeySettings.from_environ(agent_environ(**{"HASHEE_STATE_DIR": str(state_dir), **given}))
    Restore(settings, identity.public.pair, io.BytesIO(backup), lambda _: KEY).prove(wishes)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"HASHEE_AGENT_ID": ANOTHER_AGENT}, "HASHEE_AGENT_ID names another"),
        ({"HASHEE_STORE_KEY": STORE_KEY}, "HASHEE_STORE_KEY is another store secret"),
        (OWN_REDIS, "needs HASHEE_STORE_KEY"),
    ],
)
def test_settings_of_another_store_are_refused_and_the_remedy_is_named(
    backup: bytes, tmp_path: Path, given: dict[str, str], text: str
) -> None:
    with pytest.raises(RestoreRefused, match=text):
        prove(backup, tmp_path, given, Wishes(FINGERPRINT), IDENTITY)
    assert list(tmp_path.iterdir()) == []


def test_other_identity_keys_are_refused(backup: bytes, tmp_path: Path) -> None:
    other = IdentityKeys.generate(lambda size: bytes(range(size)))
    with pytest.raises(RestoreRefused, match="other identity keys than the backup"):
        prove(backup, tmp_path, {}, Wishes(FINGERPRINT), other)


@pytest.mark.parametrize("given", [{}, {**OWN_REDIS, "HASHEE_STORE_KEY": ITS_KEY}])
def test_what_belongs_to_it_is_not_refused(backup: bytes, tmp_path: Path, given: dict[str, str]) -> None:
    prove(backup, tmp_path, given, Wishes(FINGERPRINT), IDENTITY)
    key_file = Wishes(FINGERPRINT, store_key_file=tmp_path / "new")
    prove(backup, tmp_path, {**OWN_REDIS, "HASHEE_STORE_KEY": STORE_KEY}, key_file, IDENTITY)


@pytest.mark.parametrize(
    ("problem", "note"),
    [(RedisFull("MISCONF No space left on device"), "has no room beside the old one in"), (OSError(5, "I/O"), None)],
    ids=["a full disk", "a bad one"],
)
async def test_what_was_prepared_is_removed_where_the_disk_ends_it(
    backup: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception, note: str | None
) -> None:
    """It would keep the disk full, for the old store too."""

    async def fail(*_: object) -> None:
        assert (tmp_path / "restoring" / "redis").is_dir()
        raise problem

    monkeypatch.setattr(restoring, "rewrite_and_sync", fail)
    settings = KeySettings.from_environ(agent_environ(HASHEE_STATE_DIR=str(tmp_path)))
    restore = Restore(settings, IDENTITY.public.pair, io.BytesIO(backup), lambda _: KEY)
    wishes, lock = Wishes(FINGERPRINT), take_lock(tmp_path)
    try:
        with pytest.raises(type(problem)) as raised:
            await restore.run(restore.prove(wishes), wishes, lock)
    finally:
        os.close(lock)
    assert names_in(tmp_path) == ["lock"]
    assert [note in one for one in getattr(raised.value, "__notes__", []) if note] == ([True] if note else [])


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.pure
def test_a_key_of_an_earlier_attempt_may_be_there_and_another_stays(tmp_path: Path) -> None:
    for _ in range(2):
        write_once(tmp_path / "key", b"the same")
    with pytest.raises(RestoreRefused, match="holds something else"):
        write_once(tmp_path / "key", b"another")
    assert (tmp_path / "key").read_bytes() == b"the same"
