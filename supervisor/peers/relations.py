"""Keeps up with who may talk to this agent: frames as they come, and the whole list after every auth.ok (frames may be missed)."""

import structlog
import trio

from bus.transport.wire import RedisFailed
from supervisor.peers.owners import Owners
from supervisor.relay.frames import Relation
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.related import essence_of
from supervisor.relay.rest import RestFailed

RETRY_SECONDS = 5.0
MOST_WAITING = 1000

log = structlog.get_logger()


class Relations:
    """Of one supervisor. After each reading of the list, also one that failed, the relay is polled."""

    def __init__(self, owners: Owners, polls: PollWish) -> None:
        self._owners = owners
        self._polls = polls
        self._to_read = trio.Event()
        self._send, self._noted = trio.open_memory_channel[tuple[Relation, str]](MOST_WAITING)

    def read_all(self) -> None:
        """The list is to be read again."""
        self._to_read.set()

    def note(self, relation: Relation, status: str) -> None:
        """A frame says so; one too many at once, and the list is read instead."""
        try:
            self._send.send_nowait((essence_of(relation), status))
        except trio.WouldBlock:
            self.read_all()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._keep)

    async def _read(self) -> None:
        while True:
            await self._to_read.wait()
            self._to_read = trio.Event()
            try:
                await self._owners.refresh()
            except (RestFailed, RedisFailed) as error:
                log.warning("relations: not read", reason=str(error))
                self.read_all()
                await trio.sleep(RETRY_SECONDS)
            self._polls.ask()

    async def _keep(self) -> None:
        async for relation, status in self._noted:
            try:
                await self._owners.note(relation, status)
            except RedisFailed:
                self.read_all()
