"""Takes frames in (DESIGN §3): what could be read becomes a job by one commit, what could not stands in quarantine. Nothing is dropped.

A conversation's messages are taken one after the other; different conversations do not wait for each other. The connection's
reader only puts a frame into its lane.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog
import trio

from bus.records.records import answering_hops
from bus.steps.letters import Quarantined, digest_of, name_beside
from bus.steps.store import Arrival, InboundStore, Intake, Source, now_ms
from bus.telemetry.traces import current_span
from bus.transport.wire import RedisFailed, RedisRefused
from crypto.envelope import Envelope
from crypto.errors import DatedAhead, Reason, Unreadable
from host.budgets import LARGEST_INTAKE_BYTES, READING_COST, IntakeBudgets
from supervisor.inbound.evidence import evidence_of
from supervisor.inbound.incoming import Incoming, MessageFrame
from supervisor.inbound.lanes import LaneFull, Lanes
from supervisor.inbound.reading import FrameReader
from supervisor.inbound.readings import Known, Old, Readable, Reading, Unread, Waits
from supervisor.inbound.shares import FreeBytes, Reservation
from supervisor.inbound.unpolled import UnpolledPushes
from supervisor.observe.metrics import Metrics
from supervisor.observe.tracing import MessageTraces
from supervisor.peers.retry_triggers import MENDABLE_REASONS, OUR_CLOCK, RetryTriggers
from supervisor.peers.sessions import Sessions
from supervisor.relay.own_words import DeclaredWords
from supervisor.relay.payloads import LAST_HOP, sender_type_of
from supervisor.relay.pending_acks import PendingAcks
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.rest import RestFailed

MOST_CONFLICTS = 20
BESIDE_DAMAGED = "/damaged"
"""Behind the id of a conversation whose records Redis cannot use: what is set aside of it touches none of them."""

"""Times that a message is read again because its session or row has changed meanwhile, before it is put into quarantine."""

MOST_NOTED = 10_000
"""Ids that are noted while a poll runs, some 2 MiB."""

WAITING_BYTES = 1024
"""What a message that waits takes beside its frame, as measured."""

NO_PEER = ("", "")

log = structlog.get_logger()


class MessageInWork:
    """A message on its way in, and its outcome: None if Redis or the relay was away. `place`: the bytes that are reserved for opening it."""

    def __init__(self, incoming: Incoming, free: FreeBytes) -> None:
        self.incoming = incoming
        self.frame_bytes = sum(map(sys.getsizeof, msgspec.structs.astuple(incoming.frame)))
        self.place = Reservation(free, self.frame_bytes)
        self.done = trio.Event()
        self.began_ns = time.time_ns()
        self.outcome: Intake | None = None
        self.reason: str | None = None
        """Why it could not be read; None if it could."""

    @property
    def taken_bytes(self) -> int:
        """Bytes that it takes until it is opened."""
        return WAITING_BYTES + int(self.frame_bytes * READING_COST)


class Inbound:
    """Takes messages in for one agent."""

    def __init__(
        self,
        *,
        store: InboundStore,
        reader: FrameReader,
        sessions: Sessions,
        words: DeclaredWords,
        metrics: Metrics,
        polls: PollWish,
        triggers: RetryTriggers,
        pending_acks: PendingAcks,
        budgets: IntakeBudgets | None = None,
    ) -> None:
        """`triggers` is told the owner with whom a session has begun, and which. `pending_acks`: what a pushed message waits for, so that our
        own messages have taken their place in the conversation's sequence.
        """
        self.traces = MessageTraces()
        self._pending_acks = pending_acks
        self._store = store
        self._reader = reader
        self._sessions = sessions
        self._words = words
        self._metrics = metrics
        self._polls = polls
        self._triggers = triggers
        budgets = budgets or IntakeBudgets.of(LARGEST_INTAKE_BYTES)
        self._lanes = Lanes(self._work, budgets.lanes_bytes)
        self._opening = FreeBytes(budgets.opening_bytes)
        self._is_paused = False
        self._goes_on = trio.Event()
        self._goes_on.set()
        self.unpolled = UnpolledPushes(polls)
        self._noting: list[set[str]] = []

    @property
    def under_way(self) -> int:
        """Messages that wait or are being opened."""
        return self._lanes.waiting

    @property
    def taken_bytes(self) -> int:
        """Bytes that they take."""
        return self._lanes.taken_bytes

    def pause(self, is_paused: bool) -> None:
        """Called with True when Redis is nearly full: nothing is taken in until it is called with False (DESIGN rule 16)."""
        self._is_paused = is_paused
        if not is_paused:
            self._goes_on.set()
        elif self._goes_on.is_set():
            self._goes_on = trio.Event()

    async def wait_while_paused(self) -> None:
        """Waits while Redis is nearly full."""
        await self._goes_on.wait()

    @contextmanager
    def noting_pushes(self) -> Iterator[set[str]]:
        """Yields a set that gets the ids of what is pushed within the block: a page that ends with one of them ends in the present."""
        pushed = set[str]()
        self._noting.append(pushed)
        try:
            yield pushed
        finally:
            self._noting = [
                other for other in self._noting if other is not pushed
            ]  # by itself: two empty sets are equal

    def push(self, frame: MessageFrame) -> None:
        """Called with each pushed frame; returns at once. A full lane passes it over: polling brings it back."""
        for pushed in self._noting:
            if len(pushed) >= MOST_NOTED:
                pushed.clear()  # the latest count
            pushed.add(frame.message_id)
        incoming = Incoming(frame, Source.PUSH, now_ms(), trace=self.traces.arrived())
        waiting = MessageInWork(incoming, self._opening)
        try:
            self._lanes.put(frame.conversation_id, waiting, size=waiting.taken_bytes, owner=frame.sender_id)
        except LaneFull:
            self._metrics.frames_dropped.labels("lane_full").inc()
            self._polls.missed()

    async def poll(self, frame: MessageFrame) -> Intake | None:
        """Takes a polled frame in. Returns what became of it; None if Redis or the relay was away."""
        return (await self._in_turn(Incoming(frame, Source.POLL, now_ms(), trace=self.traces.arrived()))).outcome

    async def fetched(self, frame: MessageFrame, noted: str = "") -> Intake | None:
        """Takes in a message that has waited at the relay (supervisor/inbound/held.py). Returns what became of it; HELD: it waits on.

        `noted`: the signed id in its note, in hex.
        """
        incoming = Incoming(frame, Source.HELD, now_ms(), noted=noted, trace=self.traces.arrived())
        return (await self._in_turn(incoming)).outcome

    async def retry(self, quarantined: Quarantined, frame: MessageFrame) -> MessageInWork:
        """Takes in a frame out of quarantine, in its conversation's turn, like any other. Returns it with its outcome."""
        name, is_known = quarantined.message_id, quarantined.is_remembered
        kept_as = "" if name == frame.message_id else name
        trace = self.traces.arrived()
        return await self._in_turn(
            Incoming(frame, Source.QUARANTINE, now_ms(), is_known=is_known, kept_as=kept_as, trace=trace)
        )

    async def _in_turn(self, incoming: Incoming) -> MessageInWork:
        frame, waiting = incoming.frame, MessageInWork(incoming, self._opening)
        size = waiting.taken_bytes
        self._lanes.put(frame.conversation_id, waiting, size=size, owner=frame.sender_id, even_if_full=True)
        await waiting.done.wait()
        return waiting

    async def run(self) -> None:
        """Takes messages in, until cancelled."""
        await self._lanes.run()

    async def _work(self, waiting: MessageInWork) -> None:
        """Takes one message in, when it is its turn, and notes its outcome."""
        frame, span = waiting.incoming.frame, waiting.incoming.trace
        current_span.set(span)  # of this lane, until its next message
        try:
            if waiting.incoming.source is Source.PUSH:
                await self._pending_acks.wait_noted(frame.conversation_id)
            waiting.outcome = await self._take_or_set_aside(waiting)
        except RedisFailed:
            self._metrics.frames_dropped.labels("redis_away").inc()
            self._polls.missed()
        except RestFailed as error:
            log.warning("message: waits for the relay", message_id=frame.message_id, reason=str(error))
            self._polls.missed()
        finally:
            waiting.place.give_back()
            waiting.done.set()
        ids = frame.message_id, frame.conversation_id
        self.traces.received(span, waiting.began_ns, ids, waiting.outcome, waiting.reason)

    async def _take_or_set_aside(self, waiting: MessageInWork) -> Intake:
        """Takes a message in. One that a damaged record in Redis does not let in goes into quarantine, so that the cursor passes it. Raises RedisFailed."""
        try:
            return await self._take(waiting)
        except RedisRefused as refused:
            if not refused.is_of_data:
                raise
            return await self._set_aside(waiting, refused)

    async def _set_aside(self, waiting: MessageInWork, refused: RedisRefused) -> Intake:
        incoming, frame = waiting.incoming, waiting.incoming.frame
        log.error(
            "message: a damaged record in Redis does not let it in",
            message_id=frame.message_id,
            conversation_id=frame.conversation_id,
            reason=str(refused),
            remedy="docs/runbooks/redis.md",
        )
        if incoming.source is Source.QUARANTINE:
            return Intake.GONE
        error = Unreadable(Reason.NO_SESSION, "a record in Redis is damaged")
        waiting.reason = error.reason.value
        # Of the conversation nothing is read or written, since its records may be what is damaged; so none of its seqs is taken either.
        apart = f"{frame.conversation_id}{BESIDE_DAMAGED}"
        arrival = msgspec.structs.replace(incoming.arrival(), conversation_id=apart, source=Source.POLL, seq=0)
        outcome = await self._quarantine(incoming, Unread(arrival, error))
        return Intake.ACCEPTED if outcome is Intake.LATE else outcome  # of a seq that is none nothing follows

    async def _take(self, waiting: MessageInWork) -> Intake:
        outcome = Intake.NOT_NOW if self._must_wait(waiting.incoming) else await self._stored(waiting)
        if outcome is Intake.TAKEN:  # by another one that cannot be read: this one gets a name of its own in quarantine
            waiting.incoming = _named_apart(waiting.incoming)
            outcome = await self._stored(waiting)
        if outcome is Intake.DUPLICATE:
            self._metrics.duplicates.inc()
        elif not outcome.is_settled and waiting.incoming.source in (Source.PUSH, Source.POLL):
            self._metrics.frames_dropped.labels("hold" if outcome is Intake.NOT_NOW else "out_of_sequence").inc()
            self._polls.missed()
        if outcome.is_settled and waiting.incoming.source is Source.PUSH:
            self.unpolled.note(waiting.incoming.frame.conversation_id)
        return outcome

    def _must_wait(self, incoming: Incoming) -> bool:
        is_push = incoming.source is Source.PUSH
        return self._is_paused or (is_push and self.unpolled.must_wait(incoming.frame.conversation_id))

    async def _stored(self, waiting: MessageInWork) -> Intake:
        envelope = self._reader.parse(waiting.incoming)
        if not isinstance(envelope, Envelope):
            return await self._settle(waiting, envelope)
        async with self._reader.locked(envelope):
            for _ in range(MOST_CONFLICTS):
                outcome = await self._settle(
                    waiting, await self._reader.read(waiting.incoming, envelope, waiting.place.take)
                )
                if outcome is not Intake.CONFLICT:
                    return outcome
        return await self._given_up(waiting)

    async def _given_up(self, waiting: MessageInWork) -> Intake:
        """Puts a message that conflicted too often into quarantine, where it holds up nobody and is tried again."""
        error = Unreadable(Reason.NO_SESSION, f"changed {MOST_CONFLICTS} times while it was read")
        waiting.reason = error.reason.value
        if waiting.incoming.source is Source.QUARANTINE:
            return Intake.GONE
        outcome = await self._quarantine(waiting.incoming, Unread(waiting.incoming.arrival(), error))
        self._triggers.session_began(waiting.incoming.frame.sender_id, b"")  # it is tried once more, beside the others
        return outcome

    async def _settle(self, waiting: MessageInWork, reading: Reading) -> Intake:
        """Makes the one commit that follows from a reading. CONFLICT if what it was read with has changed meanwhile."""
        match reading:
            case Known():
                return Intake.DUPLICATE
            case Old():
                return await self._note_old(reading)
            case Waits():
                outcome = await self._wait_at_the_relay(waiting.incoming, reading)
                if outcome is not Intake.NOT_NOW or reading.otherwise is None:
                    return outcome
                return await self._settle(waiting, reading.otherwise)
            case Readable():
                outcome = await self._accept(waiting.incoming, reading)
            case Unread():
                waiting.reason = reading.error.reason.value
                if waiting.incoming.source is Source.QUARANTINE:
                    return Intake.CONFLICT if await self._has_moved(reading.arrival) else Intake.GONE
                await waiting.place.take()
                outcome = await self._quarantine(waiting.incoming, reading)
        if outcome.is_new and reading.arrival.session is not None and reading.record is not None:
            self._sessions.taken_in(reading.arrival.session, reading.record)
        return outcome

    async def _has_moved(self, arrival: Arrival) -> bool:
        """Whether another supervisor has moved the session meanwhile by which a message out of quarantine was judged unreadable."""
        if not arrival.signed_id or arrival.peer == NO_PEER:
            return False
        snapshot = await self._store.look(arrival.conversation_id, arrival.peer, arrival.signed_id)
        return snapshot.session_version != arrival.session_version

    async def _accept(self, incoming: Incoming, read: Readable) -> Intake:
        arrival = read.arrival
        if incoming.source is Source.QUARANTINE:
            outcome = await self._store.requeue(arrival, read.job)
        else:
            outcome = await self._store.accept(
                arrival, read.job, answer=read.answer, opened_ms=now_ms(), stops=read.stops
            )
            if outcome in (Intake.FULL, Intake.HELD) and (question := await self._reader.question_answered(read)):
                outcome = await self._store.accept(
                    arrival, read.job, answer=read.answer, opened_ms=now_ms(), stops=read.stops, question=question
                )
            if outcome is Intake.FULL:
                outcome = await self._refuse(incoming, read)
            if outcome is Intake.HELD and incoming.may_wait:
                outcome = await self._hold(arrival, by_itself=True)
        if outcome.is_new:
            self._metrics.inbound(arrival.kind, read.payload_type)
            if read.hops >= LAST_HOP:
                self._metrics.frames_dropped.labels("hops").inc()
                log.info("message: agents answer each other, given to no handler", message_id=arrival.message_id)
            if read.is_overheard:
                self._metrics.frames_dropped.labels("not_mentioned").inc()
            if read.begins_session:
                self._triggers.session_began(arrival.peer[0], read.begins_session)
        if outcome is Intake.LATE and incoming.source is not Source.HELD:
            self._metrics.late.inc()
        return outcome

    async def _wait_at_the_relay(self, incoming: Incoming, reading: Waits) -> Intake:
        """Has a message wait at the relay. HELD if it was fetched from there: its note stands, and it is fetched again."""
        if not incoming.may_wait:
            return Intake.HELD
        return await self._hold(reading.arrival, by_itself=reading.by_itself)

    async def _hold(self, arrival: Arrival, *, by_itself: bool) -> Intake:
        """Notes that a message waits at the relay, while others go on: by itself, or since others of its sender wait there."""
        outcome = await self._store.hold(arrival, by_itself=by_itself)
        if outcome is Intake.NOTED:
            self._metrics.held.inc()
        return outcome

    async def _refuse(self, incoming: Incoming, read: Readable) -> Intake:
        """Takes a message in with a refusal: too many of its conversation wait already, and the sender is told so (rule 11)."""
        arrival = read.arrival
        refusal = await self._words.refusal(
            *(arrival.message_id, arrival.conversation_id, arrival.message_ms),
            hops=answering_hops(sender_type_of(incoming.frame), read.hops),
        )
        outcome = await self._store.accept(arrival, read.job, answer=read.answer, refusal=refusal, opened_ms=now_ms())
        if outcome is Intake.REFUSED:
            self._metrics.refused.inc()
            log.warning("message: refused, its conversation is full", conversation_id=arrival.conversation_id)
        return outcome

    async def _note_old(self, old: Old) -> Intake:
        outcome = await self._store.note_old(old.arrival, old.reason)
        if outcome is Intake.OLD:
            self._metrics.old.inc()
            log.info("message: old, noted", message_id=old.arrival.message_id, reason=old.reason)
        return outcome

    async def _quarantine(self, incoming: Incoming, unread: Unread) -> Intake:
        arrival, error, frame = unread.arrival, unread.error, incoming.frame
        encoded = msgspec.json.encode(frame)
        outcome = await self._store.quarantine(
            arrival,
            reason=error.reason.value,
            frame=encoded if error.reason.value in MENDABLE_REASONS else b"",
            evidence=evidence_of(frame, encoded),
            plaintext=unread.plaintext,
            answer=unread.answer,
            sender_id=frame.sender_id,
            digest=digest_of(frame.conversation_id, frame.encrypted_payload),
            waits_for=OUR_CLOCK if isinstance(error, DatedAhead) else unread.waits_for or frame.sender_id,
        )
        if outcome.is_new:
            self._metrics.decrypt_failure.labels(error.reason.value).inc()
            log.warning(
                "message: quarantined",
                message_id=arrival.name,
                conversation_id=frame.conversation_id,
                reason=error.reason.value,
                detail=error.detail,
            )
            if unread.answer:
                self._metrics.renegotiations.inc()
                log.warning(
                    "session: renewed", owner=arrival.peer[0], device=arrival.peer[1], reason=error.reason.value
                )
        return outcome


def _named_apart(incoming: Incoming) -> Incoming:
    frame = incoming.frame
    name = name_beside(frame.message_id, digest_of(frame.conversation_id, frame.encrypted_payload))
    return msgspec.structs.replace(incoming, kept_as=name)
