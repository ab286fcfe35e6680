"""Reads, decodes and seals the records of ratchet sessions; one unanswered commit per record (DESIGN rule 3).

A record is one peer device with all its sessions. Decoded records are kept, so that a conversation that stays here decodes nothing;
what another supervisor has changed has other bytes and is read again.
"""

from collections import OrderedDict
from collections.abc import Iterable

import msgspec
import structlog

from bus.records.sealing import SealBroken
from bus.steps.store import ConversationSnapshot, SessionWrite
from bus.steps.vault import StoreIsNewer, Vault
from bus.steps.write_count import WriteCount
from bus.transport.client import Commands
from crypto.errors import NewerFormat, Unreadable
from crypto.renewal import never_sent_on_again
from crypto.sessions import EMPTY_RECORD, DeviceRecord, forget_prekey
from supervisor.peers.record_locks import Locked, Peer, RecordLocks

MOST_DECODED = 2000
"""Records that are kept decoded; the one that was committed longest ago leaves first, and is read from Redis again."""

log = structlog.get_logger()


class Loaded(msgspec.Struct, frozen=True):
    """A record as it was read. `epoch`: that of the commit that wrote it."""

    record: DeviceRecord
    version: int
    epoch: int

    def __repr__(self) -> str:
        return f"Loaded(version={self.version}, epoch={self.epoch}, …)"


class _Kept(msgspec.Struct, frozen=True):
    """A record as this process has committed it, and under which epoch.

    `verified_connection`: the connection that was verified when an inbound message committed it; None when a reply did.
    """

    sealed: bytes
    record: DeviceRecord
    version: int
    epoch: int
    verified_connection: Commands | None = None

    def __repr__(self) -> str:
        return f"_Kept(version={self.version}, epoch={self.epoch}, …)"


class Sessions:
    """The session records of one agent."""

    def __init__(self, vault: Vault, write_count: WriteCount, *, most_decoded: int = MOST_DECODED) -> None:
        self._vault = vault
        self._most_decoded = most_decoded
        self._write_count = write_count
        self._locks = RecordLocks()
        self._kept_signed_prekeys: frozenset[int] | None = None
        self._decoded: OrderedDict[Peer, _Kept] = OrderedDict()

    def locked(self, peers: Iterable[Peer]) -> Locked:
        """Returns a lock to be entered: no other task of this process reads and commits these records while it is held."""
        return Locked(self._locks, peers)

    async def peek(self, peer: Peer) -> Loaded:
        """Reads the record without its lock: others may move it meanwhile."""
        return self._moved_here(peer) or self._open(peer, *await self._vault.read_session(*peer))

    async def load(self, peer: Peer) -> Loaded:
        """Reads the record as it stands in Redis now. The caller holds its lock."""
        version, sealed, epoch = await self._vault.read_session(*peer)
        self._doubt_what_is_older(peer, version)
        return self._open(peer, version, sealed, epoch)

    async def load_to_send(self, peer: Peer) -> Loaded:
        """Returns the record as an inbound message has just left it here, else as it stands in Redis now. The caller holds its lock.

        A record that was not read is right unless another supervisor has moved it since: then the commit is stale, and the next time it
        is read. That commit runs on the connection that was verified when the message came, or not at all: Redis cannot have gone back.
        """
        moved = self._moved_here(peer)
        if moved is None:
            return await self.load(peer)
        self._decoded[peer] = msgspec.structs.replace(self._decoded[peer], verified_connection=None)
        return moved

    def _moved_here(self, peer: Peer) -> Loaded | None:
        kept, verified = self._decoded.get(peer), self._write_count.verified_connection
        if kept is None or kept.verified_connection is None or kept.verified_connection is not verified:
            return None
        return Loaded(kept.record, kept.version, kept.epoch) if kept.epoch == self._write_count.epoch else None

    def of_snapshot(self, peer: Peer, snapshot: ConversationSnapshot) -> Loaded:
        """Returns the record that was read with a conversation's snapshot. The caller holds the record's lock."""
        self._doubt_what_is_older(peer, snapshot.session_version)
        return self._open(peer, snapshot.session_version, snapshot.session_sealed, snapshot.session_epoch)

    def _doubt_what_is_older(self, peer: Peer, version: int) -> None:
        """Doubts Redis if it has an older record than this process has committed: sent with, it would use its keys a second time (P4)."""
        kept = self._decoded.get(peer)
        if kept is not None and version < kept.version and kept.epoch == self._write_count.epoch:
            log.error("session: older than what was stored", owner=peer[0], device=peer[1], version=version)
            self._write_count.is_doubted = True

    def seal(self, peer: Peer, read: Loaded, record: DeviceRecord) -> SessionWrite:
        """Returns the record sealed as the successor of the one that was read. Nothing is written before its commit."""
        return self._vault.seal_session(*peer, read.version, self._without_erased(record).encode())

    def keep_only_dropped_of(self, signed_prekeys: frozenset[int]) -> None:
        """Called with the signed prekeys that are left: dropped sessions that named others need not be remembered any more."""
        self._kept_signed_prekeys = signed_prekeys

    def _without_erased(self, record: DeviceRecord) -> DeviceRecord:
        """Returns the record without the dropped sessions whose prekey is erased: until then they are remembered (PROTOCOL §5.4)."""
        if self._kept_signed_prekeys is not None:
            for prekey_id in {prekey_id for prekey_id, _ in record.dropped} - self._kept_signed_prekeys:
                record = forget_prekey(record, prekey_id)
        return record

    def committed(self, write: SessionWrite, record: DeviceRecord) -> None:
        """Called after the commit of a reply: keeps the record decoded."""
        self._keep(write, record, None)

    def taken_in(self, write: SessionWrite, record: DeviceRecord) -> None:
        """Called after the commit of an inbound message: most likely its answer is the next to move the record, from here."""
        self._keep(write, record, self._write_count.verified_connection)

    async def never_send_on_again(self, peer: Peer, now_ms: int) -> bool:
        """Notes that none of the peer's sessions is sent on again. False if that was so already.

        Works without the record's lock: whoever holds that finds another version at the commit, and reads again.
        """
        while True:
            read = self._open(peer, *await self._vault.read_session(*peer))
            record = never_sent_on_again(read.record, epoch=self._write_count.epoch, now_ms=now_ms)
            if record is read.record:
                return False
            write = self.seal(peer, read, record)
            if await self._vault.put_session(write):
                self.committed(write, record)
                return True

    def _keep(self, write: SessionWrite, record: DeviceRecord, verified_connection: Commands | None) -> None:
        peer = (write.owner_id, write.device_id)
        self._decoded[peer] = _Kept(
            write.sealed, record, write.version + 1, self._write_count.epoch, verified_connection
        )
        self._decoded.move_to_end(peer)
        while len(self._decoded) > self._most_decoded:
            self._decoded.popitem(last=False)

    def _open(self, peer: Peer, version: int, sealed: bytes | None, epoch: int) -> Loaded:
        if sealed is None:
            return Loaded(EMPTY_RECORD, version, epoch)
        kept = self._decoded.get(peer)  # compared by its bytes: after Redis went back, a version alone may be another's
        if kept is not None and kept.sealed == sealed:
            return Loaded(kept.record, version, epoch)
        try:
            record = DeviceRecord.decode(self._vault.open_session(*peer, version, sealed))
        except NewerFormat as error:
            raise StoreIsNewer(f"session with {peer[0]}: {error}; upgrade this one") from None
        except (SealBroken, Unreadable) as error:
            # The store secret as a whole was proven at start: this record is damaged, and as good as lost. Its sessions are
            # started again, which costs the messages under way in them.
            log.error("session: the stored record does not open", owner=peer[0], device=peer[1], reason=str(error))
            record = EMPTY_RECORD
        return Loaded(record, version, epoch)
