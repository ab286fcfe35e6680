"""All that an agent's bus keeps, and what happens to a conversation: its jobs one at a time, its replies one at a time.

Everything that can be computed is: a conversation is busy because something of it is under way, not because a set says so.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bus.records.budgets import DAY_MS, MINUTE_MS, Limit
from bus.records.cards import CardKept
from bus.records.journal import READ_PLACE, joined
from bus.records.kept import (
    EXCHANGES_KEPT_MS,
    MOST_EXCHANGES,
    MOST_WAITS_BYTES,
    VERSION_BYTES,
    exchange_name,
    exchanged_ms,
)
from bus.records.records import ANSWER, PLACED_SCHEMA, SCHEMA_VERSION, STOP_ALL, decode_job_record, decode_reply_record
from bus.steps.held import Note
from bus.steps.job_steps import APOLOGY_PLACE
from bus.steps.letters import DeadLetter, Quarantined
from bus.steps.opened import exchange_in
from bus.steps.policies import Policies
from bus.steps.thread_steps import Effect
from host.budgets import StoreBudgets

IDS_KEPT = 1024
IDS_TRIM_AT = 1536
UNCOUNTED_BYTES = 4096
OVERHEAD_BYTES = 200
MOST_HISTORY_BYTES = 1 << 18
MOST_STORED = 10_000
MOST_STORE_BYTES = 1 << 22


@dataclass
class Entry:
    """Of the jobs or the replies under way. Its id is the fencing token of whoever holds it."""

    id: str
    record: bytes
    attempt: int = 1
    deliveries: int = 1
    strikes: int = 0
    began: bool = False
    interrupted: bool = False
    has_past: bool = False
    """As it was when this entry was made: what a dropped letter took with it meanwhile is still looked for."""
    holder: str | None = None
    renewed_ms: int = 0


@dataclass
class Retry:
    """A failed job that waits for its time."""

    record: bytes
    attempt: int
    deliveries: int
    strikes: int
    due_ms: int


@dataclass
class Sent:
    """A committed send that waits for its acknowledgement."""

    client_message_id: str
    record: bytes
    holder: str
    due_ms: int
    place: str = ""
    job_id: str = ""


@dataclass
class Counted:
    """What is counted of one subject of budgets, on a day."""

    day: int = 0
    messages: int = 0
    tokens: int = 0
    recent: list[int] = field(default_factory=list)
    told_until_ms: int = 0
    told_by: str = ""

    def has(self, limit: Limit) -> int:
        return {
            "messages_per_minute": len(self.recent),
            "messages_per_day": self.messages,
            "tokens_per_day": self.tokens,
        }[limit.kind]


@dataclass
class Conversation:
    """One at a time: `job` or `retry`, `reply` or `sent`."""

    next_seq: int = 1
    kind: str | None = None
    person: str | None = None
    ids: list[tuple[bytes, int]] = field(default_factory=list)
    dropped_ms: int = 0
    own_seqs: set[int] = field(default_factory=set)
    job: Entry | None = None
    retry: Retry | None = None
    waited: int = 0
    """Deliveries of the running job that do not count."""

    frozen: bool = False
    together: list[bytes] = field(default_factory=list)
    emitted: set[str] = field(default_factory=set)
    cards_at: dict[str, str] = field(default_factory=dict)
    """Of the running job: the card at some of the places that were emitted, and what else has a place as its name."""

    stopped: str = ""
    """The card of the running job whose Stop was pressed, or STOP_ALL."""

    cards: dict[str, CardKept] = field(default_factory=dict)
    emitted_before_death: dict[str, set[str]] = field(default_factory=dict)
    journal: dict[str, bytes] = field(default_factory=dict)
    """Of the running thread: name → entry."""

    journal_before_death: dict[str, dict[str, bytes]] = field(default_factory=dict)
    cards_before_death: dict[str, dict[str, str]] = field(default_factory=dict)
    state: bytes | None = None
    history: list[bytes] = field(default_factory=list)
    waits: dict[str, bytes] = field(default_factory=dict)
    """Wait → record."""

    waits_from: dict[str, int] = field(default_factory=dict)
    waits_bound: dict[str, str] = field(default_factory=dict)
    waits_let: set[str] = field(default_factory=set)
    """Those that have let a message in beyond all bounds."""
    is_uninterrupted: bool = False
    """The running job answers a question."""
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    placed: list[tuple[int, bytes]] = field(default_factory=list)
    """Jobs that no message began, each with the seq behind which it waits."""

    out_box: list[bytes] = field(default_factory=list)
    reply: Entry | None = None
    sent: Sent | None = None
    stream: str | None = None
    own: set[str] = field(default_factory=set)
    """Places of what we said by ourselves and the relay does not have yet."""

    @property
    def is_sending(self) -> bool:
        return self.reply is not None or self.sent is not None

    @property
    def unsaid(self) -> list[bytes]:
        """Replies behind the one that is under way."""
        return self.out_box[1:] if self.reply is not None else self.out_box

    @property
    def has_job(self) -> bool:
        return self.job is not None or self.retry is not None

    def recall(self, job_id: str) -> None:
        """What a dead letter that was brought back had emitted and noted."""
        self.emitted |= self.emitted_before_death.pop(job_id, set())
        self.journal |= self.journal_before_death.pop(job_id, {})
        self.cards_at |= self.cards_before_death.pop(job_id, {})

    def drop_wait(self, wait_id: str) -> None:
        self.waits.pop(wait_id, None)
        self.waits_from.pop(wait_id, None)
        self.waits_bound.pop(wait_id, None)
        self.waits_let.discard(wait_id)

    def knows(self, signed_id: bytes) -> bool:
        return any(known == signed_id for known, _ in self.ids)

    def remember(self, signed_id: bytes, message_ms: int) -> None:
        self.ids.append((signed_id, message_ms))
        if len(self.ids) >= IDS_TRIM_AT:
            forgotten, self.ids = self.ids[:-IDS_KEPT], self.ids[-IDS_KEPT:]
            self.dropped_ms = max(self.dropped_ms, *(ms for _, ms in forgotten))

    def take_seq(self, seq: int) -> None:
        if seq >= self.next_seq:
            self.next_seq = seq + 1
            while self.next_seq in self.own_seqs:
                self.next_seq += 1
        self.own_seqs = {own for own in self.own_seqs if own >= self.next_seq}

    def pins_allow(self, kind: str, person: str) -> bool:
        return self.kind is None or (self.kind, self.person) == (kind, person)

    def pin(self, kind: str, person: str) -> None:
        if self.kind is None:
            self.kind, self.person = kind, person


@dataclass
class Session:
    version: int = 0
    sealed: bytes | None = None
    epoch: int = 0


@dataclass
class World:
    """Copying it deeply and putting the copy back is what a Redis does that goes back in time."""

    now_ms: int = 1_000_000
    write_count: int = 0
    epoch: int = 0
    server: str | None = None
    commits: int = 0
    entries: int = 0
    conversations: dict[str, Conversation] = field(default_factory=dict)
    sessions: dict[tuple[str, str], Session] = field(default_factory=dict)
    one_time_prekeys: set[int] = field(default_factory=set)
    cursor: str | None = None
    policies: Policies = field(default_factory=Policies)
    lease: tuple[str, int] = ("", 0)
    quarantine: dict[str, Quarantined] = field(default_factory=dict)
    old: dict[tuple[str, int, str], str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    kept: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By name: who pays for what is kept whole ('' nobody has proven to have signed it), and its bytes."""
    wanted: set[str] = field(default_factory=set)
    notes: dict[str, dict[str, Note]] = field(default_factory=dict)
    """By sender and message_id (or SEPARATOR and the conversation)."""

    counted: Counter[tuple[str, str]] = field(default_factory=Counter)
    """For how many messages each open-ended note stands."""

    timers: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)
    """By conversation and id: when it is due, and its record."""

    acknowledged: dict[tuple[str, str], str] = field(default_factory=dict)
    """The relay's ids of what was said, by thread and place."""

    placements: set[str] = field(default_factory=set)
    """Ids of the jobs that were placed."""

    most_out: int | None = None
    most_history: int | None = None
    store: dict[str, bytes] = field(default_factory=dict)
    line: list[bytes] = field(default_factory=list)
    """Messages from outside that wait for their turn."""

    turn: tuple[str, int] = ("", 0)
    """Whose it is, and until when at most."""

    budgets: dict[str, Counted] = field(default_factory=dict)
    send_keys: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    """What was said under each, and until when that is remembered."""

    dead: dict[str, DeadLetter] = field(default_factory=dict)
    tokens: float | None = None
    tokens_at_ms: int = 0

    def conversation(self, conversation_id: str) -> Conversation:
        return self.conversations.setdefault(conversation_id, Conversation())

    def session(self, peer: tuple[str, str]) -> Session:
        return self.sessions.setdefault(peer, Session())

    def wrote(self) -> int:
        self.write_count += 1
        return self.write_count

    def new_entry(self, record: bytes, attempt: int = 1, deliveries: int = 1, strikes: int = 0) -> Entry:
        self.entries += 1
        return Entry(f"{self.entries}-0", record, attempt, deliveries, strikes)

    def first_entry(self, at: Conversation, record: bytes) -> Entry:
        """A job's first delivery; while questions are open its record is of a schema that an older version leaves to others."""
        is_first_schema = bool(at.waits) and record[1] == SCHEMA_VERSION
        entry = self.new_entry(record[:1] + bytes([PLACED_SCHEMA]) + record[2:] if is_first_schema else record)
        entry.has_past = bool(at.waits or at.emitted_before_death)
        return entry

    # Quarantine

    def has_room_for(self, payer: str, size: int, budgets: StoreBudgets) -> bool:
        total = sum(kept for _, kept in self.kept.values())
        held = sum(kept for by, kept in self.kept.values() if by == payer)
        if total + size > budgets.quarantine_bytes:
            return False
        if not payer:
            return held + size <= budgets.unsigned_bytes
        return held < (budgets.quarantine_bytes - total) / 4

    # What waits, in bytes

    def loads(self) -> Counter[str]:
        """Of each sender, in all (`total`), of replies (`out`)."""
        loads = Counter[str]()
        for at in self.conversations.values():
            counted = [record for _, record in at.waiting + at.placed] + at.together
            under_way = at.job or at.retry
            if under_way is not None and len(under_way.record) > UNCOUNTED_BYTES:
                counted.append(under_way.record)
            for record in counted:
                loads["s:" + decode_job_record(record).sender_id] += size_of(record)
                loads["total"] += size_of(record)
            loads["journal"] += sum(map(size_of, at.journal.values()))
            loads["total"] += sum(map(size_of, at.journal.values()))
            loads["out"] += sum(map(size_of, at.unsaid))
            loads["waits_open"] += len(at.waits)
            loads["waits"] += sum(map(size_of, at.waits.values()))
        loads["outside"] = sum(map(size_of, self.line))
        return +loads

    def waits_at_relay(self, conversation_id: str) -> bool:
        """Whether a message of this conversation does."""
        return any(note.conversation_id == conversation_id for notes in self.notes.values() for note in notes.values())

    def has_room(self, sender_id: str, budgets: StoreBudgets) -> bool:
        loads = self.loads()
        return loads["s:" + sender_id] < (budgets.waiting_bytes - loads["total"]) / 4

    def may_say(self, at: Conversation) -> bool:
        if not at.is_sending or self.most_out is None:
            return True
        return sum(map(size_of, at.unsaid)) < (self.most_out - self.loads()["out"]) / 4

    # What comes from outside

    @property
    def whose_turn(self) -> str | None:
        """The message from outside that is on its way and not committed yet."""
        return self.turn[0] if self.turn[1] > self.now_ms else None

    def end_turn(self, message_id: str) -> None:
        if self.turn[0] == message_id:
            self.turn = ("", 0)

    def line_has_room(self, record: bytes) -> bool:
        loads = self.loads()
        return self.most_out is None or loads["outside"] + size_of(record) <= (self.most_out - loads["out"]) / 2

    def said_under(self, name: bytes) -> bytes | None:
        said, until_ms = self.send_keys.get(name, (b"", 0))
        return said if until_ms > self.now_ms else None

    # What waits: the mailbox, and under `park` what has no room in it

    def mailbox(self, at: Conversation) -> list[tuple[int, bytes]]:
        return at.waiting[: self.policies.most_waiting] if self.policies.full == "park" else at.waiting

    def is_full(self, at: Conversation) -> bool:
        return at.has_job and self.policies.full == "refuse" and len(at.waiting) >= self.policies.most_waiting

    def waiting_in_all(self) -> int:
        return sum(len(self.mailbox(at)) for at in self.conversations.values())

    # What is kept for the whole agent

    def waits_bytes(self) -> int:
        return sum(size_of(record) for at in self.conversations.values() for record in at.waits.values())

    def why_refused(self, effects: Sequence[Effect], at: Conversation | None = None) -> str:
        """Why these may not be written into the store, or the waits of a conversation; '' if they may."""
        after, waits, total = dict(self.store), dict(at.waits if at else {}), self.waits_bytes()
        for op, name, version, record in effects:
            if op in ("wait", "drop_wait"):
                before = waits.pop(str(name), None)
                total -= 0 if before is None else size_of(before)
            if op == "wait" and isinstance(version, bytes):
                waits[str(name)] = version
                total += size_of(version)
                if total > MOST_WAITS_BYTES:
                    return "waits_full"
            if op != "store":
                continue
            if version not in ("*", self.store.get(str(name), b"")[:VERSION_BYTES]):
                return "changed"
            after.pop(str(name), None)
            if isinstance(record, bytes):
                after[str(name)] = record
                if len(after) > MOST_STORED or sum(map(size_of, after.values())) > MOST_STORE_BYTES:
                    return "store_full"
        return ""

    # What was said

    def keep_exchange(self, at: Conversation, record: bytes) -> None:
        at.history.append(record)
        while len(at.history) > 2:
            mine = sum(map(size_of, at.history))
            others = sum(sum(map(size_of, one.history)) for one in self.conversations.values())
            has_share = self.most_history is None or mine <= (self.most_history - others) / 4
            is_young = exchanged_ms(at.history[0]) >= self.now_ms - EXCHANGES_KEPT_MS
            if len(at.history) <= MOST_EXCHANGES and is_young and mine <= MOST_HISTORY_BYTES and has_share:
                return
            del at.history[0]

    # Jobs

    def deliver(self, at: Conversation, seq: int, record: bytes) -> None:
        """To the handler: at once, or behind what is under way, in order."""
        if not at.has_job:
            at.job = self.first_entry(at, record)
            return
        at.waiting.append((seq, record))
        at.waiting.sort(key=lambda item: item[0])
        under_way = at.job or at.retry
        if (
            self.policies.busy == "interrupt"
            and under_way is not None
            and not at.is_uninterrupted
            and ANSWER not in (stands_apart(record), stands_apart(under_way.record))
            and seq > decode_job_record(under_way.record).seq
        ):
            if at.job is not None:
                at.job.interrupted = True
            else:
                self.end_job(at)

    def place(self, at: Conversation, record: bytes) -> None:
        """A job that no message began: at once, or behind everything that waits."""
        if at.has_job:
            at.placed.append((at.next_seq - 1, record))
        else:
            at.job = self.first_entry(at, record)

    def run_again(self, at: Conversation, entry: Entry, *, deliveries: int, strikes: int) -> None:
        """The same job under a new token."""
        at.job = self.new_entry(entry.record, entry.attempt, deliveries, strikes)
        at.job.interrupted = entry.interrupted
        at.job.has_past = entry.has_past or at.stopped == STOP_ALL

    def budget(self, subject: str) -> Counted:
        """What is counted of a subject now."""
        day, counted = self.now_ms // DAY_MS, self.budgets.setdefault(subject, Counted())
        if counted.day != day:
            counted.day, counted.messages, counted.tokens = day, 0, 0
        counted.recent = [one for one in counted.recent if self.now_ms - MINUTE_MS < one <= self.now_ms]
        return counted

    def stop(self, at: Conversation, what: str) -> None:
        """A card's Stop, or that of all that the running job does: who has not begun it, or waits to do so again, asks first."""
        at.stopped = what
        if what == STOP_ALL and at.retry is not None:
            at.retry.due_ms = min(at.retry.due_ms, self.now_ms)
        elif what == STOP_ALL and at.job is not None:
            if at.job.holder is None:
                self.run_again(at, at.job, deliveries=at.job.deliveries, strikes=at.job.strikes)
            else:
                at.job.interrupted = True

    def end_job(self, at: Conversation) -> None:
        """It is over, however: the next one, or none."""
        at.job = at.retry = None
        at.frozen = at.is_uninterrupted = False
        at.waited = 0
        at.together, at.emitted, at.cards_at, at.journal, at.stopped = [], set(), {}, {}, ""
        if at.placed and not (at.waiting and at.waiting[0][0] <= at.placed[0][0]):
            at.job = self.first_entry(at, at.placed.pop(0)[1])
        elif at.waiting:
            at.job = self.first_entry(at, at.waiting.pop(0)[1])
            is_interruptible = self.policies.busy == "interrupt" and stands_apart(at.job.record) != ANSWER
            at.job.interrupted = is_interruptible and any(stands_apart(one) != ANSWER for _, one in at.waiting)

    def bury(
        self,
        record: bytes,
        reason: str,
        *,
        attempt: int = 0,
        deliveries: int = 0,
        places: set[str] | None = None,
        values: bytes = b"",
    ) -> None:
        letter = DeadLetter(
            self.new_entry(record).id,
            reason,
            record,
            attempt,
            deliveries,
            self.now_ms,
            " ".join(places or ()),
            values=values,
        )
        self.dead[letter.id] = letter

    def give_up(self, at: Conversation, entry: Entry, job_id: str, reason: str, apology: bytes) -> None:
        """Makes a job a dead letter and says the `apology`, if there is one and it was not said before."""
        at.recall(job_id)
        is_owed = bool(apology) and APOLOGY_PLACE not in at.emitted
        if is_owed:
            at.emitted.add(APOLOGY_PLACE)
        newest = exchange_in(at.history[-1]) if at.history else None
        read = "" if newest is None else exchange_name(newest.at_ms, newest.thread_id)  # no later version writes here
        at.cards_at.setdefault(READ_PLACE, read)
        words = [word for name, noted in at.journal.items() for word in (b"=" + name.encode(), noted)]
        words += [word.encode() for place, card in at.cards_at.items() for word in (place, card)]
        self.bury(
            entry.record,
            reason,
            attempt=entry.attempt,
            deliveries=entry.deliveries,
            places=at.emitted,
            values=joined(words),
        )
        for record in at.together:
            self.bury(record, reason, attempt=1, deliveries=1)
        if is_owed:
            self.say(at, apology)

    # Replies

    def say(self, at: Conversation, record: bytes) -> None:
        at.out_box.append(record)
        self.start_next_reply(at)

    def say_once(self, at: Conversation, record: bytes) -> None:
        place = decode_reply_record(record).place
        if not (at.is_sending and place in at.own):
            at.own.add(place)
            self.say(at, record)

    def start_next_reply(self, at: Conversation) -> None:
        if at.reply is None and at.sent is None and at.out_box:
            at.reply = self.new_entry(at.out_box[0])


def stands_apart(record: bytes) -> str:
    return decode_job_record(record).apart


def size_of(record: bytes) -> int:
    """As it is counted where it waits."""
    return len(record) + OVERHEAD_BYTES
