"""The ratchet sessions as the supervisor holds them: read, decode, seal; one unanswered commit per record (DESIGN rule 3).

A record is one peer device with all its sessions. Decoded records are kept by version, so that a conversation that stays here
decodes nothing; what another supervisor has changed has another version and is read again.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import trio

from bus.store import Look, SessionWrite
from bus.vault import Vault, Versioned
from crypto.sessions import EMPTY_RECORD, DeviceRecord

MOST_DECODED = 2000

Peer = tuple[str, str]
"""owner_id, device_id."""


class Loaded(msgspec.Struct, frozen=True):
    """A record as it was read. `epoch`: that of the commit that wrote it."""

    record: DeviceRecord
    version: int
    epoch: int

    def __repr__(self) -> str:
        return f"Loaded(version={self.version}, epoch={self.epoch}, …)"


class Sessions:
    """The records of one agent."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._locks: dict[Peer, trio.Lock] = {}
        self._decoded: OrderedDict[Peer, tuple[int, DeviceRecord]] = OrderedDict()

    @asynccontextmanager
    async def locked(self, peers: Iterable[Peer]) -> AsyncIterator[None]:
        """Nobody else of this process reads and commits these records meanwhile. Taken in order, so that nothing deadlocks."""
        async with AsyncExitStack() as stack:
            for peer in sorted(set(peers)):
                await stack.enter_async_context(self._lock(peer))
            yield

    async def load(self, peer: Peer) -> Loaded:
        """The record as it stands in Redis now."""
        return self._decode(peer, await self._vault.session(*peer))

    def looked_up(self, peer: Peer, look: Look) -> Loaded:
        """The record that was read together with a look at the conversation."""
        kept = self._decoded.get(peer)
        if kept is not None and kept[0] == look.session_version:
            return Loaded(kept[1], look.session_version, look.session_epoch)
        read = self._vault.open_session(*peer, look.session_version, look.session_sealed, look.session_epoch)
        return self._decode(peer, read)

    def seal(self, peer: Peer, read: Loaded, record: DeviceRecord) -> SessionWrite:
        """The record as the successor of the one read; becomes true with its commit."""
        return self._vault.seal_session(*peer, Versioned(read.version, b"", read.epoch), record.encode())

    def committed(self, peer: Peer, read: Loaded, record: DeviceRecord) -> None:
        """The commit has happened: keep the record decoded."""
        self._decoded[peer] = (read.version + 1, record)
        self._decoded.move_to_end(peer)
        while len(self._decoded) > MOST_DECODED:
            self._decoded.popitem(last=False)

    def _decode(self, peer: Peer, read: Versioned) -> Loaded:
        kept = self._decoded.get(peer)
        if kept is not None and kept[0] == read.version:
            return Loaded(kept[1], read.version, read.epoch)
        record = EMPTY_RECORD if read.value is None else DeviceRecord.decode(read.value)
        return Loaded(record, read.version, read.epoch)

    def _lock(self, peer: Peer) -> trio.Lock:
        lock = self._locks.get(peer)
        if lock is None:
            if len(self._locks) >= MOST_DECODED:
                self._locks = {p: held for p, held in self._locks.items() if held.locked()}
            lock = self._locks[peer] = trio.Lock()
        return lock
