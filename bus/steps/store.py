"""The supervisor's half of the bus: typed operations over the Lua scripts.

Every operation is all or nothing and safe to repeat: a second call finds out that the first has run. Times are of Redis' clock,
so that supervisors on several hosts agree.
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
MOST_OLD = 5000  # notes of some 150 bytes each
MOST_WAITING_IN_ALL = 10_000  # jobs of all conversations; beyond it nothing is accepted, and the cursor waits (rule 11)


class Source(enum.Enum):
    """How a message came: pushed frames are accepted only in sequence, polled ones may jump; some come out of quarantine."""

    PUSH = "push"
    POLL = "poll"
    QUARANTINE = "quarantine"
    HELD = "held"
    """It has waited at the relay, in its turn."""


_LookAnswer = tuple[int, int, int, int, bytes | None, int, bytes | None, bytes | None, int, bytes | None, int, int]


class ConversationSnapshot(msgspec.Struct, frozen=True):
    """What is known before a message is opened."""

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
    """How many seqs before the message's are nobody's: not taken in, not ours, and not that of a send that waits for its confirmation."""

    def __repr__(self) -> str:
        return f"Look(known={self.known}, next_seq={self.next_seq}, session_version={self.session_version}, …)"


class Intake(enum.Enum):
    """What became of a message."""

    ACCEPTED = b"accepted"
    LATE = b"late"
    DUPLICATE = b"duplicate"
    CONFLICT = b"conflict"
    GAP = b"gap"
    REFUSED = b"refused"
    FULL = b"full"
    HOLD = b"hold"
    HELD = b"held"
    NOTED = b"noted"
    GONE = b"gone"
    TAKEN = b"taken"
    OLD = b"old"

    @property
    def is_settled(self) -> bool:
        """Nothing more is to be done about the message now: it, or the note that it waits at the relay, stands in Redis."""
        return self.is_new or self in (Intake.DUPLICATE, Intake.OLD, Intake.NOTED)

    @property
    def is_new(self) -> bool:
        """Taken in now: in sequence, by a jump, late (below `next`), or with a refusal as its answer."""
        return self in (Intake.ACCEPTED, Intake.LATE, Intake.REFUSED)


class SessionWrite(msgspec.Struct, frozen=True):
    """A device record as it was read (version) and as it shall be (sealed)."""

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
    session_version: int = 0  # of the record with which it was judged, also when it moves no session
    peer: tuple[str, str] = ("", "")
    epoch: int = 0
    used_one_time_prekey: int | None = None
    is_restored_prekey: bool = False  # it came out of a backup
    kind: str = "h2a"
    person: str = ""
    message_id: str = ""
    received_ms: int = 0
    sender_id: str = ""  # who signed it
    kept_as: str = ""  # its name in quarantine, where another has its message_id
    trace: str = ""  # of the span that brings it (bus/telemetry/traces.py)

    @property
    def name(self) -> str:
        """Under which it stands in quarantine."""
        return self.kept_as or self.message_id


class Store:
    """Operations of one agent, as one supervisor (`consumer`: unique per process start)."""

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
        """Of what this Redis may hold (supervisor/recovery/redis_watch.py)."""

    # Inbound

    async def look(
        self, conversation_id: str, peer: tuple[str, str], signed_id: bytes, seq: int = 0
    ) -> ConversationSnapshot:
        """What is known of a message, of its sender's sessions, and of its sender (bus/steps/vault.py opens both). `seq`: of the message, for `missing`."""
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
        self, arrival: Arrival, job: bytes | None, *, answer: bytes = b"", refusal: bytes = b"", opened_ms: int = 0
    ) -> Intake:
        """Take a message in; `job` None for one that no handler sees. `answer`: a reply of our own to it.

        FULL: its mailbox is, and nothing was changed; call it again with a `refusal` (a reply record). HELD: nor was anything changed; its
        sender has too much waiting, and it is to wait at the relay (`hold`). HOLD: nothing is taken in now.
        """
        keys = [*self.keys.board(arrival.conversation_id), self.keys.session(*arrival.peer), self._prekeys_of(arrival)]
        return self._intake(
            await self.client.script(
                "accept",
                keys,
                *_arguments(arrival),
                *(arrival.kind, arrival.person, job or b"", answer, arrival.message_id),
                *(arrival.received_ms, opened_ms, self.most_waiting, refusal),
                *(arrival.sender_id, self.budgets.waiting_bytes, self.budgets.ledger_entries),
            )
        )

    async def hold(self, arrival: Arrival, *, has_no_room: bool) -> Intake:
        """Note that a message waits at the relay: since there was no room for it, or since others of its sender wait there.

        NOTED, now or before. CONFLICT: nothing of its sender waits there any more. HOLD: too many are noted.
        """
        keys = [*self.keys.board(arrival.conversation_id), self.keys.notes(arrival.sender_id), self.keys.cursor]
        return self._intake(
            await self.client.script(
                "hold",
                keys,
                *_arguments(arrival)[:5],
                *(arrival.sender_id, arrival.message_id, int(has_no_room), self.budgets.most_held),
                *(arrival.received_ms, self.budgets.ledger_entries, arrival.signed_id.hex()),
            )
        )

    async def publish_bounds(self) -> None:
        """For the scripts that workers call."""
        await self.client.command("HSET", self.keys.load, "most_out", self.budgets.out_bytes)

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
        """Keep a message that cannot be read: its `evidence`, and as far as there is room its `frame` (empty where a retry is hopeless)
        and its `plaintext`, sealed. `answer`: a reply of our own to it. `digest`: of its envelope. `waits_for`: whose coming may mend it
        (supervisor/peers/retry_triggers.py).

        TAKEN: another envelope has its name, and nothing was changed; call it again with one of its own (`kept_as`).
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
        """A quarantined message can be read now (`arrival.source` does not matter): GONE when it is no longer there."""
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
        """Note what came again and can no longer be read; the oldest notes go. DUPLICATE when it stands in quarantine, or was noted."""
        keys = [self.keys.old, self.keys.quarantined(arrival.message_id), self.keys.write_count, self.keys.ledger]
        arguments = (arrival.message_id, arrival.conversation_id, arrival.seq, reason, now_ms(), MOST_OLD)
        return self._intake(await self.client.script("note_old", keys, *arguments))

    async def heal_times(self, conversation_id: str) -> int:
        """A memory of ids with times in the future, as older versions could write it, is one of now; the latest time dropped (ms)."""
        keys = self.keys.board(conversation_id)
        return cast(int, await self.client.script("heal_times", keys, conversation_id))

    def _prekeys_of(self, arrival: Arrival) -> str:
        """Where the one-time prekey stands that the message has used, if it has."""
        return self.keys.restored_one_time_prekeys if arrival.is_restored_prekey else self.keys.one_time_prekeys

    def _intake(self, answer: Value) -> Intake:
        outcome, *rest = cast("list[Value]", answer)
        if outcome in (b"accepted", b"refused", b"old", b"noted"):
            self._write_count.seen(cast(int, rest[-1]))
        return Intake.LATE if outcome == b"accepted" and rest[0] == b"late" else Intake(outcome)

    async def cursor(self) -> str | None:
        """message_id up to which everything polled is taken in."""
        return text_or_none(await self.client.command("GET", self.keys.cursor))

    async def first_sync_began_ms(self) -> int | None:
        """When this agent first polled with this store, noted now if this is the first time; None once that sync has ended."""
        key = self.keys.first_sync
        found = await self.client.command("SET", key, await self.now_ms(), "NX", "GET")
        began = cast(bytes, found or await self.client.command("GET", key))
        return None if began == FIRST_SYNC_ENDED else int(began)

    async def end_first_sync(self) -> None:
        """From now on nothing is too old."""
        await self.client.command("SET", self.keys.first_sync, FIRST_SYNC_ENDED)

    async def advance_cursor(self, read: str | None, to: str) -> bool:
        """Move the cursor from the value read; False when another has moved it."""
        keys = [self.keys.cursor, self.keys.write_count]
        return await self.client.script("advance_cursor", keys, read or "", to) == 1

    async def pins(self, conversation_id: str) -> tuple[str, str] | None:
        """The conversation's pinned kind and person; None before the first message."""
        key = self.keys.conversation(conversation_id)
        kind, person = cast("list[Value]", await self.client.command("HMGET", key, "kind", "person"))
        return None if kind is None else (text_or_none(kind) or "", text_or_none(person) or "")

    # Whole agent

    async def now_ms(self) -> int:
        """Redis' clock."""
        return await redis_ms(self.client)

    async def waiting_jobs(self) -> int:
        """Entries in `jobs`: running or ready to run."""
        return cast(int, await self.client.command("XLEN", self.keys.jobs))


def now_ms() -> int:
    """This host's clock, for what people read; decided by it is only what no time of a message may be later than."""
    return int(time.time() * 1000)


def _arguments(arrival: Arrival) -> tuple[bytes | int | str, ...]:
    session = arrival.session
    return (
        arrival.conversation_id,
        arrival.signed_id,
        min(arrival.message_ms, now_ms()),  # remembered for later than now, it would make what comes until then `stale`
        arrival.source.value,
        arrival.seq,
        arrival.session_version,
        session.sealed if session else b"",
        arrival.epoch,
        "" if arrival.used_one_time_prekey is None else arrival.used_one_time_prekey,
    )


def text_or_none(value: Value) -> str | None:
    """A string answer."""
    return None if value is None else cast(bytes, value).decode()
