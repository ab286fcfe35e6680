"""Fetches messages that wait at the relay as soon as their sender has room again, or is known, by polls of its own from the cursor before the first.

Never moves the agent's cursor. A sender's messages come in their order; behind one for which there is no room the later ones wait on.
One of several supervisors does this at a time; where two do, each message is taken in once.
"""

from collections.abc import Callable, Iterable
from contextlib import aclosing

import structlog
import trio

from bus.steps.held import Note, Notes
from bus.steps.store import InboundStore
from bus.steps.work_lease import WorkLease
from bus.transport.wire import RedisFailed
from supervisor.inbound.inbound import Inbound
from supervisor.inbound.incoming import MessageFrame
from supervisor.inbound.refetch import Refetch
from supervisor.observe.metrics import Metrics
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.relay.rest import Rest, RestFailed, pause_after
from supervisor.settings.pauses import PAUSES, Pauses

log = structlog.get_logger()


class HeldFetcher:
    """Fetches what waits on behalf of one supervisor."""

    def __init__(
        self,
        store: InboundStore,
        lease: WorkLease,
        *,
        notes: Notes,
        inbound: Inbound,
        rest: Rest,
        metrics: Metrics,
        is_untold: Callable[[str], bool],
        pauses: Pauses = PAUSES,
    ) -> None:
        """`is_untold`: whether a sender's messages could not be read now, since the relay does not tell what it takes."""
        self._store = store
        self._lease = lease
        self._notes = notes
        self._inbound = inbound
        self._rest = rest
        self._metrics = metrics
        self._is_untold = is_untold
        self._pauses = pauses

    async def run(self) -> None:
        """Fetches what there is room for, again and again, until cancelled."""
        trouble = said_trouble("held messages")
        while True:
            pause_seconds = self._pauses.held_look
            try:
                senders = await self._notes.senders()
                await self.fetch_if_there_is_room(senders)
                if senders:
                    await self._lease.leave()
                trouble.over()
            except RedisFailed as error:
                trouble.met(error)
            except RestFailed as error:
                log.warning("held: waits for the relay", reason=str(error))
                pause_seconds = pause_after(error, self._pauses.held_look)
            await trio.sleep(pause_seconds)

    async def fetch_if_there_is_room(self, senders: Iterable[str]) -> None:
        """Fetches the single messages of all of them by one walk through the relay's pages: a walk for each of a thousand newcomers would read
        all that they have said a thousand times.

        A sender's single messages come first: an open-ended note begins behind them, and has a cursor and a walk of its own.
        """
        together: list[WantedSender] = []
        for sender_id in senders:
            if self._is_untold(sender_id):
                continue
            notes = await self._notes.of(sender_id)
            singles = [note for note in notes if not note.is_open]
            for walk in [singles] if singles else [[note] for note in notes]:
                if not await self._notes.may_come(sender_id, walk[0], self._store.budgets):
                    continue
                wanted = WantedSender(sender_id, walk)
                if singles:
                    together.append(wanted)
                elif await self._lease.hold():
                    await self._fetch([wanted])
        if together and await self._lease.hold():
            await self._fetch(together)

    async def _fetch(self, senders: list["WantedSender"]) -> None:
        """Begins behind the cursor of the note that was made first; the cursor has only moved on since."""
        first = min((note for one in senders for note in one.notes), key=lambda note: note.order)
        async with aclosing(Refetch(self._rest).pages(first.cursor)) as pages:
            async for page in pages:
                senders = await self._take_in(page, senders)
                if not senders:
                    return
                if not await self._lease.hold():  # this page took long, and another goes on
                    return
        for one in senders:
            for note in one.notes:
                if await self._notes.forget(one.sender_id, note, is_gone=True):
                    self._say_gone(note)

    async def _take_in(self, page: list[MessageFrame], senders: list["WantedSender"]) -> list["WantedSender"]:
        """Takes in what is wanted of a page, of each sender in its order. Returns of whom more is wanted, and has not to wait on."""
        waiting: set[str] = set()
        failures: list[RedisFailed] = []

        async def take_in(one: WantedSender) -> None:
            try:
                if not await self._take_in_order(page, one):
                    waiting.add(one.sender_id)
            except RedisFailed as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for one in senders:
                if any(one.note_for(frame) for frame in page):
                    nursery.start_soon(take_in, one)
        if failures:
            raise failures[0]
        return [one for one in senders if one.notes and one.sender_id not in waiting]

    async def _take_in_order(self, page: list[MessageFrame], wanted: "WantedSender") -> bool:
        """Takes in what is wanted of a sender. False if one message has to wait on, and those behind it with it."""
        for frame in page:
            note = wanted.note_for(frame)
            if note is None:
                continue
            outcome = await self._inbound.fetched(frame, note.signed_id)
            if outcome is None or not outcome.is_settled:
                return False
            self._metrics.fetched.inc()
            if not note.is_open:
                await self._notes.forget(wanted.sender_id, note)
            elif not await self._notes.reached(wanted.sender_id, note, frame.conversation_seq, frame.message_id):
                self._say_gone(note)
            wanted.came(note, frame)
        return True

    def _say_gone(self, note: Note) -> None:
        self._metrics.dead_letters.labels("held").inc()
        log.error("held: the relay has a message no more that it was to keep", message_id=note.message_id)


class WantedSender:
    """The notes of one sender whose messages are looked for in the relay's pages."""

    def __init__(self, sender_id: str, notes: list[Note]) -> None:
        self.sender_id = sender_id
        self._by_message = {note.message_id: note for note in notes if not note.is_open}
        self._by_conversation = {note.conversation_id: note for note in notes if note.is_open}

    @property
    def notes(self) -> list[Note]:
        """Notes whose messages have not all come yet."""
        return [*self._by_message.values(), *self._by_conversation.values()]

    def note_for(self, frame: MessageFrame) -> Note | None:
        """Returns the note that stands for this message; None if it is not wanted."""
        single = self._by_message.get(frame.message_id)
        if single is not None or frame.sender_id != self.sender_id:
            return single
        note = self._by_conversation.get(frame.conversation_id)
        return note if note is not None and note.stands_for(frame.conversation_seq) else None

    def came(self, note: Note, frame: MessageFrame) -> None:
        """Called when a message of this note was taken in."""
        if not note.is_open:
            del self._by_message[note.message_id]
        elif frame.conversation_seq == note.last_seq:
            del self._by_conversation[note.conversation_id]
