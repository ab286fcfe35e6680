"""Keeps the grants up to date: notes relation frames as they come, and reads the whole list after every auth.ok (frames may be missed)."""

import structlog
import trio

from bus.transport.wire import RedisFailed
from supervisor.peers.owners import Owners
from supervisor.relay.frames import Relation
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.related import essence_of
from supervisor.relay.rest import RestFailed, pause_after
from supervisor.settings.pauses import PAUSES, Pauses

MOST_WAITING = 1000
"""Frames that wait to be noted, of 20 KiB each at most. One more, and the whole list is read instead."""

log = structlog.get_logger()


class Relations:
    """Hears of relations for one supervisor. After each reading of the list, also one that failed, it asks for a poll."""

    def __init__(self, owners: Owners, polls: PollWish, pauses: Pauses = PAUSES) -> None:
        self._owners = owners
        self._pauses = pauses
        self._polls = polls
        self._to_read = trio.Event()
        self._send, self._noted = trio.open_memory_channel[tuple[Relation, str]](MOST_WAITING)

    def read_all(self) -> None:
        """Asks for the list to be read again."""
        self._to_read.set()

    def note(self, relation: Relation, status: str) -> None:
        """Called with each frame about a relation. If too many come at once, the list is read instead."""
        try:
            self._send.send_nowait((essence_of(relation), status))
        except trio.WouldBlock:
            self.read_all()

    async def run(self) -> None:
        """Notes frames and reads the list when asked, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._keep)

    async def _read(self) -> None:
        problem = ""
        while True:
            await self._to_read.wait()
            self._to_read = trio.Event()
            try:
                await self._owners.refresh()
                problem = ""
            except (RestFailed, RedisFailed) as error:
                before, problem = problem, str(error)
                if problem != before:
                    log.warning("relations: not read", reason=problem)
                self.read_all()
                await trio.sleep(pause_after(error, self._pauses.relations_retry))
            self._polls.ask()

    async def _keep(self) -> None:
        async for relation, status in self._noted:
            try:
                await self._owners.note(relation, status)
            except RedisFailed:
                self.read_all()
