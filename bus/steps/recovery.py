"""The reclaimer's operations: offer again the jobs and replies that dead or silent processes held (DESIGN rules 6 and 7).

One supervisor at a time reclaims for the whole agent: the one with the reclaimer's lease. An entry is not claimed from its holder (XCLAIM):
it is acknowledged, deleted and added anew, so that the former holder is fenced.
"""

from collections.abc import Callable
from typing import cast

import msgspec

from bus.records.keys import JOBS_GROUP, REPLIES_GROUP, Keys
from bus.records.records import MOST_DELIVERIES, BadRecord, JobRecord, decode_job_record, decode_reply_record
from bus.steps.work_lease import WorkLease, nobody_knows
from bus.transport.client import Commands, members_until
from bus.transport.lua import Argument
from bus.transport.wire import RedisDenied, RedisRefused, Value

SCAN_COUNT = 100
FORGOTTEN_AFTER_MS = 60_000
SOON_MS = 60_000
"""Whoever is answered within so long is shown that they will be; a try that is further off only to whoever writes meanwhile."""

MOST_KEPT_WAITING = 100


class Pending(msgspec.Struct, frozen=True):
    """An entry of a stream that a consumer has taken and not ended."""

    entry_id: str
    consumer: str
    idle_ms: int


class HeldEntries(msgspec.Struct, frozen=True):
    """One of the two streams whose entries consumers hold: jobs or replies."""

    stream: str
    group: str


class Reclaim(msgspec.Struct, frozen=True, kw_only=True):
    """Why an entry is taken from its holder. `idle_ms`: it was silent for so long (0: it is known to be gone).

    `is_strike`: the worker died by itself. `ran_many`: jobs, of which one is not struck, but suspected first. `ends_as`: the job becomes a dead letter with this reason. `apology` makes the reply for the
    sender of a job that becomes a dead letter.
    """

    idle_ms: int = 0
    is_strike: bool = False
    ran_many: bool = False
    ends_as: str | None = None
    apology: Callable[[JobRecord], bytes] | None = None


class Reclaimed(msgspec.Struct, frozen=True):
    """The result of `reclaim`. `outcome`: kept, restarted, or dead for a `reason`."""

    outcome: str
    conversation_id: str = ""
    job_id: str = ""
    reason: str = ""


class Recovery:
    """The reclaimer's operations. `consumer`: the supervisor that reclaims; `knows_dead`: whether another process is known to be gone."""

    def __init__(
        self, client: Commands, keys: Keys, consumer: str, *, knows_dead: Callable[[str], bool] = nobody_knows
    ) -> None:
        self._client = client
        self._keys = keys
        self.lease = WorkLease(client, keys.reclaimer, holder=consumer, knows_dead=knows_dead)
        self.on_left: Callable[[str, Exception], None] = _nobody_asked
        """Called with an entry or conversation that Redis refuses to have given on; it stays as it is."""
        self.jobs = HeldEntries(keys.jobs, JOBS_GROUP)
        self.replies = HeldEntries(keys.replies, REPLIES_GROUP)

    async def make_groups(self) -> int:
        """Makes the missing consumer groups of both streams, at 0; returns how many were missing."""
        made = 0
        for held in (self.jobs, self.replies):
            try:
                await self._client.command("XGROUP", "CREATE", held.stream, held.group, "0", "MKSTREAM")
                made += 1
            except RedisRefused as error:
                if "BUSYGROUP" not in str(error):
                    raise
        return made

    async def holders(self, held: HeldEntries) -> list[str]:
        """Returns the consumers that hold an entry."""
        answer = cast("list[Value]", await self._client.command("XPENDING", held.stream, held.group))
        rows = cast("list[tuple[bytes, bytes]] | None", answer[3])
        return [consumer.decode() for consumer, _ in rows or []]

    async def pending(self, held: HeldEntries, *, idle_ms: int = 0, consumer: str | None = None) -> list[Pending]:
        """Returns all entries that were not renewed for `idle_ms`, of one consumer or of all, asked for page by page."""
        found: list[Pending] = []
        start = "-"
        while True:
            command = ("XPENDING", held.stream, held.group, "IDLE", idle_ms, start, "+", SCAN_COUNT)
            answer = await self._client.command(*command, *([] if consumer is None else [consumer]))
            rows = cast("list[tuple[bytes, bytes, int, int]]", answer)
            found += [Pending(entry.decode(), holder.decode(), idle) for entry, holder, idle, _ in rows]
            if len(rows) < SCAN_COUNT:
                return found
            start = f"({found[-1].entry_id}"

    async def clock_went_back(self, by_ms: int) -> None:
        """Redis' clock was put back by so much: every lease runs from now on, whoever holds it, and what has a time has it that much earlier.

        Else what one held that died just then, a retry and a second send would wait until the clock is as far again.
        """
        for held in (self.jobs, self.replies):
            for pending in await self.pending(held):
                words = (held.group, pending.consumer, pending.entry_id)
                await self._client.script("renew", [held.stream, self._keys.interrupted], *words)
        for times in (self._keys.due, self._keys.resend_times):
            rows = cast("list[bytes]", await self._client.command("ZRANGE", times, 0, -1, "WITHSCORES"))
            for name, time_ms in zip(rows[::2], rows[1::2], strict=True):
                await self._client.command("ZADD", times, "XX", "LT", int(float(time_ms)) - by_ms, name)

    async def reclaim(self, held: HeldEntries, pending: Pending, how: Reclaim) -> Reclaimed:
        """Offers an entry again whose holder does not work on it any more. Raises BadRecord."""
        try:
            return await self._offer(held, pending, how)
        except RedisRefused as error:
            self._leave(pending.entry_id, error)
            return Reclaimed("kept")

    async def _offer(self, held: HeldEntries, pending: Pending, how: Reclaim) -> Reclaimed:
        packed = await self._record(held, pending.entry_id)
        if packed is None:  # settled meanwhile; or its stream was trimmed, and the audit starts its conversation again
            await self._client.command("XACK", held.stream, held.group, pending.entry_id)
            return Reclaimed("kept")
        if held is self.replies:
            reply = decode_reply_record(packed)
            arguments = (reply.conversation_id, pending.entry_id, pending.consumer, how.idle_ms)
            return await self._reclaim("reclaim_reply", reply.conversation_id, reply.job_id, arguments)
        job = decode_job_record(packed)
        apology = b"" if how.apology is None else how.apology(job)
        return await self._reclaim(
            "reclaim",
            job.conversation_id,
            job.job_id,
            (
                *(job.conversation_id, pending.entry_id, pending.consumer, job.job_id, how.idle_ms, MOST_DELIVERIES),
                *(_strike(how), how.ends_as or "", apology),
            ),
        )

    async def _reclaim(self, script: str, conversation: str, job_id: str, arguments: tuple[Argument, ...]) -> Reclaimed:
        answer = await self._client.script(script, self._keys.board(conversation), *arguments)
        outcome, *reason = [part.decode() for part in cast("list[bytes]", answer)]
        return Reclaimed(outcome, conversation, job_id, *reason)

    async def _record(self, held: HeldEntries, entry_id: str) -> bytes | None:
        rows = cast(
            "list[tuple[bytes, list[bytes]]]", await self._client.command("XRANGE", held.stream, entry_id, entry_id)
        )
        if not rows:
            return None
        fields = dict(zip(rows[0][1][::2], rows[0][1][1::2], strict=True))
        if b"r" not in fields:  # of nobody: no version writes such an entry, and a drain would wait for it
            self.on_left(entry_id, BadRecord("its entry has no record and was removed"))
            await self._client.command("XDEL", held.stream, entry_id)
        return fields.get(b"r")

    async def start_due(self, now_ms: int) -> int:
        """Starts all failed jobs whose time has come; returns how many."""
        return await self._for_each("due", await members_until(self._client, self._keys.due, now_ms))

    async def kept_waiting(self, now_ms: int) -> list[str]:
        """Returns conversations, at most 100, that wait for the next try of a failed job: for a minute at most, or while others of their messages wait."""
        command = ("ZRANGEBYSCORE", self._keys.due, "-inf", "+inf", "WITHSCORES", "LIMIT", 0, MOST_KEPT_WAITING)
        rows = cast("list[bytes]", await self._client.command(*command))
        found: list[str] = []
        for name, due_ms in zip(rows[::2], rows[1::2], strict=True):
            conversation = name.decode()
            mailbox, is_soon = self._keys.mailbox(conversation), float(due_ms) - now_ms <= SOON_MS
            if is_soon or await self._client.command("EXISTS", mailbox):
                found.append(conversation)
        return found

    async def audit(self, busy_since_ms: int) -> int:
        """Starts conversations again that have been busy since before then with nothing under way; returns how many faults were mended.

        Those in which placed jobs wait are looked after too: a former version, which knows of none, lets them rest.
        """
        busy = await members_until(self._client, self._keys.busy, busy_since_ms)
        behind = await members_until(self._client, self._keys.behind, busy_since_ms)
        return await self._for_each("audit", list(dict.fromkeys(busy + behind)), self._keys.behind)

    async def _for_each(self, script: str, conversations: list[str], *own: str) -> int:
        done = 0
        for conversation in conversations:
            try:
                keys = (*self._keys.board(conversation), *own)
                done += cast(int, await self._client.script(script, keys, conversation))
            except RedisRefused as error:
                self._leave(conversation, error)
        return done

    def _leave(self, name: str, error: RedisRefused) -> None:
        """Passes over one entry or conversation that Redis refuses (a key of a wrong type); raises a refusal that concerns all of them."""
        if isinstance(error, RedisDenied):
            raise error
        self.on_left(name, error)

    async def trim_ledger(self, before_ms: int) -> None:
        """Deletes older entries of the ledger."""
        await self._client.command("XTRIM", self._keys.ledger, "MINID", "~", before_ms)

    async def forget_idle_consumers(self, idle_ms: int = FORGOTTEN_AFTER_MS) -> int:
        """Removes consumers with nothing pending that were silent for so long; returns how many."""
        removed = 0
        for held in (self.jobs, self.replies):
            answer = await self._client.script("forget_consumers", [held.stream], held.group, idle_ms)
            removed += cast(int, answer)
        return removed


def _strike(how: Reclaim) -> str:
    """Returns the script's word for what a death says of the job."""
    if not how.is_strike:
        return "0"
    return "many" if how.ran_many else "1"


def _nobody_asked(_name: str, _error: Exception) -> None:
    """Does nothing; used until the reclaimer has set a callback."""
