"""One agent's bus in a real Redis: both halves, and messages to put through it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from bus.records.keys import REPLIES_GROUP, Keys
from bus.records.records import (
    SCHEMA_VERSION,
    InboundMessage,
    OutboxRecord,
    Reply,
    decode_reply_record,
    pack_job,
    pack_placed_job,
)
from bus.records.sealing import BusKey
from bus.steps.jobs import JobStore
from bus.steps.letters import DeadLetters
from bus.steps.outbox import Commit, Outbox
from bus.steps.policies import Policies
from bus.steps.recovery import Recovery
from bus.steps.store import Arrival, InboundStore, Intake, SessionWrite, Source
from bus.transport.client import RedisClient, open_redis
from bus.transport.readers import RedisStreamReader, StreamEntry

AGENT = "01906abc-0000-7000-8000-000000000001"
PEER = ("person", "device")
BUS_KEY = BusKey(bytes(range(32)))
CONVERSATION = "conversation"


@dataclass
class Bus:
    """A supervisor's half, and workers on demand."""

    url: str
    client: RedisClient
    store: InboundStore
    outbox: Outbox
    recovery: Recovery
    replies: RedisStreamReader
    session_version: int = 0

    @property
    def dead(self) -> DeadLetters:
        return DeadLetters(self.client, self.keys)

    @property
    def keys(self) -> Keys:
        return self.store.keys

    async def accept(
        self,
        seq: int,
        *,
        source: Source = Source.PUSH,
        conversation: str = CONVERSATION,
        signed_id: bytes | None = None,
    ) -> Intake:
        """A message with the next version of the peer's session."""
        arrival = arrival_of(seq, self.session_version, source=source, conversation=conversation, signed_id=signed_id)
        outcome = await self.store.accept(arrival, job_of(seq, conversation))
        if outcome.is_new:
            self.session_version += 1
        return outcome

    async def commit(self, entry: StreamEntry, cmid: str, *, version: int | None = None, rate: float = 0) -> Commit:
        """Commit the reply of an entry, as if it had been encrypted with the session of `version`."""
        read = self.session_version if version is None else version
        record = decode_reply_record(entry.fields["r"])
        commit = await self.outbox.commit(
            answers=(record.job_id, record.place),
            entry_id=entry.id,
            conversation_id=CONVERSATION,
            client_message_id=cmid,
            record=OutboxRecord(SCHEMA_VERSION, cmid, CONVERSATION, "text", f"bytes of {cmid}", None, "h2a", "text", 1),
            sessions=[SessionWrite(*PEER, read, b"sealed")],
            epoch=0,
            rate_per_second=rate,
        )
        if commit.outcome.value == b"committed":
            self.session_version = read + 1
        return commit


@asynccontextmanager
async def open_bus(url: str, supervisor: str = "supervisor-1") -> AsyncIterator[Bus]:
    async with open_redis(url) as client:
        store = InboundStore(client, AGENT, supervisor)
        replies = RedisStreamReader(client, stream=store.keys.replies, group=REPLIES_GROUP, consumer=supervisor)
        await replies.make_group()
        replies.start()
        try:
            yield Bus(
                url, client, store, Outbox(client, AGENT, supervisor), Recovery(client, store.keys, supervisor), replies
            )
        finally:
            await replies.close()


@asynccontextmanager
async def open_worker(url: str, name: str = "worker-1", policies: Policies | None = None) -> AsyncIterator[JobStore]:
    worker = JobStore(url, AGENT, BUS_KEY, name, policies=policies)
    await worker.open()
    try:
        yield worker
    finally:
        await worker.close()


def arrival_of(
    seq: int,
    session_version: int,
    *,
    source: Source = Source.PUSH,
    conversation: str = CONVERSATION,
    signed_id: bytes | None = None,
) -> Arrival:
    return Arrival(
        conversation_id=conversation,
        source=source,
        seq=seq,
        signed_id=signed_id or signed_id_of(seq, conversation),
        message_ms=seq,
        session=SessionWrite(*PEER, session_version, b"sealed"),
        session_version=session_version,
        peer=PEER,
        person=PEER[0],
        message_id=f"{conversation}-{seq}",
        received_ms=1,
        sender_id=PEER[0],
    )


def signed_id_of(seq: int, conversation: str = CONVERSATION) -> bytes:
    return (conversation.encode()[:4] + seq.to_bytes(8, "big"))[-8:]


COMMAND_SAID: dict[str, object] = {"type": "text", "text": "/command"}
CARD_ANSWERED: dict[str, object] = {
    "type": "artifact",
    "artifact": {"subtype": "response", "ref_artifact": "card", "payload": {}},
}


def message_of(
    seq: int,
    conversation: str = CONVERSATION,
    *,
    sender: str = PEER[0],
    characters: int = 0,
    payload: dict[str, object] | None = None,
) -> InboundMessage:
    return InboundMessage(
        message_id=f"{conversation}-{seq}",
        conversation_id=conversation,
        conversation_type="h2a",
        sender_id=sender,
        sender_type="human",
        payload=payload or {"type": "text", "text": f"message {seq}".ljust(characters)},
    )


def job_of(
    seq: int,
    conversation: str = CONVERSATION,
    *,
    sender: str = PEER[0],
    characters: int = 0,
    payload: dict[str, object] | None = None,
) -> bytes:
    message = message_of(seq, conversation, sender=sender, characters=characters, payload=payload)
    return pack_job(message, seq=seq, accepted_ms=1, message_ms=seq, key=BUS_KEY, agent_id=AGENT)


def placed_job(name: str, conversation: str = CONVERSATION, *, characters: int = 0) -> bytes:
    """A reminder's job."""
    content = InboundMessage(
        message_id=f"timer:{name}:1",
        conversation_id=conversation,
        conversation_type="h2a",
        sender_id=PEER[0],
        sender_type="human",
        payload={"type": "reminder", "text": name.ljust(characters)},
    )
    return pack_placed_job("reminder", content, placed_ms=1, key=BUS_KEY, agent_id=AGENT)


def reply(text: str) -> Reply:
    return Reply(kind="message", content_type="text", payload={"type": "text", "text": text})


def text_of(packed: bytes) -> str:
    """The place of a reply's record, which is enough to tell replies apart."""
    return str(msgspec.msgpack.decode(packed)[3])
