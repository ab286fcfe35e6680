"""Messages on their way in (DESIGN §3, `accept`, `quarantine`, `requeue`; rules 1 to 4, 9, 11, 17)."""

from collections.abc import Iterable

import msgspec

from bus.memory.world import UNCOUNTED_BYTES, Conversation, World, size_of
from bus.records.records import GROUP, STOP_ALL, decode_job_record
from bus.steps.held import SEPARATOR, Note
from bus.steps.letters import GivenUp, Quarantined
from bus.steps.store import MOST_WAITING_IN_ALL, Arrival, ConversationSnapshot, Intake, Source
from bus.steps.write_count import WriteCount
from host.budgets import UNLIMITED_REDIS_BYTES, StoreBudgets


class MemoryStore:
    """As `bus.steps.store.Store`."""

    def __init__(self, world: World, write_count: WriteCount, most_waiting_in_all: int = MOST_WAITING_IN_ALL) -> None:
        self._world = world
        self._write_count = write_count
        self._most_waiting = most_waiting_in_all
        self.budgets = StoreBudgets.of(UNLIMITED_REDIS_BYTES)

    async def look(
        self, conversation_id: str, peer: tuple[str, str], signed_id: bytes, seq: int = 0
    ) -> ConversationSnapshot:
        at, session = self._world.conversation(conversation_id), self._world.session(peer)
        known = at.knows(signed_id)
        missing = 0
        if at.next_seq > 1 and seq > at.next_seq:
            own = sum(at.next_seq <= one < seq for one in at.own_seqs)
            missing = max(0, seq - at.next_seq - own - (at.sent is not None))
        return ConversationSnapshot(
            known,
            at.next_seq,
            at.dropped_ms,
            session.version,
            session.sealed,
            session.epoch,
            at.kind,
            at.person,
            sender_waits=bool(self._world.notes.get(peer[0])),
            missing=missing,
        )

    async def accept(
        self,
        arrival: Arrival,
        job: bytes | None,
        *,
        answer: bytes = b"",
        refusal: bytes = b"",
        opened_ms: int = 0,
        stops: str = "",
        question: str = "",
    ) -> Intake:
        world, at = self._world, self._world.conversation(arrival.conversation_id)
        if at.knows(arrival.signed_id):
            return Intake.DUPLICATE
        if self._conflicts(at, arrival):
            return Intake.CONFLICT
        if arrival.source is Source.PUSH and arrival.seq > at.next_seq:
            return Intake.GAP
        theirs = world.notes.get(arrival.sender_id)
        if theirs and arrival.source is not Source.HELD and world.waits_at_relay(arrival.conversation_id):
            return Intake.HELD
        if is_stop := bool(stops) and self._is_stop(at, stops, arrival):
            job = None
        is_let_in = job is not None and bool(question) and self._lets_in(at, question, job)
        is_full = job is not None and not is_let_in and world.is_full(at)
        if job is not None and (refused := await self._has_no_room(at, arrival, job, refusal, is_let_in)) is not None:
            return refused
        was_late = arrival.seq < at.next_seq
        self._take_in(at, arrival)
        at.pin(arrival.kind, arrival.person)
        if is_stop:
            world.stop(at, stops)
        if is_let_in:
            at.waits_let.add(question)
        if answer:
            world.say_once(at, answer)
        if is_full and job is not None:
            world.say_once(at, refusal)
            return Intake.REFUSED
        if job is not None:
            world.deliver(at, arrival.seq, job)
        return Intake.LATE if was_late else Intake.ACCEPTED

    async def hold(self, arrival: Arrival, *, by_itself: bool) -> Intake:
        world, at = self._world, self._world.conversation(arrival.conversation_id)
        if at.knows(arrival.signed_id):
            return Intake.DUPLICATE
        if arrival.source is Source.PUSH and arrival.seq > at.next_seq:
            return Intake.GAP
        notes = world.notes.get(arrival.sender_id, {})
        open_field = SEPARATOR + arrival.conversation_id
        former = notes.get(open_field)
        is_behind = former is not None and arrival.seq >= former.seq
        if arrival.message_id in notes or (former is not None and former.stands_for(arrival.seq)):
            return Intake.NOTED
        if not by_itself and not notes:
            return Intake.CONFLICT
        total = sum(map(len, world.notes.values()))
        if not is_behind and total >= self.budgets.most_held:
            return Intake.NOT_NOW
        note = Note(world.wrote(), arrival.seq, arrival.conversation_id, arrival.message_id, world.cursor)
        if is_behind and former is not None:
            note = msgspec.structs.replace(former, message_id=arrival.message_id, last_seq=arrival.seq)
            world.counted[arrival.sender_id, open_field] += 1
        elif arrival.seq >= at.next_seq and len(notes) >= (self.budgets.most_held - total) / 4:
            note = msgspec.structs.replace(note, last_seq=arrival.seq)
            world.counted[arrival.sender_id, open_field] = 1
        else:
            note = msgspec.structs.replace(note, signed_id=arrival.signed_id.hex())
        field = open_field if note.is_open else arrival.message_id
        world.notes.setdefault(arrival.sender_id, {})[field] = note
        at.take_seq(arrival.seq)
        self._write_count.seen(world.write_count)
        return Intake.NOTED

    async def publish_bounds(self) -> None:
        self._world.most_out = self.budgets.out_bytes
        self._world.most_history = self.budgets.history_bytes

    async def quarantine(
        self,
        arrival: Arrival,
        *,
        reason: str,
        frame: bytes,
        evidence: bytes = b"",
        plaintext: bytes = b"",
        answer: bytes = b"",
        sender_id: str = "",
        digest: str = "",
        waits_for: str = "",
    ) -> Intake:
        world, at = self._world, self._world.conversation(arrival.conversation_id)
        is_signed = arrival.signed_id != b""
        former = world.quarantine.get(arrival.name)
        if is_signed and at.knows(arrival.signed_id):
            return Intake.DUPLICATE
        if former and world.digests[arrival.name] != digest:
            return Intake.TAKEN
        if former and (former.is_signed or not is_signed):
            return Intake.DUPLICATE
        if is_signed and world.session(arrival.peer).version != arrival.session_version:
            return Intake.CONFLICT
        if arrival.source is Source.PUSH and arrival.seq > at.next_seq:
            return Intake.GAP
        was_late = arrival.seq < at.next_seq
        self._move_session(arrival)
        at.take_seq(arrival.seq)
        self._write_count.seen(world.wrote())
        if is_signed and arrival.kind:
            at.pin(arrival.kind, arrival.person)
        world.digests[arrival.name] = digest
        world.kept.pop(arrival.name, None)
        payer = sender_id if is_signed else ""
        if not world.has_room_for(payer, len(frame) + len(plaintext), self.budgets):
            frame = plaintext = b""
        world.kept[arrival.name] = (payer, len(frame) + len(plaintext))
        world.quarantine[arrival.name] = Quarantined(
            message_id=arrival.name,
            reason=reason,
            conversation_id=arrival.conversation_id,
            sender_id=sender_id,
            since_ms=world.now_ms,
            is_signed=is_signed,
            frame=frame,
            plaintext=plaintext,
            evidence=evidence,
            cursor=None if frame else world.cursor,
            seq=arrival.seq,
            waits_for=waits_for,
        )
        if answer:
            world.say_once(at, answer)
        return Intake.LATE if was_late else Intake.ACCEPTED

    async def _has_no_room(
        self, at: Conversation, arrival: Arrival, job: bytes, refusal: bytes, is_let_in: bool
    ) -> Intake | None:
        if self._world.waiting_in_all() + await self.waiting_jobs() >= self._most_waiting:
            return Intake.NOT_NOW
        if is_let_in:
            return None
        is_counted = at.has_job or len(job) > UNCOUNTED_BYTES
        if is_counted and not self._world.has_room(arrival.sender_id, self.budgets):
            return Intake.HELD
        if not self._world.is_full(at):
            return None
        if arrival.source is Source.HELD or (at.is_sending and "!refused" in at.own):
            return Intake.HELD
        return None if refusal else Intake.FULL

    def _is_stop(self, at: Conversation, what: str, arrival: Arrival) -> bool:
        under_way = at.job or at.retry
        if under_way is None:
            return False
        of = decode_job_record(under_way.record).sender_id
        if of != arrival.sender_id and (of or arrival.kind == GROUP):
            return False
        if what == STOP_ALL:
            return self._world.policies.stop
        return at.stopped != STOP_ALL and what in at.cards_at.values()

    def _lets_in(self, at: Conversation, question: str, job: bytes) -> bool:
        if question not in at.waits or question in at.waits_let:
            return False
        return self._world.loads()["total"] + size_of(job) <= self.budgets.waiting_bytes

    async def note_old(self, arrival: Arrival, reason: str) -> Intake:
        note = (arrival.conversation_id, arrival.seq, arrival.message_id)
        if arrival.message_id in self._world.quarantine or note in self._world.old:
            return Intake.DUPLICATE
        self._world.old[note] = reason
        self._write_count.seen(self._world.wrote())
        return Intake.OLD

    async def requeue(self, arrival: Arrival, job: bytes | None) -> Intake:
        world, at = self._world, self._world.conversation(arrival.conversation_id)
        kept = world.quarantine.get(arrival.name)
        if kept is None:
            return Intake.GONE
        if self._conflicts(at, arrival):
            return Intake.CONFLICT
        del world.quarantine[arrival.name], world.kept[arrival.name]
        world.wanted.discard(arrival.name)
        if at.knows(arrival.signed_id):
            world.wrote()
            return Intake.DUPLICATE
        self._move_session(arrival)
        at.pin(arrival.kind, arrival.person)
        at.remember(arrival.signed_id, arrival.message_ms)
        if job is not None:
            world.deliver(at, arrival.seq, job)
        self._write_count.seen(world.wrote())
        return Intake.ACCEPTED

    def _conflicts(self, at: Conversation, arrival: Arrival) -> bool:
        stale = arrival.session is not None and self._world.session(arrival.peer).version != arrival.session_version
        prekey = arrival.used_one_time_prekey
        used_up = prekey is not None and prekey not in self._world.one_time_prekeys
        return stale or used_up or not at.pins_allow(arrival.kind, arrival.person)

    def _take_in(self, at: Conversation, arrival: Arrival) -> None:
        self._move_session(arrival)
        at.remember(arrival.signed_id, arrival.message_ms)
        at.take_seq(arrival.seq)
        self._write_count.seen(self._world.wrote())

    def _move_session(self, arrival: Arrival) -> None:
        if arrival.session is not None:
            session = self._world.session(arrival.peer)
            session.version, session.sealed = arrival.session_version + 1, arrival.session.sealed
            session.epoch = arrival.epoch
        if arrival.used_one_time_prekey is not None:
            self._world.one_time_prekeys.discard(arrival.used_one_time_prekey)

    async def cursor(self) -> str | None:
        return self._world.cursor

    async def advance_cursor(self, read: str | None, to: str) -> bool:
        if self._world.cursor != read:
            return False
        self._world.cursor = to
        self._world.wrote()
        return True

    async def now_ms(self) -> int:
        return self._world.now_ms

    async def waiting_jobs(self) -> int:
        return sum(at.job is not None for at in self._world.conversations.values())


class MemoryNotes:
    """As `bus.steps.held.Notes`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def count(self) -> int:
        return sum(map(len, self._world.notes.values()))

    async def senders(self) -> list[str]:
        return list(self._world.notes)

    async def of(self, sender_id: str) -> list[Note]:
        return sorted(self._world.notes.get(sender_id, {}).values(), key=lambda note: note.order)

    async def may_come(self, sender_id: str, first: Note, budgets: StoreBudgets) -> bool:
        world, loads = self._world, self._world.loads()
        if loads["s:" + sender_id] > (budgets.waiting_bytes - loads["total"]) / 8:
            return False
        return len(world.mailbox(world.conversation(first.conversation_id))) <= world.policies.most_waiting // 2

    async def forget(self, sender_id: str, note: Note, *, is_gone: bool = False) -> bool:
        if note.last_seq is not None:
            return self._move(sender_id, note, note.last_seq, "") > 0
        notes = self._world.notes.get(sender_id, {})
        if notes.pop(note.message_id, None) is None:
            return False
        if not notes:
            del self._world.notes[sender_id]
        self._world.wrote()
        if is_gone:
            self._world.bury(b"", "gone_at_relay")
        return True

    async def reached(self, sender_id: str, note: Note, seq: int, message_id: str) -> bool:
        return self._move(sender_id, note, seq, message_id) != 2

    def _move(self, sender_id: str, note: Note, seq: int, message_id: str) -> int:
        world, field = self._world, SEPARATOR + note.conversation_id
        notes = world.notes.get(sender_id, {})
        found = notes.get(field)
        if found is None or found.last_seq is None or seq < found.seq or (not message_id and seq < found.last_seq):
            return 0
        world.wrote()
        if message_id:
            world.counted[sender_id, field] -= 1
        if seq < found.last_seq:
            notes[field] = msgspec.structs.replace(found, seq=seq + 1, cursor=message_id)
            return 1
        del notes[field]
        if not notes:
            del world.notes[sender_id]
        if world.counted.pop((sender_id, field)) <= 0:
            return 1
        world.bury(b"", "gone_at_relay")
        return 2


class MemoryQuarantine:
    """As `bus.steps.letters.Quarantine`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def count(self) -> int:
        return len(self._world.quarantine)

    async def find(self, message_id: str) -> Quarantined | None:
        return self._world.quarantine.get(message_id)

    async def want(self, message_ids: Iterable[str]) -> None:
        self._world.wanted.update(message_ids)

    async def wanted(self) -> list[str]:
        return sorted(self._world.wanted)

    async def tried(self, message_id: str) -> None:
        self._world.wanted.discard(message_id)

    async def drop(self, message_id: str, why: GivenUp = "operator") -> bool:
        self._world.wanted.discard(message_id)
        self._world.kept.pop(message_id, None)
        return self._world.quarantine.pop(message_id, None) is not None
