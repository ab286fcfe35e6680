"""Fetches what waits at the relay as soon as its sender has room again: a poll of its own, from the cursor before the first.

Never moves the agent's cursor. A sender's messages come in their order; behind one for which there is no room the later ones wait on.
Several supervisors may do this at once: each message is taken in once.
"""

from contextlib import aclosing

import structlog
import trio

from bus.held import Note, Notes
from bus.store import Store
from bus.wire import RedisFailed
from supervisor.inbound import Inbound
from supervisor.metrics import Metrics
from supervisor.refetch import MessageFrame, Refetch
from supervisor.rest import Rest, RestFailed

LOOK_SECONDS = 1.0

log = structlog.get_logger()


class Held:
    """One supervisor's."""

    def __init__(self, store: Store, notes: Notes, inbound: Inbound, rest: Rest, metrics: Metrics) -> None:
        self._store = store
        self._notes = notes
        self._inbound = inbound
        self._rest = rest
        self._metrics = metrics

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pause_seconds = LOOK_SECONDS
            try:
                for sender_id in await self._notes.senders():
                    await self._fetch_if_there_is_room(sender_id)
            except RedisFailed as error:
                log.warning("held: waits for Redis", reason=str(error))
            except RestFailed as error:
                log.warning("held: waits for the relay", reason=str(error))
                pause_seconds = max(LOOK_SECONDS, error.retry_after_seconds)
            await trio.sleep(pause_seconds)

    async def _fetch_if_there_is_room(self, sender_id: str) -> None:
        notes = await self._notes.of(sender_id)
        if notes and await self._notes.may_come(sender_id, notes[0], self._store.budgets):
            await self._fetch(sender_id, notes)

    async def _fetch(self, sender_id: str, notes: list[Note]) -> None:
        wanted = {note.message_id: note for note in notes}
        async with aclosing(Refetch(self._rest).pages(notes[0].cursor)) as pages:
            async for page in pages:
                if not await self._take_in(sender_id, page, wanted) or not wanted:
                    return
        for note in wanted.values():
            if await self._notes.forget(sender_id, note, is_gone=True):
                self._metrics.dead_letters.labels("held").inc()
                log.error("held: the relay has a message no more that it was to keep", message_id=note.message_id)

    async def _take_in(self, sender_id: str, page: list[MessageFrame], wanted: dict[str, Note]) -> bool:
        """What of a page is wanted; False when one of it has to wait on."""
        for frame in page:
            note = wanted.get(frame.message_id)
            if note is None:
                continue
            outcome = await self._inbound.fetched(frame)
            if outcome is None or not outcome.is_settled:
                return False
            del wanted[frame.message_id]
            await self._notes.forget(sender_id, note)
            self._metrics.fetched.inc()
        return True
