"""Places jobs that no message began: reminders, events, deadlines.

Such a job joins a conversation behind everything that waits there. It neither interrupts, nor is interrupted, nor is handled together with
messages, and counts against no limit of the mailbox: it has bounds of its own. It is placed once by its id.
"""

import enum
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.records.records import BadRecord, JobRecord, decode_job_record
from bus.steps.write_count import epoch_now
from bus.transport.client import Commands
from bus.transport.clock import redis_ms
from bus.transport.lua import Argument
from bus.transport.wire import Value
from host.budgets import UNLIMITED_REDIS_BYTES, StoreBudgets

MOST_PLACED = 100
"""Placed jobs that wait in one conversation: a hundred reminders that are due at once are more than anybody reads."""
MOST_PLACED_BYTES = 32_768
"""Of one record. A conversation is saved whole, with all placed jobs that wait in it: 3.2 MB."""
MOST_PLACEMENTS = 10_000
"""Ids that are remembered, of some 100 bytes each: more than a relay repeats events, or anybody repeats a command."""


class JobTooLarge(ValueError):
    """A job to be placed is larger than MOST_PLACED_BYTES."""


class Placed(enum.Enum):
    """The outcomes of `place`."""

    PLACED = b"placed"
    ALREADY = b"already"
    """It was placed before, and may have ended long ago."""

    FULL = b"full"
    """Nothing was changed, since too much waits: try again later."""


class Pins(msgspec.Struct, frozen=True):
    """What the first accepted message of a conversation has pinned: its kind (PROTOCOL §4), and its person (of a group its id)."""

    kind: str
    person: str


class Placing:
    """Places jobs into the conversations of one agent."""

    def __init__(self, client: Commands, keys: Keys, budgets: StoreBudgets | None = None) -> None:
        self._client = client
        self._keys = keys
        self.budgets = budgets or StoreBudgets.of(UNLIMITED_REDIS_BYTES)

    async def now_ms(self) -> int:
        """Returns Redis' time. Raises RedisFailed."""
        return await redis_ms(self._client)

    async def epoch(self) -> int:
        """Returns the epoch that stands in Redis. Raises RedisFailed."""
        return await epoch_now(self._client, self._keys)

    async def was_placed(self, job_id: str) -> bool:
        """Returns whether a job of this id was placed before. Raises RedisFailed."""
        return await self._client.command("ZSCORE", self._keys.placements, job_id) is not None

    async def pins(self, conversation_id: str) -> Pins | None:
        """Returns whom a reply in this conversation goes to; None for one in which no message was accepted yet."""
        answer = await self._client.command("HMGET", self._keys.conversation(conversation_id), "kind", "person")
        kind, person = cast("list[bytes | None]", answer)
        return None if kind is None or person is None else Pins(kind.decode(), person.decode())

    async def place(self, packed: bytes) -> Placed:
        """Places a job (`records.pack_placed_job`) in its conversation. Raises JobTooLarge, BadRecord (it is no placed job)."""
        record = placed_record(packed)
        keys = (*self._keys.board(record.conversation_id), self._keys.placements, self._keys.behind)
        arguments: tuple[Argument, ...] = (
            *(record.conversation_id, record.job_id, packed, record.kind, MOST_PLACED, self.budgets.waiting_bytes),
            *(MOST_PLACEMENTS, self.budgets.ledger_entries),
        )
        answer: Value = await self._client.script("place_job", keys, *arguments)
        return Placed(answer)


def placed_record(packed: bytes) -> JobRecord:
    """Returns the readable part of a job that is to be placed. Raises JobTooLarge, BadRecord."""
    if len(packed) > MOST_PLACED_BYTES:
        raise JobTooLarge(f"a job of {len(packed)} bytes; at most {MOST_PLACED_BYTES} are placed")
    record = decode_job_record(packed)
    if not record.kind:
        raise BadRecord(f"job {record.job_id}: a message's job is not placed")
    return record
