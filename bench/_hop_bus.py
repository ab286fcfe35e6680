"""Our bus with every guarantee on, as supervisor and workers use it, without cryptography of messages and without a relay.

A job: sealed, `accept` with the write of its sender's session, taken by a worker under a lease, `finish` with the reply; the reply read,
opened, `commit` with the write of the session and the outbox record, `confirm`. It is back when it is confirmed, for only then may
its conversation go on; `result_p50_ms` says when the reply was in hand. One conversation and one person a lane.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import uuid
from dataclasses import dataclass, field

import msgspec
import trio

from bench.peers.driver import PAYLOAD, answer, check, orders, percentiles
from bus.records.keys import REPLIES_GROUP
from bus.records.records import (
    SCHEMA_VERSION,
    InboundMessage,
    Job,
    OutboxRecord,
    Reply,
    decode_reply_record,
    open_reply,
    pack_job,
)
from bus.records.sealing import StoreKeys
from bus.steps.jobs import Finished, JobStore
from bus.steps.outbox import Committed, Outbox
from bus.steps.store import Arrival, InboundStore, Intake, SessionWrite, Source
from bus.transport.client import open_redis
from bus.transport.leases import LeaseKeeper
from bus.transport.readers import RedisStreamReader, StreamEntry
from host.tuning import tune
from workers.kept.history import MOST_TURNS
from workers.kept.keeping import Keeping
from workers.kept.state import StateShape

AGENT = "01906abc-0000-7000-8000-000000000001"
SUPERVISOR = "supervisor-1"
KEYS = StoreKeys.derive(bytes(32))
DEVICE_RECORD = bytes(700)
"""About what a device's record with one session takes (crypto/records.py)."""
ENCRYPTED_PAYLOAD = "A" * 2400
"""About what an envelope with 1 KiB of text for one device takes."""
MOST_EXCHANGES = int(os.environ.get("BENCH_EXCHANGES", "0"))
"""After so many a lane begins another conversation; 0: never. It says how much is read of what was said."""
STATE_AGENT = "state"
SLOTS = 32
READ_COUNT = 64


@dataclass
class Lane:
    """One person with one conversation, and the job that is under way in it."""

    conversation: str
    person: tuple[str, str]
    seq: int = 1
    version: int = 0
    sent_ns: int = 0
    reply: StreamEntry | None = None
    has_reply: trio.Event = field(default_factory=trio.Event)

    def session(self, version: int) -> SessionWrite:
        owner, device = self.person
        return SessionWrite(owner, device, version, KEYS.state.seal(DEVICE_RECORD, owner, device, version + 1))


class Supervisor:
    """The producer: takes messages in and sends replies out."""

    def __init__(self, store: InboundStore, outbox: Outbox, replies: RedisStreamReader, leases: LeaseKeeper) -> None:
        self._store, self._outbox, self._replies, self._leases = store, outbox, replies, leases
        self._lanes: dict[str, Lane] = {}
        self._latencies: list[int] = []
        self._results: list[int] = []
        self._numbers = itertools.count()

    async def serve(self) -> None:
        """Everything the benchmark asks for."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear)
            await self._run(1, 0.0)
            asked = orders()
            while order := await trio.to_thread.run_sync(next, asked, None):
                seconds = await self._run(*order)
                more = {f"result_{name}": value for name, value in percentiles(self._results).items()}
                answer(seconds, self._latencies, **more)
            nursery.cancel_scope.cancel()

    async def _run(self, in_flight: int, seconds: float) -> float:
        self._latencies, self._results = [], []
        began = time.perf_counter_ns()
        async with trio.open_nursery() as nursery:
            for _ in range(in_flight):
                lane = Lane(uuid.uuid4().hex, (uuid.uuid4().hex, uuid.uuid4().hex))
                self._lanes[lane.conversation] = lane
                nursery.start_soon(self._talk, lane, began + int(seconds * 1e9))
        return (time.perf_counter_ns() - began) / 1e9

    async def _talk(self, lane: Lane, end: int) -> None:
        while True:
            lane.has_reply = trio.Event()
            await self._send(lane)
            await lane.has_reply.wait()
            assert lane.reply is not None
            await self._reply(lane, lane.reply)
            if time.perf_counter_ns() >= end:
                break
            if lane.seq // 2 == MOST_EXCHANGES:
                del self._lanes[lane.conversation]
                lane.conversation, lane.seq = uuid.uuid4().hex, 1
                self._lanes[lane.conversation] = lane
        del self._lanes[lane.conversation]

    async def _send(self, lane: Lane) -> None:
        lane.sent_ns = time.perf_counter_ns()
        now_ms = time.time_ns() // 1_000_000
        message = InboundMessage(
            message_id=self._new_id(),
            conversation_id=lane.conversation,
            conversation_type="h2a",
            sender_id=lane.person[0],
            sender_type="human",
            payload={"type": "text", "text": PAYLOAD},
        )
        job = pack_job(message, seq=lane.seq, accepted_ms=now_ms, message_ms=now_ms, key=KEYS.bus, agent_id=AGENT)
        arrival = Arrival(
            conversation_id=lane.conversation,
            source=Source.PUSH,
            seq=lane.seq,
            signed_id=os.urandom(8),
            message_ms=now_ms,
            session=lane.session(lane.version),
            session_version=lane.version,
            peer=lane.person,
            person=lane.person[0],
        )
        lane.version += 1  # before the answer: the reply may overtake it
        assert await self._store.accept(arrival, job) is Intake.ACCEPTED

    async def _hear(self) -> None:
        while True:
            for entry in await self._replies.read(READ_COUNT):
                self._leases.hold(entry.id)
                lane = self._lanes[decode_reply_record(entry.fields["r"]).conversation_id]
                lane.reply = entry
                lane.has_reply.set()

    async def _reply(self, lane: Lane, entry: StreamEntry) -> None:
        record = decode_reply_record(entry.fields["r"])
        check(open_reply(record, key=KEYS.bus, agent_id=AGENT).payload["text"])
        self._results.append(time.perf_counter_ns() - lane.sent_ns)
        name = self._new_id()
        commit = await self._outbox.commit(
            answers=(record.job_id, record.place),
            entry_id=entry.id,
            conversation_id=lane.conversation,
            client_message_id=name,
            record=OutboxRecord(
                SCHEMA_VERSION,
                name,
                lane.conversation,
                "text",
                ENCRYPTED_PAYLOAD,
                None,
                "h2a",
                "text",
                record.emitted_ms,
            ),
            sessions=[lane.session(lane.version)],
            epoch=0,
            rate_per_second=0,
        )
        assert commit.outcome is Committed.COMMITTED, commit
        lane.version += 1
        assert await self._outbox.confirm(lane.conversation, name, f"message-{name}", lane.seq + 1) is not None
        self._leases.release(entry.id)
        lane.seq += 2
        self._latencies.append(time.perf_counter_ns() - lane.sent_ns)

    def _new_id(self) -> str:
        return f"{next(self._numbers):032x}"


async def produce(url: str) -> None:
    async with open_redis(url) as client:
        store = InboundStore(client, AGENT, SUPERVISOR)
        stream, group = store.keys.replies, REPLIES_GROUP
        replies = RedisStreamReader(client, stream=stream, group=group, consumer=SUPERVISOR)
        leases = LeaseKeeper(
            url, client.scripts, stream=stream, group=group, consumer=SUPERVISOR, interrupted=store.keys.interrupted
        )
        await replies.make_group()
        replies.start()
        leases.start()
        try:
            await Supervisor(store, Outbox(client, AGENT, SUPERVISOR), replies, leases).serve()
        finally:
            await replies.close()
            await leases.close()


class Seen(msgspec.Struct):
    """The state of a conversation, where one is kept."""

    messages: int = 0
    last: str = ""


SEEN = StateShape(Seen)


class Worker:
    """Takes jobs and answers them as `workers/process/runner.py` does; the handler gives back what it got."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._in_hand = 0
        self._room = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                while self._in_hand >= SLOTS:
                    self._room = trio.Event()
                    await self._room.wait()
                for job in await self._jobs.take(SLOTS - self._in_hand):
                    self._in_hand += 1
                    nursery.start_soon(self._answer, job)

    async def _answer(self, job: Job) -> None:
        reply = Reply(kind="message", content_type="text", payload={"type": "text", "text": job.message.text})
        assert job.deliveries == 1  # or it would be begun with a step of its own
        began_ms = int(time.time() * 1000)
        assert await self._end(job, reply, began_ms) is Finished.DONE
        self._jobs.release(job)
        self._in_hand -= 1
        self._room.set()

    async def _end(self, job: Job, reply: Reply, began_ms: int) -> Finished:
        return await self._jobs.finish(job, last=[("0", reply)], began_ms=began_ms)


class KeepingWorker(Worker):
    """Its handler asks for state and history, looks at all of that, and changes the state."""

    async def _end(self, job: Job, reply: Reply, began_ms: int) -> Finished:
        keeping = Keeping(job, self._jobs, (job.message,), has_history=True)
        keeping.expect(frozenset({"state", "history"}))
        seen = await keeping.state(SEEN)
        assert isinstance(seen, Seen)
        assert len(await keeping.history()) == 2 * min(seen.messages, MOST_TURNS // 2)
        seen.messages, seen.last = seen.messages + 1, job.message.message_id
        keeping.said("0", reply)
        return await self._jobs.settle(job, "done", keeping.effects(), last=[("0", reply)], began_ms=began_ms)


async def work(url: str, name: str, kind: type[Worker]) -> None:
    jobs = JobStore(url, AGENT, KEYS.bus, name)
    await jobs.open()
    await kind(jobs).run()


if __name__ == "__main__":
    tune()
    address = os.environ["BENCH_REDIS_URL"]
    if sys.argv[1] == "worker":
        trio.run(work, address, sys.argv[2], KeepingWorker if sys.argv[3:] == [STATE_AGENT] else Worker)
    else:
        trio.run(produce, address)
