"""The reclaimer's half of the bus: what the dead and the silent held goes on (DESIGN rules 6 and 7).

One office for the whole agent, held by one supervisor at a time. Nothing is claimed away from its holder: the old entry is
acknowledged and deleted, a new one added, so that the former holder is fenced.
"""

from typing import cast

import msgspec

from bus.client import RedisClient
from bus.keys import JOBS_GROUP, REPLIES_GROUP, Keys
from bus.records import MOST_DELIVERIES, decode_job_record, decode_reply_record
from bus.wire import RedisRefused, Value

SCAN_COUNT = 100


class Pending(msgspec.Struct, frozen=True):
    """An entry that a consumer holds."""

    entry_id: str
    consumer: str
    idle_ms: int


class Held(msgspec.Struct, frozen=True):
    """One of the two streams whose entries are held: jobs or replies."""

    stream: str
    group: str


class Recovery:
    """Operations of the office; `consumer`: the supervisor that holds it."""

    def __init__(self, client: RedisClient, keys: Keys, consumer: str) -> None:
        self._client = client
        self._keys = keys
        self._consumer = consumer
        self.jobs = Held(keys.jobs, JOBS_GROUP)
        self.replies = Held(keys.replies, REPLIES_GROUP)

    async def make_groups(self) -> int:
        """Make the groups of both streams at 0 where they are not there; how many were made."""
        made = 0
        for held in (self.jobs, self.replies):
            try:
                await self._client.command("XGROUP", "CREATE", held.stream, held.group, "0", "MKSTREAM")
                made += 1
            except RedisRefused as error:
                if "BUSYGROUP" not in str(error):
                    raise
        return made

    async def hold_office(self, lease_ms: int) -> bool:
        """Be the one reclaimer for `lease_ms`; False while another is."""
        return await self._client.script("hold_office", [self._keys.reclaimer], self._consumer, lease_ms) == 1

    async def holders(self, held: Held) -> list[str]:
        """The consumers that hold something."""
        answer = cast("list[Value]", await self._client.command("XPENDING", held.stream, held.group))
        rows = cast("list[tuple[bytes, bytes]] | None", answer[3])
        return [consumer.decode() for consumer, _ in rows or []]

    async def pending(self, held: Held, *, idle_ms: int = 0, consumer: str | None = None) -> list[Pending]:
        """What was not renewed for `idle_ms`, of one consumer or of all; at most 100 at a time."""
        command = ("XPENDING", held.stream, held.group, "IDLE", idle_ms, "-", "+", SCAN_COUNT)
        answer = await self._client.command(*command, *([] if consumer is None else [consumer]))
        rows = cast("list[tuple[bytes, bytes, int, int]]", answer)
        return [Pending(entry.decode(), holder.decode(), idle) for entry, holder, idle, _ in rows]

    async def reclaim(self, held: Held, pending: Pending, *, idle_ms: int) -> str:
        """Offer again what was silent for `idle_ms` (0: its holder is known dead): kept, restarted or dead."""
        packed = await self._record(held, pending.entry_id)
        if held is self.jobs:
            conversation = "" if packed is None else decode_job_record(packed).conversation_id
            return await self._reclaim_job(pending, conversation, idle_ms)
        conversation = "" if packed is None else decode_reply_record(packed).conversation_id
        keys = [self._keys.replies, self._keys.conversation(conversation), self._keys.generation]
        answer = await self._client.script("reclaim_reply", keys, pending.entry_id, pending.consumer, idle_ms)
        return cast(bytes, answer).decode()

    async def _reclaim_job(self, pending: Pending, conversation: str, idle_ms: int) -> str:
        keys = [
            self._keys.jobs,
            self._keys.conversation(conversation),
            self._keys.mailbox(conversation),
            self._keys.emitted(conversation),
            self._keys.dead,
            self._keys.generation,
        ]
        answer = await self._client.script(
            "reclaim", keys, pending.entry_id, pending.consumer, idle_ms, MOST_DELIVERIES
        )
        return cast(bytes, answer).decode()

    async def _record(self, held: Held, entry_id: str) -> bytes | None:
        rows = cast(
            "list[tuple[bytes, list[bytes]]]", await self._client.command("XRANGE", held.stream, entry_id, entry_id)
        )
        return rows[0][1][1] if rows else None

    async def start_due(self, now_ms: int) -> int:
        """Start the failed jobs whose time has come; how many."""
        found = await self._client.command("ZRANGEBYSCORE", self._keys.due, "-inf", now_ms, "LIMIT", 0, SCAN_COUNT)
        started = 0
        for raw in cast("list[bytes]", found):
            conversation = raw.decode()
            keys = [self._keys.due, self._keys.conversation(conversation), self._keys.jobs, self._keys.generation]
            started += cast(int, await self._client.script("due", keys, conversation))
        return started

    async def forget_idle_consumers(self) -> int:
        """Remove consumers with nothing pending that were not heard for a minute; how many."""
        removed = 0
        for held in (self.jobs, self.replies):
            removed += cast(int, await self._client.script("forget_consumers", [held.stream], held.group))
        return removed
