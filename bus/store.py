"""The supervisor's half of the bus: typed operations over the Lua scripts.

Every operation is all or nothing and safe to repeat: a second call finds out that the first has run. Times are of Redis' clock,
so that supervisors on several hosts agree.
"""

import enum
import time
from collections.abc import Sequence
from typing import cast

import msgspec

from bus.client import RedisClient
from bus.keys import Keys
from bus.records import OutboxRecord, decode_outbox_record
from bus.wire import Value

RESEND_SECONDS = 10.0
SCAN_COUNT = 100
KEPT_MESSAGE_SECONDS = 7 * 86400


class Source(enum.Enum):
    """How a message came: pushed frames are accepted only in sequence, polled ones may jump."""

    PUSH = "push"
    POLL = "poll"


class Look(msgspec.Struct, frozen=True):
    """What is known before a message is opened."""

    known: bool
    next_seq: int
    dropped_ms: int
    session_version: int
    session_sealed: bytes | None
    session_epoch: int
    kind: str | None
    person: str | None

    def __repr__(self) -> str:
        return f"Look(known={self.known}, next_seq={self.next_seq}, session_version={self.session_version}, …)"


class Intake(enum.Enum):
    """What became of a message."""

    ACCEPTED = b"accepted"
    LATE = b"late"
    DUPLICATE = b"duplicate"
    CONFLICT = b"conflict"
    GAP = b"gap"

    @property
    def is_new(self) -> bool:
        """Taken in now: in sequence, by a jump, or late (below `next`)."""
        return self in (Intake.ACCEPTED, Intake.LATE)


class SessionWrite(msgspec.Struct, frozen=True):
    """A device record as it was read (version) and as it shall be (sealed)."""

    owner_id: str
    device_id: str
    version: int
    sealed: bytes

    def __repr__(self) -> str:
        return f"SessionWrite({self.owner_id!r}, {self.device_id!r}, version={self.version})"


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way in. `signed_id`: 8 bytes, empty when the signature did not verify."""

    conversation_id: str
    source: Source
    seq: int
    signed_id: bytes
    message_ms: int
    session: SessionWrite | None = None
    peer: tuple[str, str] = ("", "")
    epoch: int = 0
    used_one_time_prekey: int | None = None
    kind: str = "h2a"
    person: str = ""


class Committed(enum.Enum):
    """What became of a commit."""

    COMMITTED = b"committed"
    ALREADY = b"already"
    DONE_BEFORE = b"done_before"
    NOT_HEAD = b"not_head"
    FENCED = b"fenced"
    STALE = b"stale"
    WAIT = b"wait"


class Commit(msgspec.Struct, frozen=True):
    """A commit's outcome; `stored` with ALREADY, `wait_ms` with WAIT."""

    outcome: Committed
    stored: OutboxRecord | None = None
    wait_ms: int = 0


class DeadLetter(msgspec.Struct, frozen=True):
    """What was given up, by its entry in `dead`."""

    id: str
    reason: str
    record: bytes
    attempt: int
    deliveries: int
    died_ms: int


class Store:
    """Operations of one agent, as one supervisor (`consumer`: unique per process start)."""

    def __init__(self, client: RedisClient, agent_id: str, consumer: str) -> None:
        self.client = client
        self.keys = Keys(agent_id)
        self.consumer = consumer

    # Inbound

    async def look(self, conversation_id: str, peer: tuple[str, str], signed_id: bytes) -> Look:
        """What is known of a message and of its sender's sessions."""
        keys = [self.keys.conversation(conversation_id), self.keys.ids(conversation_id), self.keys.session(*peer)]
        known, next_seq, dropped, version, sealed, epoch, kind, person = cast(
            "list[Value]", await self.client.script("look", keys, signed_id)
        )
        return Look(
            known == 1,
            cast(int, next_seq),
            cast(int, dropped),
            cast(int, version),
            cast("bytes | None", sealed),
            cast(int, epoch),
            _text(kind),
            _text(person),
        )

    async def accept(self, arrival: Arrival, job: bytes | None) -> Intake:
        """Take a message in; `job` None for one that no handler sees."""
        conversation = arrival.conversation_id
        keys = [
            self.keys.conversation(conversation),
            self.keys.ids(conversation),
            self.keys.taken(conversation),
            self.keys.mailbox(conversation),
            self.keys.session(*arrival.peer),
            self.keys.one_time_prekeys,
            self.keys.jobs,
            self.keys.generation,
            self.keys.emitted(conversation),
        ]
        return _intake(
            await self.client.script("accept", keys, *_arguments(arrival), job or b"", arrival.kind, arrival.person)
        )

    async def quarantine(
        self, arrival: Arrival, *, message_id: str, reason: str, frame: bytes, plaintext: bytes = b""
    ) -> Intake:
        """Keep a message that cannot be read; `plaintext` sealed."""
        conversation = arrival.conversation_id
        keys = [
            self.keys.conversation(conversation),
            self.keys.ids(conversation),
            self.keys.taken(conversation),
            self.keys.session(*arrival.peer),
            self.keys.one_time_prekeys,
            self.keys.generation,
            self.keys.quarantine,
            self.keys.quarantined(message_id),
        ]
        arguments = (*_arguments(arrival), message_id, reason, frame, plaintext)
        return _intake(await self.client.script("quarantine", keys, *arguments))

    async def cursor(self) -> str | None:
        """message_id up to which everything polled is taken in."""
        return _text(await self.client.command("GET", self.keys.cursor))

    async def advance_cursor(self, read: str | None, to: str) -> bool:
        """Move the cursor from the value read; False when another has moved it."""
        keys = [self.keys.cursor, self.keys.generation]
        return await self.client.script("advance_cursor", keys, read or "", to) == 1

    # Outbound

    async def commit(
        self,
        *,
        entry_id: str,
        reply_record: bytes,
        conversation_id: str,
        client_message_id: str,
        record: OutboxRecord | None,
        sessions: Sequence[SessionWrite],
        epoch: int,
        rate_per_second: float,
    ) -> Commit:
        """Sessions move and the bytes stand in the outbox (`record` None: nothing to acknowledge)."""
        keys = [
            self.keys.conversation(conversation_id),
            self.keys.out_box(conversation_id),
            self.keys.replies,
            self.keys.sent(conversation_id),
            self.keys.outbox,
            self.keys.acks,
            self.keys.rate,
            self.keys.generation,
            *(self.keys.session(s.owner_id, s.device_id) for s in sessions),
        ]
        versions: list[int | bytes] = []
        for session in sessions:
            versions += [session.version, session.sealed]
        answer = cast(
            "list[Value]",
            await self.client.script(
                "commit",
                keys,
                entry_id,
                self.consumer,
                reply_record,
                conversation_id,
                client_message_id,
                b"" if record is None else msgspec.msgpack.encode(record),
                int(RESEND_SECONDS * 1000),
                rate_per_second,
                max(1.0, rate_per_second),
                epoch,
                *versions,
            ),
        )
        outcome = Committed(answer[0])
        if outcome is Committed.ALREADY:
            return Commit(outcome, stored=decode_outbox_record(cast(bytes, answer[1])))
        return Commit(outcome, wait_ms=cast(int, answer[1]) if outcome is Committed.WAIT else 0)

    async def confirm(
        self, conversation_id: str, client_message_id: str, message_id: str, seq: int
    ) -> OutboxRecord | None:
        """The relay has stored it: what it was; None when that was known already."""
        keys = [
            self.keys.conversation(conversation_id),
            self.keys.taken(conversation_id),
            self.keys.out_box(conversation_id),
            self.keys.replies,
            self.keys.sent(conversation_id),
            self.keys.outbox,
            self.keys.acks,
            self.keys.generation,
            self.keys.sent_message(message_id),
        ]
        answer = await self.client.script(
            "confirm", keys, conversation_id, client_message_id, seq, message_id, KEPT_MESSAGE_SECONDS
        )
        return None if answer is None else decode_outbox_record(cast(bytes, answer))

    async def conversation_of(self, client_message_id: str) -> str | None:
        """Whose acknowledgement this is, when another connection or process sent it."""
        return _text(await self.client.command("HGET", self.keys.acks, client_message_id))

    async def holder_of(self, conversation_id: str) -> str | None:
        """The supervisor that sent the outbox record last; None when there is no record."""
        return _text(await self.client.command("HGET", self.keys.sent(conversation_id), "holder"))

    async def pins(self, conversation_id: str) -> tuple[str, str] | None:
        """The conversation's pinned kind and person; None before the first message."""
        key = self.keys.conversation(conversation_id)
        kind, person = cast("list[Value]", await self.client.command("HMGET", key, "kind", "person"))
        return None if kind is None else (_text(kind) or "", _text(person) or "")

    async def outbox_due(self) -> list[str]:
        """Conversations whose outbox record is to be sent again."""
        now = await self.now_ms()
        found = await self.client.command("ZRANGEBYSCORE", self.keys.outbox, "-inf", now, "LIMIT", 0, SCAN_COUNT)
        return [item.decode() for item in cast("list[bytes]", found)]

    async def outbox_all(self) -> list[str]:
        """Conversations that have an outbox record."""
        return [
            item.decode() for item in cast("list[bytes]", await self.client.command("ZRANGE", self.keys.outbox, 0, -1))
        ]

    async def resend(self, conversation_id: str, *, former_holder: str | None = None) -> OutboxRecord | None:
        """Take a record that is due, or at once one that `former_holder` was sending; None when another was first."""
        keys = [self.keys.outbox, self.keys.sent(conversation_id), self.keys.generation]
        answer = await self.client.script(
            "resend",
            keys,
            conversation_id,
            self.consumer,
            int(RESEND_SECONDS * 1000),
            "0" if former_holder is None else "1",
            former_holder or "",
        )
        return None if answer is None else decode_outbox_record(cast(bytes, answer))

    async def postpone(self, conversation_id: str, client_message_id: str, after_ms: int) -> None:
        """The relay has refused for now."""
        keys = [self.keys.outbox, self.keys.sent(conversation_id)]
        await self.client.script("postpone", keys, conversation_id, client_message_id, after_ms)

    async def drop_reply(
        self, conversation_id: str, reason: str, *, entry_id: str = "", client_message_id: str = ""
    ) -> bool:
        """A reply (by its entry, or once committed by its client_message_id) becomes a dead letter."""
        keys = [
            self.keys.conversation(conversation_id),
            self.keys.out_box(conversation_id),
            self.keys.replies,
            self.keys.sent(conversation_id),
            self.keys.outbox,
            self.keys.acks,
            self.keys.dead,
            self.keys.generation,
        ]
        answer = await self.client.script(
            "drop_reply", keys, conversation_id, entry_id, self.consumer, client_message_id, reason
        )
        return answer == b"dropped"

    async def give_back_reply(self, entry_id: str, conversation_id: str) -> None:
        """A reply that was taken and not committed is offered again."""
        keys = [self.keys.replies, self.keys.conversation(conversation_id), self.keys.generation]
        await self.client.script("reclaim_reply", keys, entry_id, self.consumer, 0)

    # Whole agent

    async def now_ms(self) -> int:
        """Redis' clock."""
        seconds, micros = cast("tuple[bytes, bytes]", await self.client.command("TIME"))
        return int(seconds) * 1000 + int(micros) // 1000

    async def epoch(self) -> int:
        """Raised when Redis went back in time."""
        return int(cast("bytes | None", await self.client.command("GET", self.keys.epoch)) or 0)

    async def dead_letters(self, count: int = 1000) -> list[DeadLetter]:
        """The oldest `count` dead letters."""
        rows = cast(
            "list[tuple[bytes, list[bytes]]]",
            await self.client.command("XRANGE", self.keys.dead, "-", "+", "COUNT", count),
        )
        letters = []
        for entry, flat in rows:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            letters.append(
                DeadLetter(
                    entry.decode(),
                    fields[b"why"].decode(),
                    fields[b"r"],
                    int(fields[b"a"]),
                    int(fields[b"d"]),
                    int(fields[b"at"]),
                )
            )
        return letters

    async def waiting_jobs(self) -> int:
        """Entries in `jobs`: running or ready to run."""
        return cast(int, await self.client.command("XLEN", self.keys.jobs))


def now_ms() -> int:
    """This host's clock, for what people read (records carry it, nothing is decided by it)."""
    return int(time.time() * 1000)


def _arguments(arrival: Arrival) -> tuple[bytes | int | str, ...]:
    session = arrival.session
    return (
        arrival.signed_id,
        arrival.message_ms,
        arrival.source.value,
        arrival.seq,
        session.version if session else 0,
        session.sealed if session else b"",
        arrival.epoch,
        "" if arrival.used_one_time_prekey is None else arrival.used_one_time_prekey,
    )


def _text(value: Value) -> str | None:
    return None if value is None else cast(bytes, value).decode()


def _intake(answer: Value) -> Intake:
    outcome, *rest = cast("list[Value]", answer)
    return Intake.LATE if outcome == b"accepted" and rest == [b"late"] else Intake(outcome)
