# ruff: noqa: ARG002 - the bus asks for more than a double needs
"""A bus in memory: what the runner and a chat ask of Redis, with the answers that a test wants."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import trio

from bus.records import ulid
from bus.records.budgets import Charge, Limit
from bus.records.cards import CardKept, CardMove, decode_card
from bus.records.journal import MOST_JOURNAL_BYTES
from bus.records.presence import Presence
from bus.records.records import MOST_DELIVERIES, BadRecord, InboundMessage, Job, Reply
from bus.records.timers import Timer
from bus.steps.job_steps import Carded, CardEmitted, Emitted, Failed, Finished, Said, Started, Taken
from bus.steps.opened import Exchange
from bus.steps.thread_steps import Admitted, Bound, Effect, Noted, OpenWait, TimersThere, WaitsThere
from bus.transport.wire import RedisFailed, RedisRefused, RedisUnavailable
from tests.waiting import said_of, waiting_for

Decoded = TypeVar("Decoded")


def job_of(text: str = "hi", *, number: int = 1, attempt: int = 1, deliveries: int = 1, strikes: int = 0) -> Job:
    message = InboundMessage(
        message_id=f"message-{number}",
        conversation_id=f"conversation-{number}",
        conversation_type="h2a",
        sender_id="person",
        sender_type="human",
        payload={"type": "text", "text": text},
    )
    return Job(
        entry_id=f"{number}-0",
        job_id=message.message_id,
        conversation_id=message.conversation_id,
        attempt=attempt,
        deliveries=deliveries,
        accepted_ms=1,
        message_ms=1,
        message=message,
        strikes=strikes,
    )


@dataclass
class MemoryBus:
    """Keeps WorkerBus. `away` makes every operation fail as a Redis that is gone, `fault` with this exception, `refused` those of
    this name.
    """

    emitted_before: frozenset[str] = frozenset()
    away: bool = False
    fault: RedisFailed | None = None
    refused: str = ""
    emit_answers: dict[str, Emitted] = field(default_factory=dict)
    stops: str = ""
    elsewhere: list[tuple[str, str, Reply]] = field(default_factory=list)
    card_answers: list[CardEmitted] = field(default_factory=list)
    """To the next cards, one after the other; then all are queued."""

    cards: dict[str, CardKept] = field(default_factory=dict)
    cards_before: dict[str, str] = field(default_factory=dict)
    moves: list[CardMove] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    journal: dict[str, bytes] = field(default_factory=dict)
    rooms: list[int] = field(default_factory=list)
    charged: list[Charge] = field(default_factory=list)
    note_answers: list[Noted] = field(default_factory=list)
    no_notes: RedisFailed | None = None
    """What noting something raises."""

    timers: TimersThere = field(default_factory=lambda: TimersThere(1_000_000, 0, is_there=False))
    open_waits_bytes: int = 0
    knows_ids: bool = False
    """Under which ids replies go out."""

    others_run: bool = False
    """Whether workers of another version are there."""

    settle_answers: list[Finished] = field(default_factory=list)
    settled: list[tuple[str, tuple[Effect, ...]]] = field(default_factory=list)
    replies: list[tuple[str, Reply]] = field(default_factory=list)
    deltas: list[tuple[str, int, str]] = field(default_factory=list)
    typing: list[tuple[float, bool]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    began: list[int | None] = field(default_factory=list)
    last: list[list[str]] = field(default_factory=list)
    together: tuple[InboundMessage, ...] = ()
    aborted: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    failed: list[tuple[str, str, int | None]] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    handed_back: list[str] = field(default_factory=list)
    handed_back_begun: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    states: dict[str, bytes] = field(default_factory=dict)
    """By conversation, as the last job's end left them."""

    exchanges: dict[str, list[bytes]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    meanwhile: dict[str, bytes] = field(default_factory=dict)
    """What another conversation puts into the store before this job's end is written, once."""

    asked: list[str] = field(default_factory=list)
    unreadable: BadRecord | None = None
    """What reading a state raises."""

    unreadable_times: int = 0
    """How often Redis is away when a state is read."""

    lost: Callable[[str], None] | None = None
    superseded: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Job](100)
        self.changed = trio.Event()

    def give(self, *jobs: Job) -> None:
        for job in jobs:
            self._send.send_nowait(job)

    def lose(self, job: Job) -> None:
        assert self.lost is not None
        self.lost(job.entry_id)

    async def until(self, condition: Callable[[], object]) -> None:
        with waiting_for(said_of(condition), 60):
            while not condition():
                await self.changed.wait()

    @contextmanager
    def _operation(self, name: str = "") -> Iterator[None]:
        if self.away:
            raise RedisUnavailable("away")
        if self.fault is not None:
            raise self.fault
        if name and name == self.refused:
            raise RedisRefused("WRONGTYPE", "wrong_type")
        yield
        self.changed.set()
        self.changed = trio.Event()

    async def take(self, count: int) -> list[Job]:
        with self._operation("take"):
            return [await self._receive.receive()]

    async def stop_taking(self) -> None:
        await trio.lowlevel.checkpoint()

    async def seen(self, presence: Presence | None = None) -> None:
        await trio.lowlevel.checkpoint()
        with self._operation("seen"):
            pass

    async def start(
        self, job: Job, *, began_ms: int | None = None, is_alone: bool = False, asked: Sequence[str] = ()
    ) -> Started:
        with self._operation("start"):
            self.started.append(job.job_id)
            return Started(
                "started", self.emitted_before, self.together, cards=self.cards_before, journal=dict(self.journal)
            )

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted:
        await trio.lowlevel.checkpoint()
        with self._operation("emit"):
            answer = self.emit_answers.get(place, Emitted.QUEUED)
            if answer is Emitted.QUEUED:
                self.replies.append((place, reply))
            return answer

    async def emit_to(
        self, job: Job, conversation_id: str, place: str, reply: Reply, card: CardMove | None = None
    ) -> Emitted:
        await trio.lowlevel.checkpoint()
        with self._operation("emit_to"):
            answer = self.emit_answers.get(place, Emitted.QUEUED)
            if answer is Emitted.QUEUED:
                self.elsewhere.append((conversation_id, place, reply))
                if card is not None:
                    self.cards[card.card_id] = CardKept(0, job.job_id, place, card.kind)
            elif answer is Emitted.FULL:
                del self.emit_answers[place]
            return answer

    async def emit_card(self, job: Job, place: str, reply: Reply, move: CardMove) -> CardEmitted:
        await trio.lowlevel.checkpoint()
        with self._operation("emit_card"):
            if self.card_answers:
                answer = self.card_answers.pop(0)
                if answer.outcome is not Carded.QUEUED:
                    return answer
            kept = self.cards.get(move.card_id)
            if kept is None:
                self.cards[move.card_id] = CardKept(0, job.job_id, place, move.kind)
            else:
                self.cards[move.card_id] = msgspec.structs.replace(kept, revision=kept.revision + 1)
            self.replies.append((place, reply))
            self.moves.append(move)
            return CardEmitted(Carded.QUEUED)

    async def card(self, job: Job, card_id: str) -> CardKept | None:
        with self._operation("card"):
            self.looked_up.append(card_id)
            return self.cards.get(card_id)

    async def until_stop_is_pressed(self, job: Job, seconds: float) -> None:
        await trio.sleep(seconds)

    async def stopped(self, job: Job) -> str:
        with self._operation("stopped"):
            return self.stops

    def sent_as(self, job: Job, place: str, *, is_elsewhere: bool = False) -> str:
        if not self.knows_ids:
            return ""
        return ulid.make(int(is_elsewhere), hashlib.sha256(f"{job.job_id} {place}".encode()).digest()[:10])

    def card_id(self, job: Job, place: str) -> str:
        return f"card-{job.job_id}-{place}"

    def seal_timer(self, timer: Timer) -> bytes:
        return msgspec.msgpack.encode(timer)

    async def timers_there(self, job: Job, timer_id: str) -> TimersThere:
        await trio.lowlevel.checkpoint()
        with self._operation("timers_there"):
            return self.timers

    def seal_entry(self, job: Job, name: str, value: bytes) -> bytes:
        return value

    def seal_wait(self, job: Job, wait_id: str, body: bytes) -> bytes:
        return body

    async def open_waits(self, job: Job) -> list[OpenWait]:
        return []

    async def waits_there(self) -> WaitsThere:
        return WaitsThere(self.timers.now_ms, self.open_waits_bytes)

    async def message_id_of(self, thread_id: str, place: str, since_ms: int) -> str:
        return ""

    async def is_beside_another_version(self, mine: Presence) -> bool:
        return self.others_run

    async def may_come_back(self, job: Job, job_id: str) -> bool:
        return True

    async def bind_wait(self, job: Job, wait_id: str, *, instead_of: str = "") -> Bound:
        return Bound.GONE

    async def admit(self, job: Job, limits: Sequence[Limit], entry: bytes, *, tells: bool) -> Admitted:
        return Admitted("admitted")

    async def note(
        self,
        job: Job,
        name: str,
        entry: bytes,
        *,
        room: int = 0,
        most: int = MOST_JOURNAL_BYTES,
        only_new: bool = False,
        change: Effect | None = None,
        in_epoch: bool = False,
        charge: Charge | None = None,
    ) -> Noted:
        await trio.lowlevel.checkpoint()
        with self._operation("note"):
            if self.no_notes is not None:
                raise self.no_notes
            if self.note_answers:
                return self.note_answers.pop(0)
            if only_new and self.journal.get(name, entry) != entry:
                return Noted.ALREADY
            if change is not None:
                self.stored.update(self.meanwhile)
                self.meanwhile = {}
                if change[2] != self.stored.get(str(change[1]), b""):
                    return Noted.CHANGED
                self._put(change)
            self.journal[name] = entry
            self.charged += [] if charge is None else [charge]
            self.rooms.append(room)
            return Noted.NOTED

    async def settle(
        self,
        job: Job,
        outcome: str,
        effects: Sequence[Effect],
        *,
        last: Sequence[Said] = (),
        began_ms: int | None = None,
    ) -> Finished:
        with self._operation("settle"):
            if self.settle_answers:
                return self.settle_answers.pop(0)
        self.stored.update(self.meanwhile)
        self.meanwhile = {}
        for op, name, version, _ in effects:
            if op == "store" and version not in ("*", self.stored.get(str(name), b"")):
                return Finished.CHANGED
        self.settled.append((outcome, tuple(effects)))
        for op, body, kept, record in effects:
            if op == "store":
                self._put(("store", body, "", record))
            elif op == "state" and isinstance(body, bytes):
                self.states[job.conversation_id] = body
            elif op == "card":
                self.cards.setdefault(str(body), decode_card(str(kept).encode()))
            elif op == "exchange" and isinstance(body, bytes):
                self.exchanges.setdefault(job.conversation_id, []).append(body)
        return await self.finish(job, outcome, last=last, began_ms=began_ms)

    def _put(self, effect: Effect) -> None:
        _, name, _, record = effect
        self.stored.pop(str(name), None)
        if isinstance(record, bytes):
            self.stored[str(name)] = record

    async def finish(
        self, job: Job, outcome: str = "done", *, last: Sequence[Said] = (), began_ms: int | None = None
    ) -> Finished:
        with self._operation("finish"):
            self.replies.extend(last)
            self.last += [[place for place, _ in last]] if last else []
            self.began.append(began_ms)
            self.finished.append(job.job_id)
            self.outcomes.append(outcome)
            return Finished.DONE

    async def read_state(self, job: Job) -> bytes | None:
        await trio.lowlevel.checkpoint()
        self.asked.append("state")
        if self.unreadable is not None:
            raise self.unreadable
        if self.unreadable_times:
            self.unreadable_times -= 1
            raise RedisUnavailable("away")
        with self._operation("read_state"):
            return self.states.get(job.conversation_id)

    async def read_exchanges(self, job: Job) -> list[Exchange]:
        await trio.lowlevel.checkpoint()
        self.asked.append("history")
        with self._operation("read_exchanges"):
            return [Exchange(0, "", body) for body in self.exchanges.get(job.conversation_id, [])]

    async def read_stored(self, name: str) -> tuple[bytes, bytes | None]:
        await trio.lowlevel.checkpoint()
        with self._operation("read_stored"):
            body = self.stored.get(name)
            return body or b"", body

    def store_effect(self, name: str, version: bytes | None, body: bytes | None) -> Effect:
        return ("store", name, "*" if version is None else version, "" if body is None else body)

    async def read_both(self, job: Job) -> tuple[bytes | None, list[Exchange]]:
        return await self.read_state(job), await self.read_exchanges(job)

    def open_exchanges(
        self,
        job: Job,
        exchanges: Iterable[Exchange],
        decode: Callable[[bytes], Decoded],
        *,
        until: str | None = None,
    ) -> list[Decoded]:
        return [decode(one.sealed) for one in list(exchanges)[: None if until is None else int(until)]]

    def newest_exchange(self, job: Job, exchanges: Iterable[Exchange]) -> str:
        return str(len(list(exchanges)))

    def state_effect(self, job: Job, body: bytes) -> Effect:
        return ("state", body, "", "")

    def exchange_effect(self, job: Job, at_ms: int, body: bytes) -> Effect:
        return ("exchange", body, "", "")

    def forget_effect(self, job: Job) -> Effect:
        return ("forget", "", "", "")

    async def fail(
        self,
        job: Job,
        reason: str,
        retry_after_ms: int | None,
        apology: Reply | None = None,
        *,
        takes: Taken = "attempt",
    ) -> Failed:
        with self._operation("fail"):
            if retry_after_ms is None and apology is not None:
                self.replies.append(("!apology", apology))
            self.failed.append((job.job_id, reason, retry_after_ms))
            self.taken.append(takes)
            return Failed.DEAD if retry_after_ms is None else Failed.RETRY

    async def hand_back(self, job: Job, *, has_begun: bool = False, apology: Reply | None = None) -> bool:
        with self._operation("hand_back"):
            self.handed_back.append(job.job_id)
            self.handed_back_begun += [job.job_id] * has_begun
            return has_begun and job.deliveries >= MOST_DELIVERIES

    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None:
        with self._operation("publish_delta"):
            self.deltas.append((stream_id, seq, text))

    async def publish_typing(self, job: Job, active: bool) -> None:
        with self._operation("publish_typing"):
            self.typing.append((trio.current_time(), active))

    async def publish_abort(self, job: Job) -> None:
        with self._operation("publish_abort"):
            self.aborted.append(job.job_id)

    def hold(self, job: Job) -> None:
        self.held.add(job.entry_id)

    def release(self, job: Job) -> None:
        self.held.discard(job.entry_id)

    def on_fenced(self, callback: Callable[[str], None]) -> None:
        self.lost = callback

    def on_superseded(self, callback: Callable[[str], None]) -> None:
        self.superseded = callback

    def supersede(self, job: Job) -> None:
        assert self.superseded is not None
        self.superseded(job.entry_id)


def texts(bus: MemoryBus) -> list[tuple[str, object]]:
    return [(place, reply.payload.get("text")) for place, reply in bus.replies]
