"""Second chances (DESIGN §3, `due`, `reclaim`, `audit`; rules 6 to 8), and what was given up and may come back."""

from collections.abc import Iterator

from bus.memory.world import Conversation, Entry, Sent, World
from bus.records.journal import words_of
from bus.records.keys import JOBS_GROUP, REPLIES_GROUP
from bus.records.records import (
    MOST_DELIVERIES,
    STOP_ALL,
    SUSPECTED,
    JobRecord,
    OutboxRecord,
    ReplyRecord,
    decode_job_record,
    decode_reply_record,
)
from bus.records.saved import pairs
from bus.steps.letters import DeadLetter, Revived
from bus.steps.recovery import HeldEntries, Pending, Reclaim, Reclaimed

MOST_STRIKES = 2


class MemoryWorkLease:
    """As `bus.steps.work_lease.WorkLease`."""

    def __init__(self, world: World, holder: str) -> None:
        self._world = world
        self._holder = holder

    async def hold(self, lease_ms: int) -> bool:
        holder, until_ms = self._world.lease
        if holder != self._holder and until_ms > self._world.now_ms:
            return False
        self._world.lease = (self._holder, self._world.now_ms + lease_ms)
        return True

    async def leave(self) -> None:
        if self._world.lease[0] == self._holder:
            self._world.lease = ("", 0)


class MemoryRecovery:
    """As `bus.steps.recovery.Recovery`."""

    def __init__(self, world: World, consumer: str) -> None:
        self._world = world
        self.lease = MemoryWorkLease(world, consumer)
        self.jobs = HeldEntries("jobs", JOBS_GROUP)
        self.replies = HeldEntries("replies", REPLIES_GROUP)

    def _taken(self, held: HeldEntries) -> Iterator[tuple[str, Conversation, Entry, str]]:
        for name, at in self._world.conversations.items():
            entry = at.job if held is self.jobs else at.reply
            if entry is not None and entry.holder is not None:
                yield name, at, entry, entry.holder

    async def holders(self, held: HeldEntries) -> list[str]:
        return sorted({holder for *_, holder in self._taken(held)})

    async def pending(self, held: HeldEntries, *, idle_ms: int = 0, consumer: str | None = None) -> list[Pending]:
        now = self._world.now_ms
        found = [Pending(entry.id, holder, now - entry.renewed_ms) for *_, entry, holder in self._taken(held)]
        return [one for one in found if one.idle_ms >= idle_ms and consumer in (None, one.consumer)]

    async def reclaim(self, held: HeldEntries, pending: Pending, how: Reclaim) -> Reclaimed:
        for name, at, entry, holder in list(self._taken(held)):
            silent_ms = self._world.now_ms - entry.renewed_ms
            if (entry.id, holder) == (pending.entry_id, pending.consumer) and silent_ms >= how.idle_ms:
                return self._reclaim_job(name, at, entry, how) if held is self.jobs else self._offer(name, at, entry)
        return Reclaimed("kept")

    def _offer(self, name: str, at: Conversation, entry: Entry) -> Reclaimed:
        self._world.wrote()
        at.reply = self._world.new_entry(entry.record)
        return Reclaimed("restarted", name, decode_reply_record(entry.record).job_id)

    def _reclaim_job(self, name: str, at: Conversation, entry: Entry, how: Reclaim) -> Reclaimed:
        record = decode_job_record(entry.record)
        strikes = entry.strikes
        if how.is_strike and (entry.began or entry.deliveries == 1):
            strikes = SUSPECTED if how.ran_many and not strikes else max(strikes, 0) + 1
        reason = how.ends_as
        if strikes >= MOST_STRIKES:
            reason = "poison"
        elif reason is None and entry.deliveries - at.waited >= MOST_DELIVERIES:
            reason = "deliveries"
        self._world.wrote()
        if reason is None:
            self._world.run_again(at, entry, deliveries=entry.deliveries + 1, strikes=strikes)
            return Reclaimed("restarted", name, record.job_id)
        self._world.give_up(at, entry, record.job_id, reason, b"" if how.apology is None else how.apology(record))
        self._world.end_job(at)
        return Reclaimed("dead", name, record.job_id, reason)

    async def start_due(self, now_ms: int) -> int:
        started = 0
        for at in self._world.conversations.values():
            retry = at.retry
            if retry is not None and retry.due_ms <= min(now_ms, self._world.now_ms):
                self._world.wrote()
                at.job = self._world.new_entry(retry.record, retry.attempt, retry.deliveries, retry.strikes)
                at.job.has_past = at.stopped == STOP_ALL
                at.retry = None
                started += 1
        return started

    async def audit(self, busy_since_ms: int) -> int:
        """Nothing in memory is ever lost."""
        return 0


class MemoryLetters:
    """As `bus.steps.letters.DeadLetters`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def count(self) -> int:
        return len(self._world.dead)

    async def first(self, count: int = 1000) -> list[DeadLetter]:
        return list(self._world.dead.values())[:count]

    async def find(self, letter_id: str) -> DeadLetter | None:
        return self._world.dead.get(letter_id)

    async def retry(self, letter: DeadLetter, consumer: str = "") -> Revived:
        if letter.id not in self._world.dead:
            return "gone"
        record = letter.decoded()
        at = self._world.conversation(record.conversation_id)
        is_sending = at.reply is not None or at.sent is not None
        if isinstance(record, OutboxRecord) and is_sending:
            return "busy"
        del self._world.dead[letter.id]
        self._world.wrote()
        match record:
            case JobRecord():
                if letter.places or letter.values:
                    at.emitted_before_death[record.job_id] = set(letter.places.split())
                for name, value in pairs(words_of(letter.values)):
                    if name.startswith(b"="):
                        at.journal_before_death.setdefault(record.job_id, {})[name.decode()[1:]] = value
                    else:
                        at.cards_before_death.setdefault(record.job_id, {})[name.decode()] = value.decode()
                if record.kind:
                    self._world.place(at, letter.record)
                else:
                    self._world.deliver(at, record.seq, letter.record)
            case ReplyRecord():
                self._world.say(at, letter.record)
            case OutboxRecord():
                at.sent = Sent(record.client_message_id, letter.record, consumer, self._world.now_ms)
        return "revived"

    async def drop(self, letter: DeadLetter) -> bool:
        if self._world.dead.pop(letter.id, None) is None:
            return False
        self._world.wrote()
        record = letter.record_or_none()
        if isinstance(record, JobRecord):
            at = self._world.conversation(record.conversation_id)
            for wait_id in [one for one, job_id in at.waits_bound.items() if job_id == record.job_id]:
                at.drop_wait(wait_id)
                self._world.timers.pop((record.conversation_id, wait_id), None)
        return True
