"""A supervisor at work, in the words of the tests: it takes messages in, commits replies, hears acknowledgements."""

from collections.abc import Sequence

import msgspec

from bus.records.records import SCHEMA_VERSION, Job, OutboxRecord, decode_reply_record
from bus.steps.outbox import Commit, Committed
from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim, Reclaimed
from bus.steps.store import Intake, SessionWrite, Source
from bus.transport.readers import StreamEntry
from tests.bus.builders import CONVERSATION, PEER, arrival_of, job_of, reply, signed_id_of, text_of
from tests.bus.scenes import Scene, Supervisor, Worker


class Talk:
    """With one peer, each step with the version of its session that is current."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    async def version(self, conversation: str = CONVERSATION) -> int:
        return (await self.supervisor.store.look(conversation, PEER, bytes(8))).session_version

    async def accept(
        self,
        seq: int,
        *,
        source: Source = Source.PUSH,
        conversation: str = CONVERSATION,
        signed_id: bytes | None = None,
        refusal: bytes = b"",
        sender: str = PEER[0],
        characters: int = 0,
        payload: dict[str, object] | None = None,
        stops: str = "",
        question: str = "",
        version: int | None = None,
        kind: str = "h2a",
    ) -> Intake:
        """`characters`: of its text, where it is to be long; `payload`: where it is no text; `version`: of another session than the current one."""
        version = await self.version() if version is None else version
        arrival = arrival_of(seq, version, source=source, conversation=conversation, signed_id=signed_id)
        arrival = msgspec.structs.replace(arrival, sender_id=sender, kind=kind)
        job = job_of(seq, conversation, sender=sender, characters=characters, payload=payload)
        store = self.supervisor.store
        return await store.accept(arrival, job, refusal=refusal, stops=stops, question=question)

    async def quarantine(
        self,
        seq: int,
        *,
        source: Source = Source.POLL,
        is_signed: bool = True,
        digest: str = "",
        kept_as: str = "",
        frame: bytes = b"frame",
        sender: str = PEER[0],
        conversation: str = CONVERSATION,
    ) -> Intake:
        arrival = msgspec.structs.replace(
            arrival_of(seq, await self.version(), source=source, conversation=conversation), session=None
        )
        if not is_signed:
            arrival = msgspec.structs.replace(arrival, signed_id=b"")
        arrival = msgspec.structs.replace(arrival, kept_as=kept_as)
        return await self.supervisor.store.quarantine(
            arrival, reason="no_session", frame=frame, evidence=b"evidence", sender_id=sender, digest=digest
        )

    async def hold(
        self,
        seq: int,
        *,
        by_itself: bool = True,
        source: Source = Source.PUSH,
        conversation: str = CONVERSATION,
        sender: str = PEER[0],
        is_signed: bool = True,
    ) -> Intake:
        arrival = arrival_of(seq, await self.version(), source=source, conversation=conversation)
        arrival = msgspec.structs.replace(arrival, sender_id=sender, signed_id=arrival.signed_id if is_signed else b"")
        return await self.supervisor.store.hold(arrival, by_itself=by_itself)

    async def fetch(self, sender: str = PEER[0]) -> list[int]:
        """The seqs of what has waited at the relay and was taken in now, in their order, as long as there was room."""
        notes, fetched = self.supervisor.notes, list[int]()
        for note in await notes.of(sender):
            for seq in range(note.seq, (note.last_seq or note.seq) + 1):
                outcome = await self.accept(seq, source=Source.HELD, conversation=note.conversation_id, sender=sender)
                if outcome is Intake.HELD:
                    return fetched
                assert outcome.is_settled
                if note.is_open:
                    await notes.reached(sender, note, seq, f"{note.conversation_id}-{seq}")
                else:
                    await notes.forget(sender, note)
                fetched.append(seq)
        return fetched

    async def requeue(self, seq: int, kept_as: str = "") -> Intake:
        arrival = msgspec.structs.replace(arrival_of(seq, await self.version()), kept_as=kept_as)
        return await self.supervisor.store.requeue(arrival, job_of(seq))

    async def knows(self, seq: int) -> bool:
        return (await self.supervisor.store.look(CONVERSATION, PEER, signed_id_of(seq))).known

    async def next_seq(self) -> int:
        return (await self.supervisor.store.look(CONVERSATION, PEER, bytes(8))).next_seq

    async def take_reply(self) -> StreamEntry:
        entry = await self.supervisor.take_reply()
        assert entry is not None
        return entry

    async def commit(
        self,
        entry: StreamEntry,
        cmid: str,
        *,
        version: int | None = None,
        rate: float = 0,
        epoch: int | None = None,
        sessions: Sequence[SessionWrite] | None = None,
        ends_stream: str | None = None,
    ) -> Commit:
        """As if it had been encrypted with the session of `version`."""
        record = decode_reply_record(entry.fields["r"])
        read = await self.version() if version is None else version
        return await self.supervisor.outbox.commit(
            entry_id=entry.id,
            conversation_id=record.conversation_id,
            client_message_id=cmid,
            answers=(record.job_id, record.place),
            record=outbox_record(cmid, record.conversation_id),
            sessions=[SessionWrite(*PEER, read, b"sealed")] if sessions is None else sessions,
            epoch=self.supervisor.write_count.epoch if epoch is None else epoch,
            rate_per_second=rate,
            stream_id=ends_stream,
        )

    async def start_stream(self, entry: StreamEntry, stream_id: str, *, rate: float = 0) -> Commit:
        """Commit what needs no acknowledgement."""
        record = decode_reply_record(entry.fields["r"])
        return await self.supervisor.outbox.commit(
            entry_id=entry.id,
            conversation_id=record.conversation_id,
            client_message_id=f"start of {stream_id}",
            answers=(record.job_id, record.place),
            record=None,
            sessions=[],
            epoch=0,
            rate_per_second=rate,
            stream_id=stream_id,
        )

    async def send(self, cmid: str, seq: int) -> str:
        """The whole way of the next reply; its place."""
        entry = await self.take_reply()
        assert (await self.commit(entry, cmid)).outcome is Committed.COMMITTED
        conversation = decode_reply_record(entry.fields["r"]).conversation_id
        assert await self.supervisor.outbox.confirm(conversation, cmid, f"message of {cmid}", seq) is not None
        return text_of(entry.fields["r"])

    async def reclaim(self, how: Reclaim | None = None) -> list[Reclaimed]:
        """Every job that a worker holds."""
        lease, why = self.supervisor.recovery, how or Reclaim()
        found = await lease.pending(lease.jobs, idle_ms=why.idle_ms)
        return [await lease.reclaim(lease.jobs, pending, why) for pending in found]

    async def start_due(self) -> int:
        return await self.supervisor.recovery.start_due(await self.supervisor.store.now_ms())


def outbox_record(cmid: str, conversation: str = CONVERSATION) -> OutboxRecord:
    return OutboxRecord(SCHEMA_VERSION, cmid, conversation, "text", f"bytes of {cmid}", None, "h2a", "text", 1)


async def answer(worker: Worker, *places: str) -> str:
    """Take the next job, reply at these places, finish it; the message's text."""
    job = await worker.take()
    assert job is not None
    assert (await worker.steps.start(job)).outcome == "started"
    for place in places:
        await worker.steps.emit(job, place, reply(place))
    await worker.steps.finish(job)
    return job.message.text


async def talk_of(scene: Scene, name: str = "supervisor-1") -> Talk:
    """A supervisor that has looked at Redis, as each does before anything else."""
    talk = Talk(await scene.supervisor(name))
    await talk.supervisor.check()
    return talk


async def talk_and_worker(scene: Scene, policies: Policies | None = None) -> tuple[Talk, Worker]:
    return await talk_of(scene), await scene.worker("worker-1", policies)


async def taken(worker: Worker) -> Job:
    """The oldest job that nobody has; there is one."""
    job = await worker.take()
    assert job is not None
    return job
