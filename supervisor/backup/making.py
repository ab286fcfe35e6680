"""Makes a backup: reads the store (bus/whole/snapshot.py), frames, signs and seals it, and writes it to a sink.

Sealing runs in a thread that asks the event loop for the next bytes, so only a few frames are in memory, however large the store is.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.metadata import version as installed_version
from typing import cast

import trio

from bus.records.keys import Keys as Names
from bus.records.saved import KINDS
from bus.steps.last_backup import LastBackup, note_backup
from bus.transport.client import Commands, RedisClient
from bus.transport.clock import redis_ms
from bus.whole.snapshot import Snapshot
from crypto.keystore import Keystore
from supervisor.backup.contents import BackupKeys, Manifest, encode_frame
from supervisor.backup.counts import BackupCounts
from supervisor.backup.envelope import Lock, Sink
from supervisor.backup.stream import FrameWriter
from supervisor.settings.secrets import Secret


class StoreChanged(Exception):
    """The store's secret was rotated, or another store or an older state of it came in its place, while the backup was made."""

    def __init__(self) -> None:
        super().__init__("the store was rotated or restored, or went back, meanwhile; make the backup again")


class UnknownKinds(Exception):
    """The store has keys of unknown kinds, of a later version of this program."""

    def __init__(self, kinds: set[str]) -> None:
        super().__init__(
            f"this Redis holds keys of kinds that this version does not know ({', '.join(sorted(kinds))}): "
            "make the backup with the version that runs on it"
        )


class Making:
    """Makes one backup of a store. `client` is connected to it, and the store secret opens it."""

    def __init__(self, client: RedisClient, names: Names, keystore: Keystore, store_secret: Secret[bytes]) -> None:
        self._client = client
        self._names = names
        self._keystore = keystore
        self._store_secret = store_secret
        self._here: Commands = client
        self.counts = BackupCounts()
        self._made_ms = self._size_bytes = 0

    async def write(self, lock: Lock, sink: Sink) -> BackupCounts:
        """Writes the whole backup; returns what is in it. If it raises, what `sink` got is of no use.

        Raises RedisFailed, StoreChanged, UnknownKinds, FrameTooLarge, and what `sink` raises.
        """
        await redis_ms(self._client)  # from now on it is connected
        self._here = self._client.on_connection(self._client.connects)
        snapshot = Snapshot(self._here, self._names)
        if unknown := await snapshot.kinds() - KINDS.keys():
            raise UnknownKinds(unknown)
        counted = _Counted(sink)
        async with aclosing(self._bytes(snapshot)) as chunks:
            await trio.to_thread.run_sync(lock.seal, _Pulled(chunks), counted)
        self._size_bytes = counted.size_bytes
        return self.counts

    async def note(self, lock: Lock, place: str) -> None:
        """Notes the backup in the store, for `status` and `doctor`, once its file is complete. Raises RedisFailed."""
        fingerprint = self._keystore.identity.public.fingerprint(self._keystore.agent_id)
        made = LastBackup.of(self._made_ms, self._size_bytes, fingerprint, sealed_to=lock.sealed_to, place=place)
        await note_backup(self._client, self._names.last_backup, made)

    async def _bytes(self, snapshot: Snapshot) -> AsyncGenerator[bytes]:
        writer, store = FrameWriter(), await self._store()
        yield writer.head()
        yield writer.frame(encode_frame(await self._manifest()))
        yield writer.frame(encode_frame(BackupKeys.of(self._keystore, self._store_secret)))
        async with aclosing(snapshot.everything()) as everything:
            async for saved in everything:
                self.counts.add(saved)
                yield writer.frame(encode_frame(saved))
        if await self._store() != store:
            raise StoreChanged
        yield writer.trailer(self._keystore.identity)

    async def _manifest(self) -> Manifest:
        names = self._names
        counters = await self._here.command("MGET", names.write_count, names.epoch)
        writes, epoch = (int(value or 0) for value in cast("list[bytes | None]", counters))
        self._made_ms = await redis_ms(self._here)
        return Manifest(names.agent_id, self._made_ms, installed_version("hashee-agent"), writes, epoch)

    async def _store(self) -> object:
        """Returns what tells a store: its seal, and the epoch, which a restore and the finding that Redis went back raise."""
        seal = await self._here.command("HGETALL", self._names.seal)
        return seal, await self._here.command("GET", self._names.epoch)


class _Counted:
    """A sink that counts the bytes."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.size_bytes += len(data)
        return self._sink.write(data)

    def flush(self) -> None:
        self._sink.flush()


class _Pulled:
    """The source of the sealing thread, whose bytes the event loop makes."""

    def __init__(self, chunks: AsyncGenerator[bytes]) -> None:
        self._chunks = chunks
        self._unread = memoryview(b"")

    def read(self, size: int) -> bytes:
        if not self._unread:
            self._unread = memoryview(trio.from_thread.run(anext, self._chunks, b""))
        taken, self._unread = self._unread[:size], self._unread[size:]
        return bytes(taken)
