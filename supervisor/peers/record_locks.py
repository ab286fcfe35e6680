"""One lock for each record of sessions: one task of this process at a time reads and commits it (DESIGN rule 3)."""

from collections.abc import Iterable

import trio

from bus.transport.acquire import acquire

Peer = tuple[str, str]
"""owner_id, device_id."""

MOST_LOCKS = 2000
"""Beyond so many those that nobody holds are forgotten."""


class RecordLocks:
    """The locks of one supervisor."""

    def __init__(self, *, most: int = MOST_LOCKS) -> None:
        self._most = most
        self._locks: dict[Peer, trio.Lock] = {}

    def __len__(self) -> int:
        """How many there are, held or not."""
        return len(self._locks)

    def of(self, peer: Peer) -> trio.Lock:
        """Returns the lock of a record; the same to all who want it while one of them has it."""
        lock = self._locks.get(peer)
        if lock is None:
            if len(self._locks) >= self._most:
                self._locks = {p: held for p, held in self._locks.items() if held.locked()}
            lock = self._locks[peer] = trio.Lock()
        return lock


class Locked:
    """The locks of some records, held for one block; taken in order, so that nothing deadlocks. No generator: each message locks twice."""

    __slots__ = ("_held", "_locks", "_peers")

    def __init__(self, locks: RecordLocks, peers: Iterable[Peer]) -> None:
        self._locks = locks
        self._peers = sorted(set(peers))
        self._held: list[trio.Lock] = []

    async def __aenter__(self) -> None:
        try:
            for peer in self._peers:
                lock = self._locks.of(peer)
                await acquire(lock)
                self._held.append(lock)
        except BaseException:  # cancelled while it waits for the next one
            self._release()
            raise

    async def __aexit__(self, *_raised: object) -> None:
        self._release()

    def _release(self) -> None:
        for lock in self._held:
            lock.release()
