"""The worker's half of the bus: take jobs, send replies, end jobs, keep leases.

A job's entry id is its fencing token: every operation names it, and changes nothing once another has the job (DESIGN rule 6).
Leases are renewed by a thread with a connection of its own, so that no handler starves them (rule 7).
"""

import contextlib
import enum
import time
from collections.abc import Callable
from typing import cast

import msgspec
import trio

from bus.client import RedisClient
from bus.keys import JOBS_GROUP, Keys
from bus.leases import LeaseKeeper
from bus.lua import Scripts
from bus.overview import PRESENCE_SECONDS, Presence
from bus.readers import Entry, StreamReader
from bus.records import (
    MOST_DELIVERIES,
    BadRecord,
    Job,
    LiveDelta,
    LiveTyping,
    Reply,
    ReplyPlace,
    decode_job_record,
    pack_live,
    pack_reply,
    unpack_job,
)
from bus.seal import StoreSeal
from bus.sealing import BusKey
from bus.wire import RedisUnavailable


class Emitted(enum.Enum):
    """What became of a reply."""

    QUEUED = b"queued"
    ALREADY = b"already"
    FENCED = b"fenced"


class Finished(enum.Enum):
    """What became of a job that ended well."""

    DONE = b"done"
    FENCED = b"fenced"


class Failed(enum.Enum):
    """What became of a job that failed."""

    RETRY = b"retry"
    DEAD = b"dead"
    FENCED = b"fenced"


class JobStore:
    """Jobs of one agent, taken as one consumer."""

    def __init__(self, url: str, agent_id: str, bus_key: BusKey, consumer: str) -> None:
        """`consumer`: unique per process start; its pending entries are what this process answers for."""
        self._keys = Keys(agent_id)
        self._agent_id = agent_id
        self._bus_key = bus_key
        self._consumer = consumer
        scripts = Scripts.load()
        self._client = RedisClient(url, scripts)
        self._reader = StreamReader(self._client, stream=self._keys.jobs, group=JOBS_GROUP, consumer=consumer)
        self._leases = LeaseKeeper(url, scripts, stream=self._keys.jobs, group=JOBS_GROUP, consumer=consumer)
        self._in_hand: set[str] = set()

    async def open(self) -> None:
        """Connect, load the scripts, make the group; raises RedisUnavailable, StoreSealed (another store's bus key)."""
        self._client.start()
        try:
            self._bus_key = await StoreSeal(self._client, self._keys).adopt_bus_key(self._bus_key)
            await self._reader.make_group()
            await self.seen()
        except BaseException:
            await self._client.aclose()
            raise
        self._reader.start()
        self._leases.start()

    async def close(self) -> None:
        """Hand back what was read and not taken, then end the threads."""
        leftover = await self._reader.close()
        for entry in leftover:
            if entry.id not in self._in_hand:
                with contextlib.suppress(RedisUnavailable, BadRecord):  # its lease runs out
                    await self._hand_back(entry.id, decode_job_record(entry.fields["r"]).conversation_id)
        with contextlib.suppress(RedisUnavailable):
            await self._client.command("ZREM", self._keys.consumers, self._consumer)
            await self._client.command("DEL", self._keys.presence(self._consumer))
        await self._leases.close()
        await self._client.aclose()

    async def seen(self, presence: Presence | None = None) -> None:
        """Say that this consumer lives, and how it does; called every few seconds."""
        if presence is not None:
            told = msgspec.json.encode(presence)
            await self._client.command("SET", self._keys.presence(self._consumer), told, "EX", PRESENCE_SECONDS)
        await self._client.command("ZADD", self._keys.consumers, int(time.time() * 1000), self._consumer)

    async def take(self, count: int) -> list[Job]:
        """Wait for at least one job, take at most `count`; raises RedisUnavailable. Cancelling it loses nothing."""
        while True:
            entries = [entry for entry in await self._reader.read(count) if entry.id not in self._in_hand]
            jobs = [self._open(entry) for entry in entries]
            with trio.CancelScope(shield=True):  # what was opened is ours: it must reach the caller
                for entry, job in zip(entries, jobs, strict=True):
                    if job is None:
                        await self._give_up(entry)
            if taken := [job for job in jobs if job is not None]:
                return taken

    def _open(self, entry: Entry) -> Job | None:
        try:
            job = unpack_job(
                entry.fields["r"],
                entry_id=entry.id,
                attempt=int(entry.fields["a"]),
                deliveries=int(entry.fields["d"]),
                key=self._bus_key,
                agent_id=self._agent_id,
            )
        except BadRecord:
            return None
        self._in_hand.add(entry.id)
        self.hold(job)
        return job

    async def _give_up(self, entry: Entry) -> None:
        """A record that does not open is a dead letter; if even that fails, its lease runs out and it comes again."""
        with contextlib.suppress(RedisUnavailable, BadRecord):
            conversation = decode_job_record(entry.fields["r"]).conversation_id
            await self._fail(entry.id, conversation, "unreadable_record", None)

    def hold(self, job: Job) -> None:
        """Renew the job's lease from now on."""
        self._leases.hold(job.entry_id)

    def release(self, job: Job) -> None:
        """Renew it no more; the job has ended or is lost."""
        self._leases.release(job.entry_id)
        self._in_hand.discard(job.entry_id)

    def on_fenced(self, callback: Callable[[str], None]) -> None:
        """Call `callback(entry_id)` in the trio thread when a held lease is lost."""
        self._leases.on_lost = callback

    async def emitted(self, job: Job) -> frozenset[str]:
        """The places that earlier runs of this job have emitted."""
        places = await self._client.command("HKEYS", self._keys.emitted(job.conversation_id))
        return frozenset(place.decode() for place in cast("list[bytes]", places))

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted:
        """Send a reply at a place of the job."""
        keys, conversation = self._keys, job.conversation_id
        at = ReplyPlace(job.job_id, conversation, place, job.message_ms)
        packed = pack_reply(at, reply, emitted_ms=int(time.time() * 1000), key=self._bus_key, agent_id=self._agent_id)
        answer = await self._client.script(
            "emit",
            [
                keys.jobs,
                keys.conversation(conversation),
                keys.emitted(conversation),
                keys.out_box(conversation),
                keys.replies,
                keys.generation,
            ],
            job.entry_id,
            self._consumer,
            place,
            packed,
        )
        return Emitted(answer)

    async def finish(self, job: Job) -> Finished:
        """The job has ended well."""
        keys, conversation = self._keys, job.conversation_id
        answer = await self._client.script(
            "finish",
            [
                keys.jobs,
                keys.conversation(conversation),
                keys.mailbox(conversation),
                keys.emitted(conversation),
                keys.generation,
            ],
            job.entry_id,
            self._consumer,
        )
        return Finished(answer)

    async def fail(self, job: Job, reason: str, retry_after_ms: int | None) -> Failed:
        """The job has failed: again after a while, or (None) a dead letter with this reason."""
        return await self._fail(job.entry_id, job.conversation_id, reason, retry_after_ms)

    async def _fail(self, entry_id: str, conversation: str, reason: str, retry_after_ms: int | None) -> Failed:
        keys = self._keys
        answer = await self._client.script(
            "fail",
            [
                keys.jobs,
                keys.conversation(conversation),
                keys.mailbox(conversation),
                keys.emitted(conversation),
                keys.due,
                keys.dead,
                keys.generation,
            ],
            entry_id,
            self._consumer,
            conversation,
            "" if retry_after_ms is None else retry_after_ms,
            reason,
            MOST_DELIVERIES,
        )
        return Failed(answer)

    async def hand_back(self, job: Job) -> None:
        """The job was not started: as if never taken."""
        await self._hand_back(job.entry_id, job.conversation_id)

    async def _hand_back(self, entry_id: str, conversation: str) -> None:
        keys = self._keys
        await self._client.script(
            "hand_back", [keys.jobs, keys.conversation(conversation), keys.generation], entry_id, self._consumer
        )

    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None:
        """A piece of a streamed text; best effort."""
        await self._publish(LiveDelta(job.conversation_id, stream_id, seq, text))

    async def publish_typing(self, job: Job, active: bool) -> None:
        """The handler works on an answer, or no longer; best effort."""
        await self._publish(LiveTyping(job.conversation_id, active))

    async def _publish(self, live: LiveDelta | LiveTyping) -> None:
        packed = pack_live(live, key=self._bus_key, agent_id=self._agent_id)
        await self._client.command("PUBLISH", self._keys.live_channel, packed)
