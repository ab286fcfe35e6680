"""Gives a job's replies their places and sends them one after the other.

A place is the number in the order of sending, or the handler's key; a place that an earlier run of the job has sent is skipped. After the
job was lost to another worker nothing is sent.

A reply is held for a moment: most handlers end right after it, and then it goes out with the job's end, in one step.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
import trio

from bus.records import ulid
from bus.records.cards import MOST_UPDATES, CardKept, CardMove
from bus.records.records import ACTS, NOWHERE, Job, Payload, Reply, with_hops
from bus.records.sent_ids import places_in
from bus.steps.job_steps import Carded, CardEmitted, Emitted, Said
from bus.transport.wire import RedisFailed
from workers.errors import BadCard, BadReply, ChatClosed, Suspended
from workers.kept.keeping import Keeping
from workers.kept.outlet import Outlet, until_redis_answers
from workers.kept.within import within
from workers.kept.words import Words

# Longer than a handler needs to end after its last reply, and too short for anybody to notice.
HELD_SECONDS = 0.005
# Replies of 100,000 characters at most; a handler that sends more at once waits.
MOST_HELD = 16
# The wait before a reply without room is tried again: the relay is away, or takes five messages a second.
ROOM_SECONDS = 1.0
# A Redis that is away must not hold up the end of a stream.
ABORT_SECONDS = 1.0
NO_SUCH_CARD = "this conversation has no such card: name one that chat.reply() has shown here"
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class SendSoon:
    """Sends held replies of handlers that go on; one for all jobs of a worker."""

    def __init__(self) -> None:
        self._waiting: set[Sending] = set()
        self._more = trio.Event()

    def expect(self, sending: "Sending") -> None:
        """Notes that this run holds a reply."""
        self._waiting.add(sending)
        self._more.set()

    def forget(self, sending: "Sending") -> None:
        """Notes that this run holds none any more."""
        self._waiting.discard(sending)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._more.wait()
                await trio.sleep(HELD_SECONDS)
                self._begin(nursery)

    def _begin(self, nursery: trio.Nursery) -> None:
        """Begins to send what is due. In `run` a variable would keep the last run, and its message, until the next one."""
        due, self._waiting, self._more = self._waiting, set(), trio.Event()
        for sending in due:
            nursery.start_soon(self._send, sending)

    async def _send(self, sending: "Sending") -> None:
        try:
            await sending.flush()
        except RedisFailed:
            return  # the handler's next reply, or its end, meets the same error


class Sending:
    """The replies of one run of a job. `lost` is called when another worker has the job.

    `soon` sends held replies; without it none is held.
    """

    def __init__(
        self,
        job: Job,
        outlet: Outlet,
        *,
        emitted: frozenset[str],
        helpers: trio.Nursery,
        lost: Callable[[], None],
        soon: SendSoon | None = None,
        tell_start: Callable[[], Awaitable[None]] | None = None,
        waited: Callable[[float], None] = lambda _: None,
        hops: int = 0,
        keeping: Keeping | None = None,
        cards: Mapping[str, str] | None = None,
        words: Words | None = None,
    ) -> None:
        """`waited` is called with the seconds for which a reply had no room; `hops`: the `hop_count` of replies; `words`: the agent's.

        `cards`: the ids of the cards at places that earlier runs have sent.
        """
        self._hops = hops
        self.words = words or Words()
        self.keeping = keeping
        self._cards_sent = cards or {}
        self._cards: dict[str, CardKept] = {}
        self.job = job
        self.helpers = helpers
        self._outlet = outlet
        self._emitted = emitted
        self._lost = lost
        self._soon = soon
        self._tell_start = tell_start
        self._waited = waited
        self._is_lost = False
        self._is_closed = False
        self._is_suspended = False
        self.was_told_to_stop = False
        """Whether this run was ended by its person's /stop: what they were shown stays, and says so."""
        self.says_that_it_stopped = False
        self._has_no_room = False
        self.has_said = False
        """Whether this run has sent something, or has begun to show by itself that it works."""
        self._held: list[Said] = []
        self._with_end: list[Said] = []
        self._taken: tuple[Said, ...] = ()
        self._line = trio.Lock()
        self._turn = trio.Lock()
        self._next_number = 0
        self._counted_from = self._answered = ""
        self._has_words = False
        self._said: set[str] = set()
        self._cards_here: dict[str, str] = {}
        self._used_keys: set[str] = set()

    def turn(self) -> "SenderTurn":
        """Returns a context manager that lets one sender in at a time, first come, first served. Entering it raises ChatClosed."""
        return SenderTurn(self._turn, self.check_open)

    def close(self) -> None:
        """Takes no more replies, after the handler has ended; those that it sent still go out."""
        self._is_closed = True

    def suspend(self) -> None:
        """Takes no more replies, since the handler waits for an answer; those that it sent still go out."""
        self._is_suspended = True

    def count_places_from(self, name: str) -> None:
        """Counts the places of what is said from now on from this answer on: what was said before may be more or less in other code."""
        self._counted_from = self._answered = f"{name}/"
        self._next_number = 0

    def count_places_behind(self, name: str) -> None:
        """Counts the places of what is said from now on from here on: what a block that was stopped said may be more or less in each run."""
        self._has_words = self.has_words
        self._counted_from = f"{self._answered}{name}/"
        self._next_number = 0

    @property
    def places(self) -> frozenset[str]:
        """Returns the places that the thread has sent by now."""
        return self._emitted | self._said

    @property
    def cards(self) -> dict[str, str]:
        """Returns the ids of the cards at the places that the thread has sent by now."""
        return {**self._cards_sent, **self._cards_here}

    def check_open(self) -> None:
        """Raises ChatClosed if the handler has ended, and with it the job; Suspended if it waits for an answer."""
        if self._is_suspended:
            raise Suspended
        if self._is_closed:
            raise ChatClosed(
                "since its handler has ended: await what it starts before it returns (a nursery in the handler does)"
            )

    def _check_somewhere(self) -> None:
        if self.job.conversation_id == NOWHERE:
            raise BadReply(
                "this job runs in no conversation: say it in one in which somebody has written, by chat.to(conversation_id).reply(…)"
            )

    def take_place(self, key: str | None) -> str:
        """Returns the next place; call it inside of `turn`. Raises BadReply."""
        call = within()
        if key is None and call is not None:
            return f"{self._counted_from}{call.next_place()}"
        if key is None:
            place = f"{self._counted_from}{self._next_number}"
            self._next_number += 1
            return place
        if not _KEY.fullmatch(key):
            raise BadReply("a key has 1 to 64 characters of A-Z, a-z, 0-9, '_', '.', '-'")
        named = key if call is None else f"{call.name}:{key}"
        if named in self._used_keys:
            raise BadReply("this key was used before in this job; the second reply would never be sent")
        self._used_keys.add(named)
        return f"key:{named}"

    @property
    def has_spoken(self) -> bool:
        """Whether this run has sent something or shows itself that it works, or its handler has ended."""
        return self.has_said or self._is_closed

    @property
    def has_words(self) -> bool:
        """Whether this run has said something, or would have if an earlier one had not."""
        return self._has_words or self._next_number > 0 or bool(self._used_keys)

    def was_emitted(self, place: str) -> bool:
        """Returns whether an earlier run has sent this place."""
        return place in self._emitted

    async def emit(self, place: str, reply: Reply) -> None:
        """Sends a reply, however long Redis is away or has no room; does nothing if the place was sent or the job is lost.

        Raises BadReply in a job that runs in no conversation.
        """
        self._check_somewhere()
        self._is_said(place, reply)
        await self._emit(place, reply)

    async def emit_aside(self, place: str, reply: Reply) -> None:
        """Sends what the runtime says about the job and not in answer to it: it is no part of what was said, and counts for no later place."""
        self._check_somewhere()
        await self._emit(f"aside:{place}", reply)

    async def _emit(self, place: str, reply: Reply) -> None:
        if not self._is_lost and not self.was_emitted(place):
            self.has_said = True
            self._said.add(place)
            self._held.append((place, self._with_hops(reply)))
            is_now = reply.kind == "stream_start"  # its deltas follow at once
            if is_now or self._soon is None or self._has_no_room or len(self._held) >= MOST_HELD:
                await self.flush()
            else:
                self._soon.expect(self)
        await trio.lowlevel.checkpoint()

    def say_with_end(self, place: str, reply: Reply, card_id: str = "") -> None:
        """Notes a reply that goes out behind all others in one step with the job's end, and not before it. Raises as `emit`.

        `card_id`: of the card that it is; that the conversation has it is an effect of the end.
        """
        self._check_somewhere()
        self._is_said(place, reply)
        if not self._is_lost and not self.was_emitted(place):
            self.has_said = True
            self._said.add(place)
            self._with_end.append((place, self._with_hops(reply)))
        if card_id:
            self._cards_here[place] = card_id

    def _is_said(self, place: str, reply: Reply) -> None:
        if self.keeping is not None:
            self.keeping.said(place, reply)

    def card_id(self, place: str) -> str:
        """Returns the id of the card at a place: the same in every run."""
        return self._cards_sent.get(place) or self._outlet.card_id(self.job, place)

    async def emit_card(self, place: str, card_id: str, kind: str, reply: Reply) -> None:
        """Sends a new card, as `emit` sends a reply; it is not held."""
        self._check_somewhere()
        self._is_said(place, reply)
        if not self.was_emitted(place):
            self._said.add(place)
            self._cards_here[place] = card_id
            await self._send_card(place, reply, CardMove(card_id, kind))
            self._cards[card_id] = CardKept(0, self.job.thread_id, place, kind)
        await trio.lowlevel.checkpoint()

    def ids_in(self, handle: str, *, is_elsewhere: bool = False) -> str:
        """Returns the client_message_ids of a text with this handle, several with spaces between; the handle where they are not known."""
        found = [
            self._outlet.sent_as(self.job, place, is_elsewhere=is_elsewhere)
            for thread_id, place in places_in(handle)
            if thread_id == self.job.thread_id
        ]
        return " ".join(found) if found and all(found) else handle

    async def named_in(self, sent_id: str, conversation_id: str = "") -> list[Payload]:
        """Returns what an id or a handle names: a card of this conversation or of another one, or a text. Raises BadCard."""
        ids = sent_id.split(" ")
        if any(ulid.time_ms(one) is None for one in ids):
            places = places_in(sent_id) or [await self.place_of_card(sent_id, conversation_id)]
        elif len(ids) == 1 and (kept := await self._kept_of(sent_id, conversation_id)) is not None:
            places = [(kept.job_id, kept.place)]
        elif self._outlet.sent_as(self.job, "0"):
            return [{"client_message_id": one} for one in ids]
        else:
            raise BadCard(NO_SUCH_CARD)
        return [{"job_id": job_id, "place": place} for job_id, place in places]

    async def place_of_card(self, card_id: str, conversation_id: str = "") -> tuple[str, str]:
        """Returns the job and place that have sent a card of this conversation, or of another one. Raises BadCard."""
        kept = await self._kept_of(card_id, conversation_id)
        if kept is None:
            raise BadCard(NO_SUCH_CARD)
        return kept.job_id, kept.place

    async def _kept_of(self, card_id: str, conversation_id: str) -> CardKept | None:
        job = msgspec.structs.replace(self.job, conversation_id=conversation_id) if conversation_id else self.job
        kept = None if conversation_id else self._cards.get(card_id)
        return kept or await until_redis_answers(partial(self._outlet.card, job, card_id))

    async def check_update(self, place: str, card_id: str, made: Callable[[CardKept], object]) -> None:
        """Raises BadCard where `update_card` would, before what is new is uploaded; nothing where it was sent already."""
        if not self.was_emitted(place):
            kept = await self._updatable(card_id)
            made(kept)
            _check_revision(kept)

    async def _updatable(self, card_id: str, *, is_unknown: bool = False) -> CardKept:
        kept = await self._kept_of(card_id, "")
        if kept is None or is_unknown:
            raise BadCard("this conversation has no such card: update one that chat.reply() has shown here")
        return kept

    async def update_card(self, place: str, card_id: str, made: Callable[[CardKept], Reply | None]) -> None:
        """Sends an update of a card of this conversation, based on the revision that it has. Raises BadCard.

        `made` returns the update for what is kept of the card, or None for nothing.
        """
        outcome = None
        while outcome is not Carded.QUEUED and not self.was_emitted(place) and not self._is_lost:
            kept = await self._updatable(card_id, is_unknown=outcome is Carded.UNKNOWN)
            new = made(kept)
            if new is None:
                break
            _check_revision(kept)
            outcome = (await self._send_card(place, new, CardMove(card_id, based_on=kept.revision))).outcome
            self._cards.pop(card_id, None)  # with another revision, or unknown: it is read again
            if outcome is Carded.ALREADY:
                return
            if outcome is Carded.QUEUED:
                self._said.add(place)
                self._cards_here[place] = card_id
                self._cards[card_id] = msgspec.structs.replace(kept, revision=kept.revision + 1)
        await trio.lowlevel.checkpoint()

    async def emit_to(self, conversation_id: str, place: str, reply: Reply, card: CardMove | None = None) -> None:
        """Sends a reply in another conversation, at once; as `emit`. Raises BadReply if the agent has no such conversation.

        `card`: the new one that it shows.
        """
        self.has_said = True
        async with self._line:
            if self._tell_start is not None and not self._is_lost:
                await self._tell_start()
            while not self._is_lost and not self.was_emitted(place):
                emitted = await until_redis_answers(
                    partial(self._outlet.emit_to, self.job, conversation_id, place, self._with_hops(reply), card)
                )
                if emitted is Emitted.UNKNOWN:
                    raise BadReply("this agent has no such conversation, or nobody has written there yet")
                if emitted is Emitted.FENCED:
                    self._is_lost = True
                    self._lost()
                elif emitted is not Emitted.FULL:
                    break
                else:
                    await trio.sleep(ROOM_SECONDS)
                    self._waited(ROOM_SECONDS)
        await trio.lowlevel.checkpoint()

    async def is_stopped(self, card_id: str) -> bool:
        """Returns whether the Stop button of this card was pressed; False while Redis is away."""
        try:
            return await self._outlet.stopped(self.job) == card_id
        except RedisFailed:
            return False

    async def until_stop_is_pressed(self, seconds: float) -> None:
        """Waits until a Stop button of the job was pressed, or for so long."""
        await self._outlet.until_stop_is_pressed(self.job, seconds)

    async def _send_card(self, place: str, reply: Reply, move: CardMove) -> CardEmitted:
        """Sends what is held and then the card. Once the job is lost it does nothing, and says ALREADY."""
        self.has_said = True
        await self.flush()
        async with self._line:
            if self._tell_start is not None and not self._is_lost:
                await self._tell_start()
            if self.keeping is not None and not self._is_lost:
                await self.keeping.note_said(place)
            while not self._is_lost:
                emitted = await until_redis_answers(
                    partial(self._outlet.emit_card, self.job, place, self._with_hops(reply), move)
                )
                self._has_no_room = emitted.outcome is Carded.FULL
                if emitted.outcome is Carded.FENCED:
                    self._is_lost = True
                    self._lost()
                elif not self._has_no_room:
                    return emitted
                else:
                    await trio.sleep(ROOM_SECONDS)
                    self._waited(ROOM_SECONDS)
        return CardEmitted(Carded.ALREADY)

    def _with_hops(self, reply: Reply) -> Reply:
        if not self._hops or reply.kind in ("stream_start", *ACTS):  # what they carry is no payload
            return reply
        return msgspec.structs.replace(reply, payload=with_hops(reply.payload, self._hops))

    @property
    def is_holding(self) -> bool:
        """Returns whether replies are held, or on their way to Redis."""
        return bool(self._held)

    async def flush(self) -> None:
        """Sends held replies, in order."""
        async with self._line:
            if self._held and self._tell_start is not None:
                await self._tell_start()
            while self._held and not self._is_lost:
                place, reply = self._held[0]
                if self.keeping is not None:
                    await self.keeping.note_said(place)
                emitted = await until_redis_answers(partial(self._outlet.emit, self.job, place, reply))
                self._has_no_room = emitted is Emitted.FULL
                if self._has_no_room:
                    await trio.sleep(ROOM_SECONDS)
                    self._waited(ROOM_SECONDS)
                    continue
                del self._held[0]
                if emitted is Emitted.FENCED:
                    self._is_lost = True
                    self._lost()

    async def take_last(self) -> tuple[Said, ...]:
        """Returns the replies that are held when the handler has ended, to go out with the job's end: all of them each time."""
        if self._soon is not None:
            self._soon.forget(self)
        if self._held or self._with_end:
            async with self._line:
                self._taken = (*self._taken, *self._held, *self._with_end)
                self._held, self._with_end = [], []
        return self._taken

    async def show_delta(self, stream_id: str, seq: int, text: str) -> bool:
        """Sends a piece of a stream; returns False if that is not possible now."""
        if self._is_lost:
            return True
        try:
            await self._outlet.publish_delta(self.job, stream_id, seq, text)
        except RedisFailed:
            return False
        return True

    async def show_typing(self, *, active: bool) -> None:
        """Sends or ends the typing indicator; lost while Redis is away."""
        if self._is_lost or self.job.conversation_id == NOWHERE:
            return
        try:
            await self._outlet.publish_typing(self.job, active)
        except RedisFailed:
            return

    async def abort_stream(self) -> None:
        """Ends a shown stream that no whole text will end; tried once, for a moment."""
        if self._is_lost:
            return
        with trio.move_on_after(ABORT_SECONDS, shield=True):
            try:
                await self._outlet.publish_abort(self.job)
            except RedisFailed:
                return  # the relay ends it after half a minute without a delta


class SenderTurn:
    """One sender's turn. A class and no generator, which costs several times as much: each reply has one."""

    __slots__ = ("_check_open", "_lock")

    def __init__(self, lock: trio.Lock, check_open: Callable[[], None]) -> None:
        self._lock = lock
        self._check_open = check_open

    async def __aenter__(self) -> None:
        await self._lock.acquire()  # a checkpoint: who was stopped says nothing more
        try:
            self._check_open()
        except BaseException:
            self._lock.release()
            raise

    async def __aexit__(self, *_raised: object) -> None:
        self._lock.release()


def _check_revision(kept: CardKept) -> None:
    if kept.revision >= MOST_UPDATES:
        raise BadCard(f"a card has at most {MOST_UPDATES} updates: send a new one with chat.reply()")
