"""What every bus must do, whatever it is kept in: the operations of DESIGN §3 as small interfaces.

`bus` implements them over Lua in Redis, `bus.memory` in plain Python; one conformance suite holds both to the same rules.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from bus.records.budgets import Charge, Limit
from bus.records.cards import CardKept, CardMove
from bus.records.journal import MOST_JOURNAL_BYTES
from bus.records.outside import SendKey
from bus.records.records import Job, OutboxRecord, Reply, SentNote
from bus.records.timers import Timer
from bus.steps.held import Note
from bus.steps.job_steps import CardEmitted, Emitted, Failed, Finished, Said, Settled, Started, Taken
from bus.steps.letters import DeadLetter, GivenUp, Quarantined, Revived
from bus.steps.opened import Exchange
from bus.steps.outbox import Commit
from bus.steps.outside import Beside, SendOutcome
from bus.steps.placing import Pins, Placed
from bus.steps.recovery import HeldEntries, Pending, Reclaim, Reclaimed
from bus.steps.store import Arrival, ConversationSnapshot, Intake, SessionWrite
from bus.steps.thread_steps import Admitted, Bound, Effect, Noted, OpenWait, TimersThere, WaitsThere
from bus.steps.timers import AT_ONCE, Alarm, Fired
from host.budgets import StoreBudgets

Decoded = TypeVar("Decoded")


class Inbound(Protocol):
    budgets: StoreBudgets

    async def look(
        self, conversation_id: str, peer: tuple[str, str], signed_id: bytes, seq: int = 0
    ) -> ConversationSnapshot: ...

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
    ) -> Intake: ...

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
    ) -> Intake: ...

    async def note_old(self, arrival: Arrival, reason: str) -> Intake: ...

    async def hold(self, arrival: Arrival, *, by_itself: bool) -> Intake: ...

    async def publish_bounds(self) -> None: ...

    async def requeue(self, arrival: Arrival, job: bytes | None) -> Intake: ...

    async def cursor(self) -> str | None: ...

    async def advance_cursor(self, read: str | None, to: str) -> bool: ...

    async def now_ms(self) -> int: ...

    async def waiting_jobs(self) -> int: ...


class Steps(Protocol):
    async def start(
        self, job: Job, *, began_ms: int | None = None, is_alone: bool = False, asked: Sequence[str] = ()
    ) -> Started: ...

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted: ...

    async def emit_to(
        self, job: Job, conversation_id: str, place: str, reply: Reply, card: CardMove | None = None
    ) -> Emitted: ...

    def card_id(self, job: Job, place: str) -> str: ...

    async def emit_card(self, job: Job, place: str, reply: Reply, move: CardMove) -> CardEmitted: ...

    async def stopped(self, job: Job) -> str: ...

    async def card(self, job: Job, card_id: str) -> CardKept | None: ...

    async def finish(
        self,
        job: Job,
        outcome: Settled = "done",
        *,
        last: Sequence[Said] = (),
        began_ms: int | None = None,
    ) -> Finished: ...

    async def fail(
        self,
        job: Job,
        reason: str,
        retry_after_ms: int | None,
        apology: Reply | None = None,
        *,
        takes: Taken = "attempt",
    ) -> Failed: ...

    async def hand_back(self, job: Job, *, has_begun: bool = False, apology: Reply | None = None) -> bool: ...


class ThreadSteps(Steps, Protocol):
    def seal_entry(self, job: Job, name: str, value: bytes) -> bytes: ...

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
    ) -> Noted: ...

    def seal_timer(self, timer: Timer) -> bytes: ...

    async def timers_there(self, job: Job, timer_id: str) -> TimersThere: ...

    def seal_wait(self, job: Job, wait_id: str, body: bytes) -> bytes: ...

    async def open_waits(self, job: Job) -> list[OpenWait]: ...

    async def waits_there(self) -> WaitsThere: ...

    async def admit(self, job: Job, limits: Sequence[Limit], entry: bytes, *, tells: bool) -> Admitted: ...

    async def may_come_back(self, job: Job, job_id: str) -> bool: ...

    async def bind_wait(self, job: Job, wait_id: str, *, instead_of: str = "") -> Bound: ...

    async def settle(
        self,
        job: Job,
        outcome: Settled,
        effects: Sequence[Effect],
        *,
        last: Sequence[Said] = (),
        began_ms: int | None = None,
    ) -> Finished: ...


class KeptSteps(ThreadSteps, Protocol):
    async def read_state(self, job: Job) -> bytes | None: ...

    async def read_exchanges(self, job: Job) -> list[Exchange]: ...
    async def read_both(self, job: Job) -> tuple[bytes | None, list[Exchange]]: ...
    async def read_stored(self, name: str) -> tuple[bytes, bytes | None]: ...
    def store_effect(self, name: str, version: bytes | None, body: bytes | None) -> Effect: ...
    def open_exchanges(
        self, job: Job, exchanges: Iterable[Exchange], decode: Callable[[bytes], Decoded], *, until: str | None = None
    ) -> list[Decoded]: ...
    def newest_exchange(self, job: Job, exchanges: Iterable[Exchange]) -> str: ...

    def state_effect(self, job: Job, body: bytes) -> Effect: ...

    def exchange_effect(self, job: Job, at_ms: int, body: bytes) -> Effect: ...

    def forget_effect(self, job: Job) -> Effect: ...


class Outbound(Protocol):
    async def commit(
        self,
        *,
        entry_id: str,
        conversation_id: str,
        client_message_id: str,
        answers: tuple[str, str],
        record: OutboxRecord | None,
        sessions: Sequence[SessionWrite],
        epoch: int,
        rate_per_second: float,
        stream_id: str | None = None,
    ) -> Commit: ...

    async def post(self, conversation_id: str, reply_record: bytes) -> None: ...

    async def post_before(self, conversation_id: str, entry_id: str, reply_record: bytes) -> bool: ...

    async def confirm(
        self, conversation_id: str, client_message_id: str, message_id: str, seq: int, *, sent_ms: int | None = None
    ) -> SentNote | None: ...

    async def conversation_of(self, client_message_id: str) -> str | None: ...

    async def holder_of(self, conversation_id: str) -> str | None: ...

    async def due(self) -> list[str]: ...

    async def all(self) -> list[str]: ...

    async def resend(self, conversation_id: str, *, former_holder: str | None = None) -> OutboxRecord | None: ...

    async def postpone(self, conversation_id: str, client_message_id: str, after_ms: int) -> None: ...

    async def drop_reply(
        self,
        conversation_id: str,
        reason: str,
        *,
        answers: tuple[str, str] = ("", ""),
        entry_id: str = "",
        client_message_id: str = "",
    ) -> bool: ...

    async def acted(self, conversation_id: str, entry_id: str, *, answers: tuple[str, str], what: str) -> bool: ...

    async def give_back_reply(self, entry_id: str, conversation_id: str) -> None: ...

    async def open_streams(self) -> dict[str, str]: ...

    async def may_end_stream(self, conversation_id: str, run: str) -> bool: ...

    async def end_stream(self, conversation_id: str, stream: str) -> bool: ...


class Placing(Protocol):
    budgets: StoreBudgets

    async def pins(self, conversation_id: str) -> Pins | None: ...

    async def place(self, packed: bytes) -> Placed: ...


class Outside(Protocol):
    async def send(
        self,
        conversation_id: str,
        record: bytes,
        message_id: str,
        *,
        key: SendKey | None = None,
        budgets: StoreBudgets,
        is_job: bool = False,
        card: tuple[str, str] = ("", ""),
        beside: Beside = "",
        takes_back: str = "",
    ) -> SendOutcome: ...

    async def card(self, conversation_id: str, card_id: str) -> CardKept | None: ...

    async def let_out(self) -> bool: ...

    async def count(self) -> int: ...


class Timers(Protocol):
    budgets: StoreBudgets

    async def now_ms(self) -> int: ...

    async def due(self, until_ms: int, count: int = AT_ONCE) -> list[Alarm]: ...

    async def read(self, alarm: Alarm) -> bytes | None: ...

    def opened(self, packed: bytes, alarm: Alarm) -> Timer: ...

    async def declare(self, name: str, every_seconds: int, now_ms: int) -> bool: ...

    async def fire(self, packed: bytes, timer: Timer, now_ms: int) -> Fired: ...

    async def forget(self, packed: bytes | None, alarm: Alarm) -> None: ...

    async def postpone(self, alarm: Alarm, until_ms: int) -> None: ...

    async def count(self, conversation_id: str) -> int: ...


class WorkLease(Protocol):
    async def hold(self, lease_ms: int) -> bool: ...

    async def leave(self) -> None: ...


class Reclaiming(Protocol):
    @property
    def lease(self) -> WorkLease: ...

    @property
    def jobs(self) -> HeldEntries: ...

    @property
    def replies(self) -> HeldEntries: ...

    async def holders(self, held: HeldEntries) -> list[str]: ...

    async def pending(self, held: HeldEntries, *, idle_ms: int = 0, consumer: str | None = None) -> list[Pending]: ...

    async def reclaim(self, held: HeldEntries, pending: Pending, how: Reclaim) -> Reclaimed: ...

    async def start_due(self, now_ms: int) -> int: ...

    async def audit(self, busy_since_ms: int) -> int: ...


class Letters(Protocol):
    async def count(self) -> int: ...

    async def first(self, count: int = 1000) -> list[DeadLetter]: ...

    async def find(self, letter_id: str) -> DeadLetter | None: ...

    async def retry(self, letter: DeadLetter, consumer: str = "") -> Revived: ...

    async def drop(self, letter: DeadLetter) -> bool: ...


class Waiting(Protocol):
    async def count(self) -> int: ...

    async def senders(self) -> list[str]: ...

    async def of(self, sender_id: str) -> list[Note]: ...

    async def may_come(self, sender_id: str, first: Note, budgets: StoreBudgets) -> bool: ...

    async def forget(self, sender_id: str, note: Note, *, is_gone: bool = False) -> bool: ...

    async def reached(self, sender_id: str, note: Note, seq: int, message_id: str) -> bool: ...


class Unread(Protocol):
    async def count(self) -> int: ...

    async def find(self, message_id: str) -> Quarantined | None: ...

    async def want(self, message_ids: Iterable[str]) -> None: ...

    async def wanted(self) -> list[str]: ...

    async def tried(self, message_id: str) -> None: ...

    async def drop(self, message_id: str, why: GivenUp = "operator") -> bool: ...
