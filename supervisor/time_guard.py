"""A Redis that goes back in time (failover, power loss, a restored backup) must not make the ratchet fork (DESIGN rule 17).

Every commit names the highest write count that this process has seen, and runs only on a connection on which was looked: so none is made
on an older state unnoticed. What was seen stands in the state directory too, for a process that starts after Redis and all supervisors
went down together.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
import trio

from bus.client import RedisClient
from bus.generation import Generation
from bus.keys import Keys
from bus.wire import RedisFailed
from supervisor.metrics import Metrics
from supervisor.redis_trouble import said_trouble

NOTE_SECONDS = 1.0
FILE = "redis-seen.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = structlog.get_logger()


class Seen(msgspec.Struct, frozen=True):
    """What the state directory remembers. `server`: of a Redis that is given, its replication id; `boot`: of this host."""

    count: int = 0
    epoch: int = 0
    server: str = ""
    boot: str = ""


class TimeGuard:
    """One supervisor's; `is_private`: Redis is the keeper's own, on this host's disk."""

    def __init__(
        self,
        client: RedisClient,
        keys: Keys,
        generation: Generation,
        metrics: Metrics,
        *,
        state_dir: Path,
        is_private: bool,
    ) -> None:
        self._client = client
        self._keys = keys
        self._generation = generation
        self._metrics = metrics
        self._file = state_dir / FILE
        self._is_private = is_private
        self.on_back: Callable[[], None] = lambda: None
        """Told that Redis went back: the cursor did too, and what the relay has since is polled again."""
        self._seen: Seen | None = Seen()
        self._noted = Seen()
        self._has_begun = False
        self._looking = trio.Lock()

    async def begin(self) -> None:
        """Before anything is sent: compare with what was seen before this process. Raises RedisFailed."""
        self._seen = await trio.to_thread.run_sync(_read, self._file)
        if self._seen is not None:
            self._generation.seen(self._seen.count)
            self._generation.epoch = max(self._generation.epoch, self._seen.epoch)
        await self.look_again()

    async def look_again(self) -> None:
        """A commit found an older count or another epoch, or the connection is a new one. Raises RedisFailed."""
        async with self._looking:
            connection = (
                self._client.connects
            )  # one that is made while we look is another: then who commits looks again
            server = await self._server()
            reason = self._certain_reason(server)
            highest, epoch = self._generation.highest, self._generation.epoch
            is_back = await self._generation.check(self._client, self._keys, certainly_back=reason is not None)
            if is_back or (
                self._has_begun and self._generation.epoch > epoch
            ):  # found here, or by another supervisor first
                self._metrics.went_back.inc()
                self.on_back()
                log.error(
                    "redis: went back in time; sessions are started anew",
                    reason=reason or ("an older state than was seen" if is_back else "another supervisor says so"),
                    seen=highest,
                    epoch=self._generation.epoch,
                )
            self._generation.looked_at = self._client.on_connection(connection)
            self._has_begun = True
            self._seen = Seen(self._generation.highest, self._generation.epoch, server, _boot_id())
            await self._note(self._seen)

    async def run(self) -> None:
        """Look once a second and note what was seen, until cancelled."""
        trouble = said_trouble("time guard")
        while True:
            await trio.sleep(NOTE_SECONDS)
            try:
                await self.look_again()
            except RedisFailed as error:
                trouble.met(error)
            else:
                trouble.over()

    def _certain_reason(self, server: str) -> str | None:
        """What says by itself that writes may be gone which nobody counted."""
        seen = self._seen
        if seen is None:
            return "what was seen before is not readable"
        if self._is_private:
            # The file is on the disk once a second only: what the kernel held at a power cut is gone.
            return "the host was started again" if seen.boot not in ("", _boot_id()) else None
        return "another server, or one that lost its history" if seen.server not in ("", server) else None

    async def _server(self) -> str:
        """Its replication id: a failover or a restart from a file changes it."""
        if self._is_private:
            return ""
        text = await self._client.command("INFO", "replication")
        lines = text.decode().splitlines() if isinstance(text, bytes) else []
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        return facts.get("master_replid", "")

    async def _note(self, now: Seen) -> None:
        """In a thread: a disk that is slow must not hold up the loop. One that is full costs the memory of this second only."""
        if now == self._noted:
            return
        try:
            await trio.to_thread.run_sync(_write, self._file, now)
        except OSError as error:
            log.error("state directory: cannot be written", file=FILE, errno=error.errno)
        else:
            self._noted = now


def _write(file: Path, seen: Seen) -> None:
    fresh = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(seen))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(file)


def _read(file: Path) -> Seen | None:
    """None: it is there and cannot be read, which is as bad as the worst that could stand in it."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Seen)
    except FileNotFoundError:
        return Seen()
    except (OSError, msgspec.DecodeError):
        log.error("state directory: what was seen of Redis is not readable", file=file.name)
        return None


def _boot_id() -> str:
    return BOOT_ID.read_text(encoding="utf-8").strip()
