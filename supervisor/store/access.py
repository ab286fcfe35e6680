"""Opens the store for a command: an operator's Redis, the running private one, or the private one started for this command.

A Redis that is started here holds the state directory's lock like the keeper's, dies with this process, and ends with the block.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import trio

from bus.records.keys import JOBS_GROUP, REPLIES_GROUP, Keys
from bus.transport.client import RedisClient, RedisUnavailable
from bus.transport.wire import RedisRefused, Value
from bus.views.overview import living_workers
from host import embedded
from host.process_end import ProcessEnd
from host.redis_folder import DATA_FOLDER
from supervisor.keeper.redis_server import RedisDoesNotStart
from supervisor.keeper.state_directory import LOCK_PATIENCE_SECONDS, AlreadyRunning, take_lock
from supervisor.settings.key_settings import KeySettings

POLL_SECONDS = 0.02

TELL_SECONDS = 3.0
"""So long a command waits for its Redis without a word."""

STOP_SECONDS = 10.0

DAMAGED = (
    "a value in Redis is damaged; hashee-agent doctor names it if all conversations share it: docs/runbooks/redis.md"
)


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """When nobody counts as connected any more."""

    idle_ms: int = 4000
    """Of a reader in Redis; a living one asks again every two seconds."""

    patience_seconds: float = 15.0
    """For so long traces are given to go away: the last report of a worker that was killed expires after 12 s."""


QUIET = Quiet()


class NoStore(Exception):
    """There is no store yet."""


@asynccontextmanager
async def private_redis(
    settings: KeySettings, patience_seconds: float = LOCK_PATIENCE_SECONDS
) -> AsyncIterator[embedded.Layout]:
    """Starts the private Redis for the block, if nothing else runs on its state directory. Call it from the main thread.

    Raises NoStore, AlreadyRunning, ServerMissing, RuntimeDirectoryUnsafe, RedisDoesNotStart, StoreDamaged, OSError.
    """
    if not (settings.state_dir / DATA_FOLDER).is_dir():
        raise NoStore(f"there is no store in {settings.state_dir} yet; the first start makes it")
    lock_fd = take_lock(settings.state_dir, patience_seconds)
    try:
        async with server_on(settings.state_dir, settings, lock_fd) as layout:
            yield layout
    finally:
        os.close(lock_fd)


@asynccontextmanager
async def server_on(directory: Path, settings: KeySettings, lock_fd: int) -> AsyncIterator[embedded.Layout]:
    """Starts a private Redis on the files in `directory` for the block. The caller holds the lock; call it from the main thread.

    Raises ServerMissing, RuntimeDirectoryUnsafe, RedisDoesNotStart, StoreDamaged, OSError.
    """
    server = embedded.find_server()
    layout = embedded.prepare(directory, settings.runtime_dir)
    process = embedded.start(server, layout, settings.fsync, lock_fd)
    try:
        await _wait_ready(process, layout)
        yield layout
    finally:
        await _end(process)


@asynccontextmanager
async def reach_store(settings: KeySettings) -> AsyncIterator[str]:
    """Gives the URL of the store's Redis, starting a private one that does not run. Raises as `private_redis`, except AlreadyRunning.

    A RedisRefused of the block gets a note of what helps, if what stands in Redis is its reason.
    """
    try:
        async with _redis_of(settings) as url:
            yield url
    except RedisRefused as refused:
        if refused.is_of_data:
            refused.add_note(DAMAGED)
        raise


@asynccontextmanager
async def _redis_of(settings: KeySettings) -> AsyncIterator[str]:
    if settings.redis_url is not None:
        yield settings.redis_url.reveal()
        return
    try:
        async with private_redis(settings, patience_seconds=0.0) as layout:
            yield layout.url
    except AlreadyRunning:
        yield embedded.prepare(settings.state_dir, settings.runtime_dir).url


async def who_is_connected(client: RedisClient, names: Keys, quiet: Quiet = QUIET) -> str | None:
    """Returns a supervisor or worker that still uses this Redis, else None, after waiting for traces of those that have just ended."""
    someone = await _someone(client, names, quiet)
    with trio.move_on_after(quiet.patience_seconds):
        while someone is not None:
            await trio.sleep(0.5)
            someone = await _someone(client, names, quiet)
    return someone


async def running_supervisor(client: RedisClient, names: Keys) -> str | None:
    """Returns the holder of the reclaimer's lease, else None; the lease outlives a killed supervisor by five seconds."""
    reclaimer = cast("bytes | None", await client.command("GET", names.reclaimer))
    return None if reclaimer is None else reclaimer.decode()


async def _someone(client: RedisClient, names: Keys, quiet: Quiet) -> str | None:
    reclaimer = await running_supervisor(client, names)
    if reclaimer is not None:
        return f"supervisor {reclaimer}"
    for stream, group, kind in ((names.replies, REPLIES_GROUP, "supervisor"), (names.jobs, JOBS_GROUP, "worker")):
        for consumer in await _consumers(client, stream, group):
            if cast(int, consumer["idle"]) < quiet.idle_ms:
                return f"{kind} {cast(bytes, consumer['name']).decode()}"
    living = await living_workers(client, names)
    return next((f"worker {name}" for name in living), None)


async def _consumers(client: RedisClient, stream: str, group: str) -> list[dict[str, Value]]:
    try:
        rows = cast("list[list[Value]]", await client.command("XINFO", "CONSUMERS", stream, group))
    except RedisRefused:
        return []  # no stream or no group yet
    return [{cast(bytes, row[at]).decode(): row[at + 1] for at in range(0, len(row), 2)} for row in rows]


async def rewrite_and_sync(client: RedisClient, layout: embedded.Layout) -> None:
    """Has the append-only file rewritten without its former contents, and forces it to the disk.

    Raises RedisUnavailable, OSError.
    """
    try:
        await client.command("BGREWRITEAOF")
    except RedisRefused as problem:
        if "already in progress" not in str(problem):
            raise
    while True:
        info = cast(bytes, await client.command("INFO", "persistence")).decode()
        state = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        if state["aof_rewrite_in_progress"] == state["aof_rewrite_scheduled"] == "0":
            break
        await trio.sleep(POLL_SECONDS)
    if state["aof_last_bgrewrite_status"] != "ok":
        raise RedisUnavailable("the append-only file could not be rewritten (is the disk full?)")
    await trio.to_thread.run_sync(embedded.sync_files, layout)


async def _wait_ready(process: subprocess.Popen[bytes], layout: embedded.Layout) -> None:
    async with trio.open_nursery() as nursery:

        async def cancel_when_ended() -> None:
            await _ended(process)
            nursery.cancel_scope.cancel()

        nursery.start_soon(cancel_when_ended)
        nursery.start_soon(
            _tell_later, f"no agent runs, so the private Redis is started; it loads its files ({layout.log_path})"
        )
        await embedded.wait_ready(layout)
        nursery.cancel_scope.cancel()
    if process.poll() is not None:
        embedded.refuse_damaged_by_log(layout, process.pid)
        raise RedisDoesNotStart(process.returncode, embedded.last_log_lines(layout))


async def _ended(process: subprocess.Popen[bytes]) -> None:
    end = ProcessEnd(process.pid)
    try:
        await end.wait()
    finally:
        end.close()


async def _end(process: subprocess.Popen[bytes]) -> None:
    with trio.CancelScope(shield=True):
        process.terminate()
        with trio.move_on_after(TELL_SECONDS) as patience:
            await _ended(process)
        if patience.cancelled_caught:
            _tell("the private Redis, started for this command, writes its files and ends")
            with trio.move_on_after(STOP_SECONDS - TELL_SECONDS):
                await _ended(process)
        process.kill()
        process.wait()


async def _tell_later(text: str) -> None:
    await trio.sleep(TELL_SECONDS)
    _tell(text)


def _tell(text: str) -> None:
    """Says on stderr what an operator waits for."""
    with suppress(OSError):
        sys.stderr.write(f"hashee-agent: {text}\n")
        sys.stderr.flush()
