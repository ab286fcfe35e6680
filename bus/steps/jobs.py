"""The worker's side of the bus: takes jobs, renews their leases, and hears of interruptions. Its steps are in bus/steps/job_steps.py.

Leases are renewed by a thread with its own connection, so that no handler can starve it (rule 7).
"""

import contextlib
import time
from collections.abc import Callable

import msgspec
import trio

from bus.records.keys import JOBS_GROUP
from bus.records.presence import PRESENCE_SECONDS, Presence
from bus.records.records import (
    GROUP,
    BadRecord,
    Job,
    JobRecord,
    Live,
    LiveAbort,
    LiveDelta,
    LiveTyping,
    Reply,
    ReplyPlace,
    decode_job_record,
    pack_live,
    pack_reply,
)
from bus.records.sealing import BusKey
from bus.steps.job_steps import APOLOGY_PLACE, Emitted, Failed, Finished, Started
from bus.steps.kept_steps import KeptSteps
from bus.steps.policies import Policies, PolicyStore
from bus.steps.seal import StoreSeal
from bus.transport.client import RedisClient
from bus.transport.clock import clock_of
from bus.transport.leases import RENEW_SECONDS, LeaseKeeper
from bus.transport.lua import Rights, Scripts
from bus.transport.readers import LiveSubscriber, RedisStreamReader, StreamEntry
from bus.transport.trouble import Tell
from bus.transport.wire import RedisFailed

__all__ = ["APOLOGY_PLACE", "Emitted", "Failed", "Finished", "JobStore", "Started"]

FORGOTTEN_MS = 86_400_000
"""After so long the name of a worker that was killed is removed from `consumers`: a day, for whoever looks into it."""


class JobStore(KeptSteps):
    """The jobs of one agent, taken as one consumer."""

    def __init__(
        self,
        url: str,
        agent_id: str,
        bus_key: BusKey,
        consumer: str,
        *,
        policies: Policies | None = None,
        rights: Rights = Rights.MAY_CHANGE,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        """`consumer`: unique per process start; its pending entries are the jobs of this process. `renew_seconds`: of their leases."""
        scripts = Scripts.load(rights)
        self._client = RedisClient(url, scripts)
        super().__init__(self._client, agent_id, bus_key, consumer, policies=policies)
        self._reader = RedisStreamReader(self._client, stream=self._keys.jobs, group=JOBS_GROUP, consumer=consumer)
        self._leases = LeaseKeeper(
            url,
            scripts,
            stream=self._keys.jobs,
            group=JOBS_GROUP,
            consumer=consumer,
            interrupted=self._keys.interrupted,
            renew_seconds=renew_seconds,
        )
        self._interrupts: LiveSubscriber | None = None
        self._stops: dict[str, trio.Event] = {}
        self._superseded: Callable[[str], None] = _nobody_asked
        self._in_hand: set[str] = set()
        self._on_trouble: Tell = _nobody_listens

    @property
    def dead_threads(self) -> list[str]:
        """Returns which of its threads have ended, which is a defect: leases would run out, or interruptions not be heard."""
        return [thread.thread_name for thread in self._threads() if not thread.is_alive]

    @property
    def trouble(self) -> str:
        """Returns the reason why a thread or the reader cannot do its work; '' while they can."""
        troubles = {thread.thread_name: thread.trouble for thread in self._threads()}
        troubles[self._reader.thread_name] = self._reader.trouble
        return ", ".join(f"{who}: {reason}" for who, reason in troubles.items() if reason)

    def _threads(self) -> list[LeaseKeeper | LiveSubscriber]:
        return [self._leases] if self._interrupts is None else [self._leases, self._interrupts]

    async def open(self) -> None:
        """Connects, loads the scripts and makes the group. Raises RedisFailed, StoreSealed (another store's bus key)."""
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
        if self._policies.busy == "interrupt" or self._policies.stop:
            self._hear_interrupts()

    def _hear_interrupts(self) -> None:
        """Hears of interruptions and of Stop buttons from now on."""
        if self._interrupts is None:
            self._interrupts = LiveSubscriber(self._client, self._keys.interrupts, self._hear)
            self._interrupts.on_trouble = self._on_trouble
            self._interrupts.start()

    def _hear(self, told: bytes) -> None:
        entry_id, _, what = told.decode("ascii", "replace").partition(" ")
        if not what:
            self._superseded(entry_id)
        elif entry_id in self._stops:
            self._stops[entry_id].set()

    async def stop_taking(self) -> None:
        """Reads no more and hands back what was read and not taken; jobs in hand go on.

        Otherwise a read that still blocks in Redis could fetch a job, which would lie here until the last running one has ended.
        """
        for entry in await self._reader.close():
            if entry.id not in self._in_hand:
                with contextlib.suppress(RedisFailed, BadRecord):  # its lease runs out
                    record = decode_job_record(entry.record)
                    await self._hand_back(entry.id, record.conversation_id, record.job_id)

    async def close(self) -> None:
        """Hands back what was read and not taken, then ends the threads."""
        await self.stop_taking()
        with contextlib.suppress(RedisFailed):
            await self._client.command("ZREM", self._keys.consumers, self._consumer)
            await self._client.command("DEL", self._keys.presence(self._consumer))
        await self._leases.close()
        if self._interrupts is not None:
            await self._interrupts.close()
        await self._client.aclose()

    async def seen(self, presence: Presence | None = None) -> None:
        """Notes, at Redis' time, that this consumer lives, and its state; called every few seconds."""
        self._read_lately.sweep()
        redis_ms, ahead_ms = await clock_of(self._client)
        if presence is not None:
            told = msgspec.json.encode(msgspec.structs.replace(presence, redis_clock_ahead_ms=ahead_ms))
            await self._client.command("SET", self._keys.presence(self._consumer), told, "EX", PRESENCE_SECONDS)
        await self._client.command("ZADD", self._keys.consumers, redis_ms, self._consumer)
        await self._client.command("ZREMRANGEBYSCORE", self._keys.consumers, "-inf", redis_ms - FORGOTTEN_MS)

    async def take(self, count: int) -> list[Job]:
        """Waits for at least one job and takes at most `count`; raises RedisFailed. Cancelling loses none."""
        while True:
            entries = [entry for entry in await self._reader.read(count) if entry.id not in self._in_hand]
            jobs = [self._open(entry) for entry in entries]
            with trio.CancelScope(shield=True):  # what was opened is ours: it must reach the caller
                for entry, job in zip(entries, jobs, strict=True):
                    if job is None:
                        await self._give_up(entry)
            if taken := [job for job in jobs if job is not None]:
                return taken

    def _open(self, entry: StreamEntry) -> Job | None:
        try:
            job = self.unpack(entry.id, entry.fields)
        except BadRecord:
            return None
        self._in_hand.add(entry.id)
        self.hold(job)
        return job

    async def _give_up(self, entry: StreamEntry) -> None:
        """Makes a record that does not open a dead letter; if that fails too, its lease runs out and it comes again.

        A record of a later version is left alone: its lease runs out, and a worker of that version takes it.
        """
        with contextlib.suppress(RedisFailed, BadRecord):
            record = decode_job_record(entry.record)
            apology = await self._apology_for(record)
            await self._fail(entry.id, record.conversation_id, record.job_id, "unreadable_record", apology=apology)

    async def _apology_for(self, record: JobRecord) -> bytes:
        """Packs the apology for a message that does not open; b"" for what is none, and in a group: whether it spoke to us nobody can tell."""
        text, conversation = self._policies.apology, record.conversation_id
        if text is None or record.kind:
            return b""
        if await self._client.command("HGET", self._keys.conversation(conversation), "kind") == GROUP.encode():
            return b""
        return pack_reply(
            ReplyPlace(record.job_id, conversation, APOLOGY_PLACE, record.message_ms),
            Reply(kind="message", content_type="text", payload={"type": "text", "text": text}),
            emitted_ms=int(time.time() * 1000),
            key=self._bus_key,
            agent_id=self._agent_id,
        )

    def hold(self, job: Job) -> None:
        """Renews the job's lease from now on."""
        self._leases.hold(job.entry_id)

    def release(self, job: Job) -> None:
        """Stops renewing the lease: the job has ended or is lost."""
        self._leases.release(job.entry_id)
        self._in_hand.discard(job.entry_id)
        self._stops.pop(job.entry_id, None)

    def on_fenced(self, callback: Callable[[str], None]) -> None:
        """Has `callback(entry_id)` called in the trio thread when a held lease is lost."""
        self._leases.on_lost = callback

    def on_trouble(self, tell: Tell) -> None:
        """Has `tell` called in the trio thread when a thread cannot do its work, and when it can again. Call it before `open`."""
        self._on_trouble = self._leases.on_trouble = tell

    async def until_stop_is_pressed(self, job: Job, seconds: float) -> None:
        """Waits until the job is told of a Stop button, or for so long: what is told may be lost."""
        self._hear_interrupts()
        pressed = self._stops.setdefault(job.entry_id, trio.Event())
        with trio.move_on_after(seconds):
            await pressed.wait()
            del self._stops[job.entry_id]

    def on_superseded(self, callback: Callable[[str], None]) -> None:
        """Has `callback(entry_id)` called in the trio thread, once or more, when a later message interrupts a job."""
        self._superseded = self._leases.on_superseded = callback

    async def publish_abort(self, job: Job) -> None:
        """Tells the supervisors that the stream that the job was showing is over; best effort."""
        await self._publish(LiveAbort(job.conversation_id))

    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None:
        """Sends a piece of a streamed text to the supervisors; best effort."""
        await self._publish(LiveDelta(job.conversation_id, stream_id, seq, text))

    async def publish_typing(self, job: Job, active: bool) -> None:
        """Tells the supervisors that the handler works on an answer, or no longer; best effort."""
        await self._publish(LiveTyping(job.conversation_id, active))

    async def _publish(self, live: Live) -> None:
        packed = pack_live(live, key=self._bus_key, agent_id=self._agent_id)
        await self._client.command("PUBLISH", self._keys.live_channel, packed)


def _nobody_asked(_entry_id: str) -> None:
    """Does nothing; used until the runner has set a callback."""


def _nobody_listens(_who: str, _reason: str) -> None:
    """Does nothing; used until the worker has set a callback."""
