"""A restore into a Redis that is given leaves the old store and nothing else wherever it does not come to its end."""

import base64
import io
from pathlib import Path
from typing import Self, cast

import pytest

from bus.steps.seal import RestoreUnderWay, StoreSeal
from bus.transport.client import Commands, RedisClient, open_redis
from bus.transport.wire import ConnectionReplaced
from bus.whole.restore_switch import RestoreSwitch
from supervisor.backup import restoring
from supervisor.backup.errors import BackupDamaged
from supervisor.backup.restoring import MAY_LACK_SOMETHING, Restore, RestoreRefused, Wishes
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.secrets import RestoreUnfinished
from supervisor.store.access import Quiet
from tests.redis_server import redis_server
from tests.supervisor.backup.builders import (
    FINGERPRINT,
    IDENTITY,
    KEY,
    NAMES,
    SECRET,
    backup_of,
    connect_again,
    connected,
    filled,
)
from tests.supervisor.cli.keys.builders import kinds
from tests.supervisor.settings.environment import agent_environ

NO_LOCK = -1


NOBODY_IS_LEFT = Quiet(idle_ms=0, patience_seconds=0.0)
"""Who was connected is gone."""


class Place:
    """A Redis with a store in it, its backup, and how that is restored into the same Redis."""

    def __init__(self, client: RedisClient, url: str, state_dir: Path) -> None:
        state_dir.mkdir()
        secret = base64.b64encode(SECRET.reveal()).decode()
        given = agent_environ(HASHEE_STATE_DIR=str(state_dir), HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=secret)
        self.client = client
        self.file = io.BytesIO()
        self.wishes = Wishes(FINGERPRINT, over_newer=True)
        self.restore = Restore(
            KeySettings.from_environ(given), IDENTITY.public.pair, self.file, lambda _: KEY, quiet=NOBODY_IS_LEFT
        )

    async def save(self) -> None:
        await filled(self.client)
        workers = cast("list[bytes]", await self.client.command("KEYS", NAMES.presence("*")))
        await self.client.command("DEL", NAMES.reclaimer, *workers)
        self.file.write(await backup_of(self.client))
        await self.client.command("SET", NAMES.cursor, "old")

    async def run(self) -> None:
        await self.restore.run(self.restore.prove(self.wishes), self.wishes, NO_LOCK)

    async def has_old_store(self) -> bool:
        """And it opens, and nothing stands beside it."""
        await StoreSeal(self.client, NAMES).adopt(SECRET.reveal())
        return await self.client.command("GET", NAMES.cursor) == b"old" and "restoring" not in await kinds(self.client)


async def test_it_is_restored_and_while_it_is_nobody_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            place = Place(client, url, tmp_path / "state")
            await place.save()
            seen = []

            class Watched(RestoreSwitch):
                async def decide(self) -> bool:
                    with pytest.raises(RestoreUnderWay, match="restore --finish"):
                        await StoreSeal(client, NAMES).adopt(SECRET.reveal())
                    with pytest.raises(RestoreUnfinished):
                        await place.run()
                    seen.append(await client.command("GET", NAMES.cursor))
                    return await super().decide()

            monkeypatch.setattr(restoring, "RestoreSwitch", Watched)
            await place.run()
            assert seen == [b"old"]
            await StoreSeal(client, NAMES).adopt(SECRET.reveal())
            assert await client.command("EXISTS", NAMES.cursor) == 0


async def test_a_backup_that_changes_between_its_proof_and_its_use_is_not_used(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            place = Place(client, url, tmp_path / "state")
            await place.save()
            proven = place.restore.prove(place.wishes)
            await client.command("SET", NAMES.first_sync, "ended")
            place.file.seek(0)
            place.file.write(await backup_of(client))
            place.file.truncate()
            with pytest.raises(BackupDamaged, match="has changed while it was read"):
                await place.restore.run(proven, place.wishes, NO_LOCK)
            assert await place.has_old_store()


async def test_who_starts_while_it_begins_is_seen_and_the_old_store_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            place = Place(client, url, tmp_path / "state")
            await place.save()

            class Late(RestoreSwitch):
                async def begin(self) -> bool:
                    await client.command("SET", NAMES.reclaimer, "host/7")
                    return await super().begin()

            monkeypatch.setattr(restoring, "RestoreSwitch", Late)
            with pytest.raises(RestoreRefused, match="supervisor host/7 is connected"):
                await place.run()
            assert await place.has_old_store()


async def test_a_backup_that_changes_meanwhile_leaves_nothing_beside_the_store(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            place = Place(client, url, tmp_path / "state")
            await place.save()
            proven = place.restore.prove(place.wishes)
            place.file.truncate(place.file.seek(0, io.SEEK_END) - 1)
            with pytest.raises(BackupDamaged):
                await place.restore.run(proven, place.wishes, NO_LOCK)
            assert await place.has_old_store()


async def test_a_redis_without_room_for_both_stores_is_not_filled(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            place = Place(client, url, tmp_path / "state")
            await place.save()
            await make_nearly_full(client)
            with pytest.raises(RestoreRefused, match=r"MiB of \d+ MiB \(maxmemory\)"):
                await place.run()
            assert await place.has_old_store()


async def test_a_redis_that_becomes_nearly_full_while_it_is_filled_is_filled_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was room when it began; what was prepared until then is removed, and the old store goes on."""
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            place = Place(client, url, tmp_path / "state")
            await place.save()
            begun = []

            class Filling(RestoreSwitch):
                async def begin(self) -> bool:
                    begun.append(await super().begin())
                    await make_nearly_full(client)
                    return begun[0]

            monkeypatch.setattr(restoring, "RestoreSwitch", Filling)
            with pytest.raises(RestoreRefused, match=r"MiB of \d+ MiB \(maxmemory\) with what was prepared so far"):
                await place.run()
            assert begun == [True]
            assert await place.has_old_store()


async def test_where_the_connection_is_another_one_when_it_is_filled_the_old_store_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica may have taken over that lacks some of what was prepared: what is there is not taken for whole."""
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            place = Place(client, url, tmp_path / "state")
            await place.save()

            class Cut(RestoreSwitch):
                connected: RedisClient

                def on(self, client: Commands) -> Self:
                    assert isinstance(self._client, RedisClient)
                    Cut.connected = self._client
                    return super().on(client)

                async def decide(self) -> bool:
                    await connect_again(Cut.connected, url)
                    return await super().decide()

            monkeypatch.setattr(restoring, "RestoreSwitch", Cut)
            with pytest.raises(ConnectionReplaced) as problem:
                await place.run()
            assert problem.value.__notes__ == [MAY_LACK_SOMETHING]
            await connected(client)
            assert await place.has_old_store()


async def make_nearly_full(client: RedisClient) -> None:
    said = cast(bytes, await client.command("INFO", "memory")).decode()
    used = next(int(line.split(":")[1]) for line in said.splitlines() if line.startswith("used_memory:"))
    await client.command("CONFIG", "SET", "maxmemory", int(used / 0.93))


@pytest.mark.parametrize(
    "newer",
    [("INCRBY", NAMES.write_count, 100), ("XADD", NAMES.ledger, "9000000000000-0", "e", "taken")],
    ids=["more was written", "its history goes on"],
)
async def test_over_a_newer_store_it_is_refused_before_anything_is_written(
    tmp_path: Path, newer: tuple[str | int, ...]
) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            place = Place(client, url, tmp_path / "state")
            await place.save()
            await client.command(*newer)
            key = tmp_path / "store.key"
            place.wishes = Wishes(FINGERPRINT, store_key_file=key)
            with pytest.raises(RestoreRefused, match="--over-newer-store"):
                await place.run()
            assert not key.exists()
            assert await place.has_old_store()
