"""Which replies this supervisor has taken, and their leases (DESIGN rule 13).

A reply that was taken holds its lease until it is settled or given back. Nothing here knows what a reply says or how it is sent.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from bus.records.records import BadRecord, decode_reply_record
from bus.steps.outbox import Outbox
from bus.transport.acquire import acquire
from bus.transport.backoff import Backoff
from bus.transport.leases import LeaseKeeper
from bus.transport.readers import RedisStreamReader, StreamEntry
from bus.transport.wire import RedisFailed
from supervisor.relay.connection import Connection
from supervisor.settings.pauses import PAUSES, Pauses

SLOTS: Final = 64
"""Replies in work at once, each of another conversation. Enough to hide the relay's and Redis' round trips."""

Attempt = Callable[[StreamEntry], Awaitable[float | None]]
"""Tries to send a reply once. Returns None when nothing is left to do for it, else the seconds to wait at least before the next try."""

log = structlog.get_logger()


class Taking:
    """Takes replies while there is a connection, and keeps the lease of each until it is settled."""

    def __init__(
        self,
        reader: RedisStreamReader,
        leases: LeaseKeeper,
        outbox: Outbox,
        connection: Connection,
        pauses: Pauses = PAUSES,
    ) -> None:
        self._reader = reader
        self._leases = leases
        self._outbox = outbox
        self._connection = connection
        self._pauses = pauses
        self._slots = trio.Semaphore(SLOTS, max_value=SLOTS)
        self._under_way: dict[str, trio.CancelScope] = {}
        self._commit_begun: set[str] = set()
        self._taking = trio.CancelScope()

    @property
    def under_way(self) -> int:
        """Number of replies that were taken and are not committed, given up or given back."""
        return len(self._under_way)

    @property
    def entries(self) -> tuple[str, ...]:
        """Ids of their entries in the stream `replies`."""
        return tuple(self._under_way)

    @property
    def has_stopped(self) -> bool:
        """Whether it was told to stop: its reader has ended then, as it should."""
        return self._taking.cancel_called

    async def run(self, attempt: Attempt) -> None:
        """Takes replies and makes attempts at each, until cancelled, or until told to stop and done with what was taken."""
        self._leases.on_lost = self.lease_lost
        async with trio.open_nursery() as nursery:
            with self._taking:
                await self._take(nursery, attempt)

    async def stop(self) -> None:
        """Takes no more: what was read and not begun is offered to other supervisors again."""
        self._taking.cancel()
        await self.give_back(await self._reader.close())

    async def give_back(self, entries: list[StreamEntry]) -> None:
        """Offers entries again that were read and that nobody has begun to send."""
        for entry in entries:
            try:
                conversation = decode_reply_record(entry.record).conversation_id
                await self._outbox.give_back_reply(entry.id, conversation)
            except (BadRecord, RedisFailed) as error:
                log.warning("reply: not given back", entry=entry.id, reason=str(error))  # its lease runs out

    def commit_begins(self, entry_id: str) -> None:
        """Called before each commit: from now on its answer says whose the reply is, and no longer the loss of the lease."""
        self._commit_begun.add(entry_id)

    def committed(self, entry_id: str) -> None:
        """Called after the commit: the reply is settled, and its lease need not be renewed while it is sent."""
        self._leases.release(entry_id)

    def lease_lost(self, entry_id: str) -> None:
        """Ends the attempt: another supervisor has the reply, and whatever we did would change nothing.

        Not once its commit has begun: it may be that commit that has just settled the entry. And a send that is cancelled half-way
        costs the connection.
        """
        if entry_id in self._under_way and entry_id not in self._commit_begun:
            self._under_way[entry_id].cancel()

    async def _take(self, nursery: trio.Nursery, attempt: Attempt) -> None:
        backoff = Backoff(last=self._pauses.reply_retry)
        while True:
            await self._connection.wait_connected()
            await acquire(self._slots)
            free = self._slots.value + 1
            self._slots.release()
            try:
                entries = await self._reader.read(free)
            except RedisFailed:
                await backoff.wait()
                continue
            backoff.reset()
            for entry in entries:
                if entry.id not in self._under_way:
                    self._under_way[entry.id] = trio.CancelScope()
                    nursery.start_soon(self._see_through, entry, attempt)

    async def _see_through(self, entry: StreamEntry, attempt: Attempt) -> None:
        """Makes attempts until nothing is left to do. Between two of them the reply holds its lease and no slot."""
        self._leases.hold(entry.id)
        try:
            with self._under_way[entry.id]:
                backoff = Backoff(last=self._pauses.reply_retry)
                while True:
                    await acquire(self._slots)
                    try:
                        at_least = await attempt(entry)
                    finally:
                        self._slots.release()
                    if at_least is None:
                        return
                    await trio.sleep(at_least)
                    await backoff.wait()
        finally:
            self._leases.release(entry.id)
            self._commit_begun.discard(entry.id)
            del self._under_way[entry.id]
