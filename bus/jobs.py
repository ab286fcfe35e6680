"""The worker's half of the bus: take jobs, send replies, end jobs, keep leases.

A job's entry id is its fencing token: every operation names it, and changes nothing once another has the job (DESIGN rule 6).
Leases are renewed by a thread with a connection of its own, so that no handler starves them (rule 7).
"""

import contextlib
import enum
import time
from collections.abc import Callable, Sequence
from typing import Literal, cast

import msgspec
import trio

from bus.client import RedisClient
from bus.keys import JOBS_GROUP, Keys
from bus.leases import LeaseKeeper
from bus.lua import Scripts
from bus.overview import PRESENCE_SECONDS, Presence
from bus.policies import Policies, PolicyStore
from bus.readers import Entry, LiveSubscriber, StreamReader
from bus.records import (
    MOST_DELIVERIES,
    BadRecord,
    InboundMessage,
    Job,
    Live,
    LiveAbort,
    LiveDelta,
    LiveTyping,
    Reply,
    ReplyPlace,
    decode_job_record,
    open_job,
    pack_live,
    pack_reply,
    unpack_job,
)
from bus.seal import StoreSeal
from bus.sealing import BusKey
from bus.wire import Argument, RedisUnavailable, Value

APOLOGY_PLACE = "!apology"


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
    SUPERSEDED = b"superseded"
    DEAD = b"dead"
    FENCED = b"fenced"


class Started(msgspec.Struct, frozen=True):
    """What a worker learns when it begins with a job.

    `places`: what earlier runs have emitted. `together`: later messages that are handled with it, in order.
    """

    outcome: Literal["started", "superseded", "fenced"]
    places: frozenset[str] = frozenset()
    together: tuple[InboundMessage, ...] = ()


class JobStore:
    """Jobs of one agent, taken as one consumer."""

    def __init__(
        self, url: str, agent_id: str, bus_key: BusKey, consumer: str, *, policies: Policies | None = None
    ) -> None:
        """`consumer`: unique per process start; its pending entries are what this process answers for."""
        self._keys = Keys(agent_id)
        self._agent_id = agent_id
        self._bus_key = bus_key
        self._consumer = consumer
        self._policies = policies or Policies()
        scripts = Scripts.load()
        self._client = RedisClient(url, scripts)
        self._reader = StreamReader(self._client, stream=self._keys.jobs, group=JOBS_GROUP, consumer=consumer)
        self._leases = LeaseKeeper(
            url,
            scripts,
            stream=self._keys.jobs,
            group=JOBS_GROUP,
            consumer=consumer,
            interrupted=self._keys.interrupted,
        )
        self._interrupts: LiveSubscriber | None = None
        self._superseded: Callable[[str], None] = _nobody_asked
        self._in_hand: set[str] = set()

    async def open(self) -> None:
        """Connect, load the scripts, make the group; raises RedisUnavailable, StoreSealed (another store's bus key)."""
        self._client.start()
        try:
            self._bus_key = await StoreSeal(self._client, self._keys).adopt_bus_key(self._bus_key)
            await self._reader.make_group()
            await PolicyStore(self._client, self._keys, self._bus_key).publish(self._policies)
            await self.seen()
        except BaseException:
            await self._client.aclose()
            raise
        self._reader.start()
        self._leases.start()
        if self._policies.busy == "interrupt":
            self._interrupts = LiveSubscriber(
                self._client, self._keys.interrupts, lambda entry: self._superseded(entry.decode())
            )
            self._interrupts.start()

    async def close(self) -> None:
        """Hand back what was read and not taken, then end the threads."""
        leftover = await self._reader.close()
        for entry in leftover:
            if entry.id not in self._in_hand:
                with contextlib.suppress(RedisUnavailable, BadRecord):  # its lease runs out
                    record = decode_job_record(entry.fields["r"])
                    await self._hand_back(entry.id, record.conversation_id, record.job_id)
        with contextlib.suppress(RedisUnavailable):
            await self._client.command("ZREM", self._keys.consumers, self._consumer)
            await self._client.command("DEL", self._keys.presence(self._consumer))
        await self._leases.close()
        if self._interrupts is not None:
            await self._interrupts.close()
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
                strikes=int(entry.fields.get("s", 0)),
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
            record = decode_job_record(entry.fields["r"])
            await self._fail(entry.id, record.conversation_id, record.job_id, "unreadable_record")

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

    def on_superseded(self, callback: Callable[[str], None]) -> None:
        """Call `callback(entry_id)` in the trio thread when a later message interrupts a job; more than once, perhaps."""
        self._superseded = self._leases.on_superseded = callback

    async def start(self, job: Job) -> Started:
        """Begin with a job that was taken: whether to, and what earlier runs have done."""
        coalesce = "1" if self._policies.busy == "coalesce" else "0"
        answer = cast("list[Value]", await self._on_job("start", job, job.job_id, coalesce))
        outcome = cast(bytes, answer[0]).decode()
        if outcome != "started":
            return Started(cast("Literal['superseded', 'fenced']", outcome))
        places = frozenset(place.decode() for place in cast("list[bytes]", answer[1]))
        return Started("started", places, self._open_all(cast("list[bytes]", answer[2])))

    def _open_all(self, records: Sequence[bytes]) -> tuple[InboundMessage, ...]:
        return tuple(open_job(record, key=self._bus_key, agent_id=self._agent_id) for record in records)

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted:
        """Send a reply at a place of the job."""
        return Emitted(await self._on_job("emit", job, place, self._pack(job, place, reply), job.job_id))

    def _pack(self, job: Job, place: str, reply: Reply) -> bytes:
        at = ReplyPlace(job.job_id, job.conversation_id, place, job.message_ms)
        return pack_reply(at, reply, emitted_ms=int(time.time() * 1000), key=self._bus_key, agent_id=self._agent_id)

    async def finish(self, job: Job, outcome: Literal["done", "superseded", "no_handler"] = "done") -> Finished:
        """The job has ended well."""
        return Finished(await self._on_job("finish", job, job.job_id, outcome))

    async def fail(self, job: Job, reason: str, retry_after_ms: int | None, apology: Reply | None = None) -> Failed:
        """The job has failed: again after a while, or (None) a dead letter with this reason, and the sender is told."""
        packed = b"" if apology is None else self._pack(job, APOLOGY_PLACE, apology)
        return await self._fail(
            job.entry_id, job.conversation_id, job.job_id, reason, retry_after_ms=retry_after_ms, apology=packed
        )

    async def _fail(
        self,
        entry_id: str,
        conversation: str,
        job_id: str,
        reason: str,
        *,
        retry_after_ms: int | None = None,
        apology: bytes = b"",
    ) -> Failed:
        after = "" if retry_after_ms is None else retry_after_ms
        arguments = (conversation, entry_id, self._consumer, job_id, after, reason, MOST_DELIVERIES, apology)
        return Failed(await self._client.script("fail", self._keys.board(conversation), *arguments))

    async def hand_back(self, job: Job) -> None:
        """The job was not finished: it goes to another, and the attempt does not count."""
        await self._hand_back(job.entry_id, job.conversation_id, job.job_id)

    async def _hand_back(self, entry_id: str, conversation: str, job_id: str) -> None:
        arguments = (conversation, entry_id, self._consumer, job_id)
        await self._client.script("hand_back", self._keys.board(conversation), *arguments)

    async def _on_job(self, script: str, job: Job, *arguments: Argument) -> Value:
        keys = self._keys.board(job.conversation_id)
        return await self._client.script(script, keys, job.conversation_id, job.entry_id, self._consumer, *arguments)

    async def publish_abort(self, job: Job) -> None:
        """The stream that the job was showing is over; best effort."""
        await self._publish(LiveAbort(job.conversation_id))

    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None:
        """A piece of a streamed text; best effort."""
        await self._publish(LiveDelta(job.conversation_id, stream_id, seq, text))

    async def publish_typing(self, job: Job, active: bool) -> None:
        """The handler works on an answer, or no longer; best effort."""
        await self._publish(LiveTyping(job.conversation_id, active))

    async def _publish(self, live: Live) -> None:
        packed = pack_live(live, key=self._bus_key, agent_id=self._agent_id)
        await self._client.command("PUBLISH", self._keys.live_channel, packed)


def _nobody_asked(_entry_id: str) -> None:
    """Until the runner has said what to do with a superseded job."""
