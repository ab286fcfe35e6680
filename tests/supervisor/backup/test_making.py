"""A backup as a whole: it holds what the store held, in flat memory, and none is left behind of a store that failed meanwhile."""

import io
import os
import tracemalloc
from pathlib import Path

import pytest
import redis
import trio

from bus.transport.client import open_redis
from bus.transport.wire import ConnectionReplaced
from crypto.identity import IdentityKeys
from supervisor.backup.envelope import AgeFile
from supervisor.backup.errors import BackupDamaged, WrongAuthor
from supervisor.backup.looking import Inspection
from supervisor.backup.making import Making, StoreChanged, UnknownKinds
from supervisor.backup.reading import read_backup
from supervisor.backup.stream import BackupDecoder, FrameWriter
from supervisor.settings.secrets import Secret
from tests.redis_server import redis_server
from tests.supervisor.backup.builders import (
    AGE,
    FINGERPRINT,
    IDENTITY,
    KEY,
    KEYSTORE,
    LOCK,
    NAMES,
    SECRET,
    connect_again,
    filled,
    read,
)
from tests.supervisor.settings.environment import AGENT_ID


async def test_what_was_saved_is_counted_alike_where_it_is_read_and_each_value_opens(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            sink = io.BytesIO()
            made = await (await filled(client)).write(LOCK, sink)
    proven, look = read(sink.getvalue(), FINGERPRINT)
    assert look.counts.rows() == made.rows()
    assert made["sessions"] == 4
    assert made["dead letters"] == 3
    assert look.checking is not None
    assert look.checking.keys is not None
    assert set(look.checking.unreadable) <= {"grant_log"}  # whose MACs are none in that store
    assert look.checking.opened > 30
    assert (proven.author, proven.store_secret) == (IDENTITY.public, SECRET)
    assert (proven.manifest.agent_id, proven.manifest.writes > 0) == (AGENT_ID, True)
    for text in (repr(proven), repr(KEY)):
        assert "AGE-SECRET" not in text
        assert SECRET.reveal().hex() not in text
    with pytest.raises(WrongAuthor):
        read(sink.getvalue(), bytes(16))


async def test_a_store_under_another_secret_than_the_one_beside_it_is_told(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await filled(client)
            sink = io.BytesIO()
            await Making(client, NAMES, KEYSTORE, Secret(bytes(32))).write(LOCK, sink)
    checking = read(sink.getvalue())[1].checking
    assert checking is not None
    assert checking.keys is None


@pytest.mark.parametrize("change", [("HSET", NAMES.seal, "next", "x"), ("INCR", NAMES.epoch)], ids=["rotated", "back"])
async def test_of_a_store_that_becomes_another_meanwhile_no_backup_is_made(
    tmp_path: Path, change: tuple[str, ...]
) -> None:
    """Rotated; or restored, or gone back, both of which raise the epoch and may leave the same seal."""
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            making = await filled(client)
            for number in range(40):  # more than one chunk of what is sealed
                await client.command("HSET", NAMES.session("p", f"{number}"), "v", 1, "b", bytes(5000), "e", 0)
            other = redis.Redis.from_url(url)

            class Rotating(io.BytesIO):
                def write(self, data: object, /) -> int:
                    if self.tell() > 1:  # the backup is under way
                        other.execute_command(*change)
                    return super().write(data)  # type: ignore[arg-type]

            with pytest.raises(StoreChanged):
                await making.write(LOCK, Rotating())
            other.close()


async def test_where_the_connection_is_another_one_in_the_middle_no_backup_is_made(tmp_path: Path) -> None:
    """A replica may lack a part of it, and a cluster's node from which the slot has gone has none of it."""
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            making = await filled(client)
            for number in range(40):
                await client.command("HSET", NAMES.session("p", f"{number}"), "v", 1, "b", bytes(5000), "e", 0)

            class Cutting(io.BytesIO):
                def write(self, data: object, /) -> int:
                    if self.tell() > 1:
                        trio.from_thread.run(connect_again, client, url)
                    return super().write(data)  # type: ignore[arg-type]

            with pytest.raises(ConnectionReplaced):
                await making.write(LOCK, Cutting())


async def test_of_a_store_of_a_later_version_no_backup_is_made(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            making = await filled(client)
            await client.command("SET", NAMES.of("novelty", "x"), "1")
            with pytest.raises(UnknownKinds, match="novelty"):
                await making.write(LOCK, io.BytesIO())


async def test_what_the_disk_says_is_told_as_it_was(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, _data: object, /) -> int:
            raise OSError(28, "No space left on device")

    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            with pytest.raises(OSError, match="No space left"):
                await (await filled(client)).write(LOCK, Full())


async def test_neither_making_nor_reading_it_takes_memory_for_the_whole_store(tmp_path: Path) -> None:
    names, size = NAMES, 40_000
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            making = await filled(client)
            for number in range(1000):
                await client.command("HSET", names.session("p", f"{number}"), "v", 1, "b", bytes(size), "e", 0)
            with (tmp_path / "file").open("w+b") as file:
                tracemalloc.start()
                try:
                    await making.write(LOCK, file)
                    assert file.tell() > 1000 * size
                    assert tracemalloc.get_traced_memory()[1] < 600 * size, (
                        "three pages of sessions, and not all of them"
                    )
                    tracemalloc.reset_peak()
                    file.seek(0)
                    look = Inspection()
                    read_backup(file, lambda _: KEY, look, FINGERPRINT)
                    assert look.counts["sessions"] > 1000
                    assert tracemalloc.get_traced_memory()[1] < 100 * size, "a frame or two at a time"
                finally:
                    tracemalloc.stop()


async def test_one_who_seals_and_signs_a_copy_with_keys_of_their_own_is_found_out(tmp_path: Path) -> None:
    """Whoever can open a backup can make another of it; not one that the agent has signed."""
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            sink = io.BytesIO()
            await (await filled(client)).write(LOCK, sink)
    frames = BackupDecoder()
    opened = io.BytesIO()
    AgeFile(io.BytesIO(sink.getvalue())).open_with_identities(Secret(str(AGE)), opened)
    bodies = list(frames.feed(opened.getvalue()))
    writer, forger = FrameWriter(), IdentityKeys.generate(os.urandom)
    copied = [writer.head(), *(writer.frame(body) for body in bodies), writer.trailer(forger)]
    forged = io.BytesIO()
    LOCK.seal(io.BytesIO(b"".join(copied)), forged)
    with pytest.raises(BackupDamaged, match="signed with other keys than those that it holds"):
        read(forged.getvalue())
