"""The supervisor's operations for incoming messages: one typed method for each Lua script.

Every operation is all or nothing and may be repeated: a second call notices that the first has run. Times are of Redis' clock, so that
supervisors on several hosts agree.
"""

import enum
import time
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.steps.write_count import WriteCount
from bus.transport.client import Commands
from bus.transport.clock import redis_ms
from bus.transport.wire import Value
from host.budgets import UNLIMITED_REDIS_BYTES, StoreBudgets

FIRST_SYNC_ENDED = b"ended"
MOST_WAITING_IN_ALL = 10_000  # jobs of all conversations; beyond it nothing is accepted, and the cursor waits (rule 11)


class Source(enum.Enum):
    """How a message came. Pushed messages are accepted only in sequence; polled ones may skip seqs."""

    PUSH = "push"
    POLL = "poll"
    QUARANTINE = "quarantine"
    HELD = "held"
    """It had waited at the relay and was fetched in its turn."""


_LookAnswer = tuple[int, int, int, int, bytes | None, int, bytes | None, bytes | None, int, bytes | None, int, int]


class ConversationSnapshot(msgspec.Struct, frozen=True):
    """What Redis knows before a message is opened: its id, its conversation, its sender's session and row."""

    known: bool
    next_seq: int
    dropped_ms: int
    session_version: int
    session_sealed: bytes | None
    session_epoch: int
    kind: str | None
    person: str | None
    owner_version: int = 0
    owner_sealed: bytes | None = None
    sender_waits: bool = False
    """Whether messages of this sender wait at the relay."""
    missing: int = 0
    """How many seqs before the message's are missing: neither taken in, nor our own, nor that of a send that waits for its confirmation."""

    def __repr__(self) -> str:
        return f"ConversationSnapshot(known={self.known}, next_seq={self.next_seq}, session_version={self.session_version}, …)"


class Intake(enum.Enum):
    """The outcomes for a message on its way in."""

    ACCEPTED = b"accepted"
    LATE = b"late"
    DUPLICATE = b"duplicate"
    CONFLICT = b"conflict"
    GAP = b"gap"
    REFUSED = b"refused"
    FULL = b"full"
    NOT_NOW = b"hold"
    HELD = b"held"
    NOTED = b"noted"
    GONE = b"gone"
    TAKEN = b"taken"
    OLD = b"old"

    @property
    def is_settled(self) -> bool:
        """Returns True if nothing more is to be done now: the message, or the note that it waits at the relay, stands in Redis."""
        return self.is_new or self in (Intake.DUPLICATE, Intake.OLD, Intake.NOTED)

    @property
    def is_new(self) -> bool:
        """Returns True if it was taken in now: in sequence, by a jump, late (below `next`), or with a refusal as its answer."""
        return self in (Intake.ACCEPTED, Intake.LATE, Intake.REFUSED)


class SessionWrite(msgspec.Struct, frozen=True):
    """A change of a device record: the version that was read, and the new record, sealed."""

    owner_id: str
    device_id: str
    version: int
    sealed: bytes

    def __repr__(self) -> str:
        return f"SessionWrite({self.owner_id!r}, {self.device_id!r}, version={self.version})"


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way in. `signed_id`: 8 bytes, empty when the signature did not verify.

    `kind` and `person` (of a group its group_id) are pinned at first sight; an empty `kind` pins nothing.
    """

    conversation_id: str
    source: Source
    seq: int
    signed_id: bytes
    message_ms: int
    session: SessionWrite | None = None
    session_version: int = 0  # of the record that it was opened with, also if that does not change
    peer: tuple[str, str] = ("", "")
    epoch: int = 0
    used_one_time_prekey: int | None = None
    is_restored_prekey: bool = False  # the one-time prekey came out of a backup
    kind: str = "h2a"
    person: str = ""
    message_id: str = ""
    received_ms: int = 0
    sender_id: str = ""  # who signed it
    kept_as: str = ""  # its name in quarantine, if another message has its message_id
    trace: str = ""  # the span that receives it (bus/telemetry/traces.py)

    @property
    def name(self) -> str:
        """Its name in quarantine."""
        return self.kept_as or self.message_id


class InboundStore:
    """The operations of one agent, as one supervisor (`consumer`: unique per process start)."""

    def __init__(
        self,
        client: Commands,
        agent_id: str,
        consumer: str,
        write_count: WriteCount | None = None,
        most_waiting_in_all: int = MOST_WAITING_IN_ALL,
    ) -> None:
        self.client = client
        self.keys = Keys(agent_id)
        self.consumer = consumer
        self._write_count = write_count or WriteCount()
        self.most_waiting = most_waiting_in_all
        self.budgets = StoreBudgets.of(UNLIMITED_REDIS_BYTES)
        """Of what this Redis may hold (supervisor/recovery/redis_memory.py)."""

    @property
    def epoch(self) -> int:
        """The epoch that this supervisor knows."""
        return self._write_count.epoch

    # Inbound

    async def look(
        self, conversation_id: str, peer: tuple[str, str], signed_id: bytes, seq: int = 0
    ) -> ConversationSnapshot:
        """Returns a snapshot of the conversation, the sender's session and row (bus/steps/vault.py opens both). `seq`: for `missing`."""
        keys = [*self.keys.board(conversation_id), self.keys.session(*peer), self.keys.owner(peer[0])]
        answer = await self.client.script("look", keys, conversation_id, signed_id, peer[0], seq)
        known, next_seq, dropped, version, sealed, epoch, kind, person, row_version, row, waits, missing = cast(
            _LookAnswer, answer
        )
        return ConversationSnapshot(
            known == 1,
            next_seq,
            dropped,
            version,
            sealed,
            epoch,
            text_or_none(kind),
            text_or_none(person),
            row_version,
            row,
            waits == 1,
            missing,
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
        """Takes a message in. `job` None: no handler gets it. `answer`: a reply of our own to it.

        `stops`: a card whose Stop button it says was pressed, or STOP_ALL; if that is one of the running job, or that job is its sender's, the job is
        told of it and no handler gets the message.
        FULL: its mailbox is full and nothing was changed; call it again with a `refusal` (a reply record). HELD: its sender has too much
        waiting and nothing was changed; let it wait at the relay (`hold`). After both the open `question` that it may answer lets it in, the
        first time. NOT_NOW: nothing is taken in now.
        """
        keys = [*self.keys.board(arrival.conversation_id), self.keys.session(*arrival.peer), self._prekeys_of(arrival)]
        keys += [self.keys.waits(arrival.conversation_id)] if question else []
        return self._intake(
            await self.client.script(
                "accept",
                keys,
                *_arguments(arrival),
                *(arrival.kind, arrival.person, job or b"", answer, arrival.message_id),
                *(arrival.received_ms, opened_ms, self.most_waiting, refusal),
                *(arrival.sender_id, self.budgets.waiting_bytes, self.budgets.ledger_entries, stops, question),
            )
        )

    async def hold(self, arrival: Arrival, *, by_itself: bool) -> Intake:
        """Notes that a message waits at the relay: `by_itself` (it has no room, or cannot be read yet), or since others of its sender do.

        NOTED: now or before. CONFLICT: nothing of its sender waits there any more. NOT_NOW: there are too many notes.
        """
        keys = [*self.keys.board(arrival.conversation_id), self.keys.notes(arrival.sender_id), self.keys.cursor]
        return self._intake(
            await self.client.script(
                "hold",
                keys,
                *_arguments(arrival)[:5],
                *(arrival.sender_id, arrival.message_id, int(by_itself), self.budgets.most_held),
                *(arrival.received_ms, self.budgets.ledger_entries, arrival.signed_id.hex()),
            )
        )

    async def publish_bounds(self) -> None:
        """Writes the bounds into Redis for the scripts that workers call."""
        await self.client.command("HSET", self.keys.load, "most_out", self.budgets.out_bytes)
        await self.client.command("HSET", self.keys.histories, "most", self.budgets.history_bytes)

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
        """Puts a message that cannot be read into quarantine: its `evidence`, and if there is room its `frame` and sealed `plaintext`.

        `frame`: empty if a retry is hopeless. `answer`: a reply of our own to it. `digest`: of its envelope. `waits_for`: the thing whose
        arrival may make it readable (supervisor/peers/retry_triggers.py). TAKEN: another envelope has its name and nothing was changed;
        call it again with another name (`kept_as`).
        """
        keys = [
            *self.keys.board(arrival.conversation_id),
            self.keys.session(*arrival.peer),
            self._prekeys_of(arrival),
            self.keys.quarantine,
            self.keys.quarantined(arrival.name),
            self.keys.waiting_for,
            self.keys.kept,
            self.keys.cursor,
        ]
        arguments = (
            *_arguments(arrival),
            *(arrival.kind, arrival.person, arrival.message_id, reason, frame, plaintext, answer),
            *(sender_id, arrival.received_ms, arrival.name, digest, waits_for),
            *(evidence, self.budgets.quarantine_bytes, self.budgets.unsigned_bytes, self.budgets.ledger_entries),
        )
        return self._intake(await self.client.script("quarantine", keys, *arguments))

    async def requeue(self, arrival: Arrival, job: bytes | None) -> Intake:
        """Takes a quarantined message in that can be read now. GONE: it is no longer there. `arrival.source` does not matter."""
        keys = [
            *self.keys.board(arrival.conversation_id),
            self.keys.session(*arrival.peer),
            self._prekeys_of(arrival),
            self.keys.quarantine,
            self.keys.quarantined(arrival.name),
            self.keys.wanted,
            self.keys.waiting_for,
            self.keys.kept,
        ]
        conversation, signed_id, message_ms, _, *rest = _arguments(arrival)
        arguments = (conversation, signed_id, message_ms, *rest, arrival.kind, arrival.person, job or b"")
        return self._intake(await self.client.script("requeue", keys, *arguments, arrival.message_id, arrival.name))

    async def note_old(self, arrival: Arrival, reason: str) -> Intake:
        """Notes a message that came again and can no longer be read; the oldest notes go. DUPLICATE: it is in quarantine, or noted."""
        keys = [self.keys.old, self.keys.quarantined(arrival.message_id), self.keys.write_count, self.keys.ledger]
        arguments = (arrival.message_id, arrival.conversation_id, arrival.seq, reason, now_ms(), self.budgets.most_old)
        return self._intake(await self.client.script("note_old", keys, *arguments))

    async def heal_times(self, conversation_id: str) -> int:
        """Sets times in the future in the memory of ids, which older versions could write, to now; returns the latest time dropped (ms)."""
        keys = self.keys.board(conversation_id)
        return cast(int, await self.client.script("heal_times", keys, conversation_id))

    def _prekeys_of(self, arrival: Arrival) -> str:
        """Returns the key of the hash with the one-time prekey that the message used."""
        return self.keys.restored_one_time_prekeys if arrival.is_restored_prekey else self.keys.one_time_prekeys

    def _intake(self, answer: Value) -> Intake:
        outcome, *rest = cast("list[Value]", answer)
        if outcome in (b"accepted", b"refused", b"old", b"noted"):
            self._write_count.seen(cast(int, rest[-1]))
        return Intake.LATE if outcome == b"accepted" and rest[0] == b"late" else Intake(outcome)

    async def cursor(self) -> str | None:
        """Returns the message_id up to which everything polled is taken in; None for none, also where something else stands there."""
        found = cast("list[bytes | None]", await self.client.command("MGET", self.keys.cursor))[0]
        return None if found is None or not found.isascii() else found.decode()

    async def first_sync_began_ms(self) -> int | None:
        """Returns when this agent first polled with this store, noting now if it has not; None once that first sync has ended."""
        key = self.keys.first_sync
        found = await self.client.command("SET", key, await self.now_ms(), "NX", "GET")
        began = cast(bytes, found or await self.client.command("GET", key))
        return int(began) if began.isdigit() else None  # what cannot be read skips nothing

    async def end_first_sync(self) -> None:
        """Ends the first sync: from now on no message is skipped because of its age."""
        await self.client.command("SET", self.keys.first_sync, FIRST_SYNC_ENDED)

    async def advance_cursor(self, read: str | None, to: str) -> bool:
        """Moves the cursor from the value that was read; returns False if another supervisor has moved it."""
        keys = [self.keys.cursor, self.keys.write_count]
        return await self.client.script("advance_cursor", keys, read or "", to) == 1

    async def pins(self, conversation_id: str) -> tuple[str, str] | None:
        """Returns the conversation's pinned kind and person; None before the first message."""
        key = self.keys.conversation(conversation_id)
        kind, person = cast("list[Value]", await self.client.command("HMGET", key, "kind", "person"))
        return None if kind is None else (text_or_none(kind) or "", text_or_none(person) or "")

    # Whole agent

    async def now_ms(self) -> int:
        """Returns the time of Redis' clock, Unix, ms."""
        return await redis_ms(self.client)

    async def waiting_jobs(self) -> int:
        """Returns how many entries `jobs` has, running or ready to run."""
        return cast(int, await self.client.command("XLEN", self.keys.jobs))


def now_ms() -> int:
    """Returns the time of this host's clock, for people, and as the upper bound of a message's own time."""
    return int(time.time() * 1000)


def _arguments(arrival: Arrival) -> tuple[bytes | int | str, ...]:
    session = arrival.session
    return (
        arrival.conversation_id,
        arrival.signed_id,
        min(arrival.message_ms, now_ms()),  # a later time in the memory of ids would make messages until then `stale`
        arrival.source.value,
        arrival.seq,
        arrival.session_version,
        session.sealed if session else b"",
        arrival.epoch,
        "" if arrival.used_one_time_prekey is None else arrival.used_one_time_prekey,
    )


def text_or_none(value: Value) -> str | None:
    """Decodes a string answer; None stays None."""
    return None if value is None else cast(bytes, value).decode()
