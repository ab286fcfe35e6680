"""Jobs in a worker's hands (DESIGN §3, `emit`, `finish`, `fail`; rules 6, 8, 9, 10): every step names the token it holds."""

import time
from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

import msgspec

from bus.memory.world import Conversation, Entry, Retry, World, size_of, stands_apart
from bus.records.apologies import is_owed_an_apology
from bus.records.budgets import ADMITTED, TOLD_AGAIN_AFTER_MS, Charge, Limit, of_sender
from bus.records.cards import MOST_UPDATES, CardKept, CardMove, decode_card
from bus.records.journal import MOST_JOURNAL_BYTES, pack_entry, read_emitted
from bus.records.kept import WAIT, open_kept, pack_kept
from bus.records.records import (
    MOST_DELIVERIES,
    STOP_ALL,
    Job,
    JobRecord,
    Reply,
    ReplyPlace,
    decode_job_record,
    open_job,
    pack_reply,
    unpack_job,
)
from bus.records.sealing import BusKey
from bus.records.timers import Timer, pack_timer
from bus.steps.job_steps import (
    APOLOGY_PLACE,
    BOUND_PLACE,
    Carded,
    CardEmitted,
    Emitted,
    Failed,
    Finished,
    Said,
    Settled,
    Started,
    Taken,
)
from bus.steps.kept_steps import KeptEffects
from bus.steps.opened import Exchange, exchange_in
from bus.steps.policies import Policies
from bus.steps.thread_steps import Admitted, Bound, Effect, Noted, OpenWait, TimersThere, WaitsThere

CARDS_KEPT = 1000
CARDS_TRIM_AT = 1250


def ends_company(record: bytes, asked: Sequence[str]) -> bool:
    return bool(stands_apart(record)) or decode_job_record(record).sender_id in asked


def card_moved(kept: CardKept | None, move: CardMove, job: Job, place: str) -> CardKept | CardEmitted:
    """Returns what is kept of a card behind a reply that sends or updates it; else why it cannot be moved."""
    if kept is not None and move.kind:
        return kept
    if move.kind:
        return CardKept(0, job.thread_id, place, move.kind)
    if kept is None:
        return CardEmitted(Carded.UNKNOWN)
    if kept.revision != move.based_on:
        return CardEmitted(Carded.MOVED, kept.revision)
    if kept.revision >= MOST_UPDATES:
        return CardEmitted(Carded.SPENT)
    return msgspec.structs.replace(kept, revision=kept.revision + 1)


class MemorySteps(KeptEffects):
    """As `bus.steps.kept_steps.KeptSteps`."""

    def __init__(self, world: World, agent_id: str, bus_key: BusKey, consumer: str, policies: Policies) -> None:
        self._world = world
        self._agent_id = agent_id
        self._bus_key = bus_key
        self._consumer = consumer
        self._policies = policies

    async def take(self) -> Job | None:
        """The oldest entry that nobody holds."""
        free = [at.job for at in self._world.conversations.values() if at.job is not None and at.job.holder is None]
        if not free:
            return None
        entry = min(free, key=lambda entry: int(entry.id.partition("-")[0]))
        entry.holder, entry.renewed_ms = self._consumer, self._world.now_ms
        return unpack_job(
            entry.record,
            entry_id=entry.id,
            attempt=entry.attempt,
            deliveries=entry.deliveries,
            strikes=entry.strikes,
            has_past=entry.has_past,
            key=self._bus_key,
            agent_id=self._agent_id,
        )

    async def renew(self, *entry_ids: str) -> tuple[list[str], list[str]]:
        """Those that are lost, those that are superseded."""
        held = {
            at.job.id: at.job
            for at in self._world.conversations.values()
            if at.job is not None and at.job.holder == self._consumer
        }
        for entry_id in entry_ids:
            if entry_id in held:
                held[entry_id].renewed_ms = self._world.now_ms
        superseded = [entry_id for entry_id in entry_ids if entry_id in held and held[entry_id].interrupted]
        return [entry_id for entry_id in entry_ids if entry_id not in held], superseded

    def _held(self, job: Job) -> tuple[Conversation, Entry] | None:
        at = self._world.conversation(job.conversation_id)
        entry = at.job
        if entry is None or entry.id != job.entry_id or entry.holder != self._consumer:
            return None
        return at, entry

    async def start(
        self, job: Job, *, began_ms: int | None = None, is_alone: bool = False, asked: Sequence[str] = ()
    ) -> Started:
        held = self._held(job)
        if held is None:
            return Started("fenced")
        at, entry = held
        is_stopped = at.stopped == STOP_ALL
        if entry.interrupted and not is_stopped:
            return Started("superseded")
        at.recall(job.job_id)
        is_alone = is_alone or job.kind != "message" or bool(job.continues) or bool(stands_apart(entry.record))
        if not at.frozen and self._policies.busy == "coalesce" and not (is_alone or is_stopped):
            taken = [one for one in self._world.mailbox(at) if not at.placed or one[0] <= at.placed[0][0]]
            at.together = list(takewhile(lambda one: not ends_company(one, asked), [record for _, record in taken]))
            at.waiting = at.waiting[len(at.together) :]
        at.frozen = entry.began = True
        self._world.wrote()
        together = [open_job(record, key=self._bus_key, agent_id=self._agent_id) for record in at.together]
        found = {f"={name}": entry for name, entry in at.journal.items()} | dict.fromkeys(at.emitted, b"1")
        found |= {place: card.encode() for place, card in at.cards_at.items()}
        places, cards, journal = read_emitted(found, job, self._bus_key, self._agent_id)
        is_answer = BOUND_PLACE in found
        how: Literal["started", "stopped"] = "stopped" if is_stopped else "started"
        return Started(how, places, tuple(together), cards=cards, journal=journal, is_answer=is_answer)

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted:
        held = self._held(job)
        if held is None:
            return Emitted.FENCED
        at, _ = held
        if place in at.emitted:
            return Emitted.ALREADY
        if not self._world.may_say(at):
            return Emitted.FULL
        at.emitted.add(place)
        self._world.wrote()
        self._world.say(at, self._pack(job, place, reply))
        return Emitted.QUEUED

    def _pack_apology(self, job: Job, apology: Reply | None) -> bytes:
        if apology is None or not is_owed_an_apology(job.message, self._agent_id):
            return b""
        return self._pack(msgspec.structs.replace(job, continues=""), APOLOGY_PLACE, apology)

    async def emit_to(
        self, job: Job, conversation_id: str, place: str, reply: Reply, card: CardMove | None = None
    ) -> Emitted:
        held = self._held(job)
        if held is None:
            return Emitted.FENCED
        at, other = held[0], self._world.conversations.get(conversation_id)
        if place in at.emitted:
            return Emitted.ALREADY
        if other is None or other.kind is None:
            return Emitted.UNKNOWN
        if not self._world.may_say(other):
            return Emitted.FULL
        at.emitted.add(place)
        if card is not None:
            at.cards_at[place] = card.card_id
            self._keep_card(other, card.card_id, CardKept(0, job.thread_id, place, card.kind))
        self._world.wrote()
        where = ReplyPlace(job.thread_id, conversation_id, place, job.accepted_ms)
        packed = pack_reply(
            where,
            reply,
            emitted_ms=int(time.time() * 1000),
            key=self._bus_key,
            agent_id=self._agent_id,
            trace=job.trace,
        )
        self._world.say(other, packed)
        return Emitted.QUEUED

    def _keep_card(self, at: Conversation, card_id: str, card: CardKept) -> None:
        at.cards[card_id] = card
        if len(at.cards) >= CARDS_TRIM_AT:
            at.cards = dict(sorted(at.cards.items())[-CARDS_KEPT:])

    async def emit_card(self, job: Job, place: str, reply: Reply, move: CardMove) -> CardEmitted:
        held = self._held(job)
        if held is None:
            return CardEmitted(Carded.FENCED)
        at, _ = held
        if place in at.emitted:
            return CardEmitted(Carded.ALREADY)
        moved = card_moved(at.cards.get(move.card_id), move, job, place)
        if isinstance(moved, CardEmitted):
            return moved
        if not self._world.may_say(at):
            return CardEmitted(Carded.FULL)
        at.emitted.add(place)
        at.cards_at[place] = move.card_id
        self._keep_card(at, move.card_id, moved)
        self._world.wrote()
        self._world.say(at, self._pack(job, place, reply))
        return CardEmitted(Carded.QUEUED)

    def sent_as(self, job: Job, place: str, *, is_elsewhere: bool = False) -> str:
        return ""

    def card_id(self, job: Job, place: str) -> str:
        return self._bus_key.card_id(job.message_ms, job.thread_id, place)

    async def stopped(self, job: Job) -> str:
        return self._world.conversation(job.conversation_id).stopped

    async def card(self, job: Job, card_id: str) -> CardKept | None:
        return self._world.conversation(job.conversation_id).cards.get(card_id)

    def _pack(self, job: Job, place: str, reply: Reply) -> bytes:
        at = ReplyPlace(job.thread_id, job.conversation_id, place, job.message_ms)
        return pack_reply(
            at,
            reply,
            emitted_ms=int(time.time() * 1000),
            key=self._bus_key,
            agent_id=self._agent_id,
            trace=job.trace,
        )

    async def finish(
        self,
        job: Job,
        outcome: Settled = "done",
        *,
        last: Sequence[Said] = (),
        began_ms: int | None = None,
    ) -> Finished:
        return self._end(job, last, ())

    async def settle(
        self,
        job: Job,
        outcome: Settled,
        effects: Sequence[Effect],
        *,
        last: Sequence[Said] = (),
        began_ms: int | None = None,
    ) -> Finished:
        return self._end(job, last, effects)

    def _end(self, job: Job, last: Sequence[Said], effects: Sequence[Effect]) -> Finished:
        held = self._held(job)
        if held is None:
            return Finished.FENCED
        at, _ = held
        if last and not self._world.may_say(at):
            return Finished.FULL
        if why := self._world.why_refused(effects, at):
            return Finished(why.encode())
        at.recall(job.job_id)
        for place, reply in last:
            if place not in at.emitted:
                self._world.say(at, self._pack(job, place, reply))
        for effect in effects:
            self._write(job.conversation_id, effect)
        self._world.wrote()
        self._world.end_job(at)
        return Finished.DONE

    def seal_entry(self, job: Job, name: str, value: bytes) -> bytes:
        return pack_entry(value, job, name, self._bus_key, self._agent_id)

    def seal_timer(self, timer: Timer) -> bytes:
        return pack_timer(timer, key=self._bus_key, agent_id=self._agent_id)

    async def timers_there(self, job: Job, timer_id: str) -> TimersThere:
        here = [one for conversation, one in self._world.timers if conversation == job.conversation_id]
        return TimersThere(self._world.now_ms, len(here), timer_id in here)

    def seal_wait(self, job: Job, wait_id: str, body: bytes) -> bytes:
        return pack_kept(body, WAIT, job.conversation_id, wait_id, key=self._bus_key, agent_id=self._agent_id)

    async def open_waits(self, job: Job) -> list[OpenWait]:
        at = self._world.conversation(job.conversation_id)
        return [
            OpenWait(
                wait_id,
                self.open_wait(job.conversation_id, wait_id, record),
                at.waits_from[wait_id],
                at.waits_bound.get(wait_id, ""),
            )
            for wait_id, record in at.waits.items()
        ]

    def open_wait(self, conversation_id: str, wait_id: str, record: bytes) -> bytes:
        """Returns what is sealed in the record of an open question."""
        return open_kept(record, WAIT, conversation_id, wait_id, key=self._bus_key, agent_id=self._agent_id)

    async def message_id_of(self, thread_id: str, place: str, since_ms: int) -> str:
        return self._world.acknowledged.get((thread_id, place), "")

    async def waits_there(self) -> WaitsThere:
        return WaitsThere(self._world.now_ms, self._world.waits_bytes())

    async def may_come_back(self, job: Job, job_id: str) -> bool:
        letters = [one.record_or_none() for one in self._world.dead.values()]
        is_dead = any(isinstance(one, JobRecord) and one.job_id == job_id for one in letters)
        return is_dead or job_id in self._world.conversation(job.conversation_id).emitted_before_death

    async def bind_wait(self, job: Job, wait_id: str, *, instead_of: str = "") -> Bound:
        held = self._held(job)
        if held is None:
            return Bound.FENCED
        at, entry = held
        if wait_id not in at.waits:
            return Bound.GONE
        if at.waits_bound.get(wait_id, job.job_id) not in (job.job_id, instead_of):
            return Bound.TAKEN
        at.waits_bound[wait_id] = job.job_id
        at.emitted.add(BOUND_PLACE)
        at.is_uninterrupted, entry.interrupted = True, False
        self._world.wrote()
        return Bound.BOUND

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
        held = self._held(job)
        if held is None:
            return Noted.FENCED
        journal = held[0].journal
        if journal.get(name) == entry:
            return Noted.NOTED
        if name in journal and only_new:
            return Noted.ALREADY
        if in_epoch and job.epoch is not None and self._world.epoch > job.epoch:
            return Noted.RAISED
        if sum(size_of(one) for other, one in journal.items() if other != name) + size_of(entry) + room > most:
            return Noted.FULL
        if change is not None and (why := self._world.why_refused([change])):
            return Noted(why.encode())
        journal[name] = entry
        if change is not None:
            self._write(job.conversation_id, change)
        for subject in charge.subjects if charge else ():
            self._world.budget(subject).tokens += charge.tokens if charge else 0
        self._world.wrote()
        return Noted.NOTED

    async def admit(self, job: Job, limits: Sequence[Limit], entry: bytes, *, tells: bool) -> Admitted:
        held, world = self._held(job), self._world
        if held is None:
            return Admitted("fenced")
        at, now_ms = held[0], world.now_ms
        if ADMITTED in at.journal:
            return Admitted("admitted")
        beyond = next(
            (number for number, one in enumerate(limits) if world.budget(one.subject).has(one) >= one.most), None
        )
        if beyond is None:
            for subject in {one.subject for one in limits}:
                counted = world.budget(subject)
                counted.messages += 1
                counted.recent.append(now_ms)
            at.journal[ADMITTED] = entry
            world.wrote()
            return Admitted("admitted")
        sender = world.budget(of_sender(job.message.sender_id))
        is_told = tells and (
            sender.told_by == job.job_id or not now_ms < sender.told_until_ms <= now_ms + TOLD_AGAIN_AFTER_MS
        )
        if is_told:
            if sender.told_by != job.job_id:
                sender.told_by, sender.told_until_ms = job.job_id, now_ms + TOLD_AGAIN_AFTER_MS
            world.wrote()
        return Admitted("beyond", beyond, is_told)

    async def fail(
        self,
        job: Job,
        reason: str,
        retry_after_ms: int | None,
        apology: Reply | None = None,
        *,
        takes: Taken = "attempt",
    ) -> Failed:
        held = self._held(job)
        if held is None:
            return Failed.FENCED
        at, entry = held
        self._world.wrote()
        if retry_after_ms is None or (takes != "nothing" and entry.deliveries - at.waited >= MOST_DELIVERIES):
            self._world.give_up(at, entry, job.job_id, reason, self._pack_apology(job, apology))
            self._world.end_job(at)
            return Failed.DEAD
        if entry.interrupted and at.stopped != STOP_ALL:
            at.emitted_before_death.pop(job.job_id, None)
            at.journal_before_death.pop(job.job_id, None)
            self._world.end_job(at)
            return Failed.SUPERSEDED
        due_ms = self._world.now_ms + (0 if at.stopped == STOP_ALL else retry_after_ms)
        at.waited += takes == "nothing"
        attempt = entry.attempt + (takes == "attempt")
        at.job, at.retry = None, Retry(entry.record, attempt, entry.deliveries + 1, entry.strikes, due_ms)
        return Failed.RETRY

    async def hand_back(self, job: Job, *, has_begun: bool = False, apology: Reply | None = None) -> bool:
        held = self._held(job)
        if held is None:
            return False
        at, entry = held
        self._world.wrote()
        if has_begun and entry.deliveries - at.waited >= MOST_DELIVERIES:
            self._world.give_up(at, entry, job.job_id, "deliveries", self._pack_apology(job, apology))
            self._world.end_job(at)
            return True
        self._world.run_again(at, entry, deliveries=entry.deliveries + has_begun, strikes=entry.strikes)
        return False

    def _write(self, conversation_id: str, effect: Effect) -> None:
        """An effect of a job's end."""
        at, timers = self._world.conversation(conversation_id), self._world.timers
        match effect:
            case ("timer", str(timer_id), int(due_ms), bytes(record)):
                timers[conversation_id, timer_id] = (due_ms, record)
            case ("drop_timer", str(timer_id), _, _):
                timers.pop((conversation_id, timer_id), None)
            case ("wait", str(wait_id), bytes(record), _):
                at.waits[wait_id] = record
                at.waits_from[wait_id] = at.next_seq
            case ("drop_wait", str(wait_id), _, _):
                at.drop_wait(wait_id)
            case ("card", str(card_id), str(kept), _):
                self._keep_card(at, card_id, at.cards.get(card_id) or decode_card(kept.encode()))
            case ("state", bytes(record), _, _):
                at.state = record
            case ("exchange", bytes(record), _, _):
                self._world.keep_exchange(at, record)
            case ("store", str(name), _, record):
                self._world.store.pop(name, None)
                if isinstance(record, bytes):
                    self._world.store[name] = record
            case ("forget", _, _, _):
                at.state, at.history, at.waits, at.waits_from, at.waits_bound, at.cards = None, [], {}, {}, {}, {}
                at.waits_let.clear()
                for where in [one for one in timers if one[0] == conversation_id]:
                    del timers[where]
            case _:
                raise ValueError(f"no effect is called {effect[0]}")

    async def read_state(self, job: Job) -> bytes | None:
        record = self._world.conversation(job.conversation_id).state
        return None if record is None else self._open_state(job, record)

    async def read_exchanges(self, job: Job) -> list[Exchange]:
        return [exchange_in(one) for one in self._world.conversation(job.conversation_id).history]

    async def read_stored(self, name: str) -> tuple[bytes, bytes | None]:
        return self._open_stored(name, self._world.store.get(name))

    async def read_both(self, job: Job) -> tuple[bytes | None, list[Exchange]]:
        return await self.read_state(job), await self.read_exchanges(job)

    def _now_ms(self) -> float:
        return self._world.now_ms
