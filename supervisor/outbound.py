"""From a reply to the relay's acknowledgement (DESIGN §3): encrypt, commit, send, confirm; one reply of a conversation at a time.

Ciphertext leaves only after its commit, and a resend sends the same bytes. The sender waits on the record in Redis, not on its
socket: whoever hears the acknowledgement confirms, whoever finds the record unconfirmed sends it again.
"""

import os

import msgspec
import structlog
import trio

from bus.client import RedisUnavailable
from bus.leases import LeaseKeeper
from bus.readers import Entry, StreamReader
from bus.records import SCHEMA_VERSION, BadRecord, OutboxRecord, Reply, ReplyRecord, decode_reply_record, open_reply
from bus.sealing import StoreKeys
from bus.store import Commit, Committed, Store
from crypto.errors import TooLarge
from crypto.streams import StreamKey, stream_start_payload
from supervisor.connection import Connection, NotConnected, State
from supervisor.frames import Frame, MessageSend, StreamDone, StreamStart
from supervisor.metrics import Metrics
from supervisor.owners import Owner, Owners
from supervisor.payloads import payload_type_of, reply_id, reply_message_id
from supervisor.rest import RestFailed
from supervisor.sealer import Addressed, NoUsableDevice, SealedFor, Sealer
from supervisor.streams import LiveStream, Streams

SLOTS = 64
STREAM_START = ":start"
RETRY_SECONDS = 1.0

log = structlog.get_logger()


class _Head(msgspec.Struct, frozen=True):
    """A reply that was taken: the head of its conversation's out-box."""

    entry_id: str
    packed: bytes
    record: ReplyRecord
    reply: Reply

    def __repr__(self) -> str:
        return f"_Head(entry_id={self.entry_id!r}, job_id={self.record.job_id!r}, place={self.record.place!r})"


class Outbound:
    """Sends the replies that one supervisor takes."""

    def __init__(
        self,
        *,
        store: Store,
        reader: StreamReader,
        leases: LeaseKeeper,
        keys: StoreKeys,
        owners: Owners,
        sealer: Sealer,
        streams: Streams,
        connection: Connection,
        metrics: Metrics,
        send_rate_per_second: float,
    ) -> None:
        self._store = store
        self._reader = reader
        self._leases = leases
        self._keys = keys
        self._owners = owners
        self._sealer = sealer
        self._streams = streams
        self._connection = connection
        self._metrics = metrics
        self._rate = send_rate_per_second
        self._slots = trio.Semaphore(SLOTS, max_value=SLOTS)
        self._turn = trio.Lock()
        self._agent_id = store.keys.agent_id

    async def run(self) -> None:
        """Take replies while connected, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._connection.wait_connected()
                await self._slots.acquire()
                self._slots.release()
                try:
                    entries = await self._reader.read(max(1, self._slots.value))
                except RedisUnavailable:
                    await trio.sleep(RETRY_SECONDS)
                    continue
                for entry in entries:
                    await self._slots.acquire()
                    nursery.start_soon(self._send_entry, entry)

    async def give_back(self, entries: list[Entry]) -> None:
        """What was read and nobody has begun to send is offered again."""
        for entry in entries:
            try:
                conversation = decode_reply_record(entry.fields["r"]).conversation_id
                await self._store.give_back_reply(entry.id, conversation)
            except (BadRecord, RedisUnavailable) as error:
                log.warning("reply: not given back", entry=entry.id, reason=str(error))  # its lease runs out

    async def _send_entry(self, entry: Entry) -> None:
        """One entry of `replies`; whatever happens, its slot is given back and nothing is lost."""
        self._leases.hold(entry.id)
        try:
            record = decode_reply_record(entry.fields["r"])
            await self._send_record(entry, record)
        except BadRecord as error:
            log.error("reply: not readable", entry=entry.id, reason=str(error))
            await self._drop_unreadable(entry)
        except RedisUnavailable as error:
            log.warning("reply: waits for Redis", entry=entry.id, reason=str(error))  # its lease runs out
        finally:
            self._leases.release(entry.id)
            self._slots.release()

    async def _send_record(self, entry: Entry, record: ReplyRecord) -> None:
        if self._connection.state is not State.CONNECTED:
            await self._store.give_back_reply(entry.id, record.conversation_id)
            return
        head = _Head(
            entry.id, entry.fields["r"], record, open_reply(record, key=self._keys.bus, agent_id=self._agent_id)
        )
        try:
            await self._encrypt_and_send(head)
        except NoUsableDevice:
            await self._drop(head, "no_usable_device")
        except TooLarge:
            await self._drop(head, "too_large")
        except ValueError:
            await self._drop(head, "payload_without_json_form")
        except RestFailed as error:
            log.warning("reply: waits for the relay", entry=entry.id, reason=str(error))
            await trio.sleep(max(RETRY_SECONDS, error.retry_after_seconds))
            await self._store.give_back_reply(entry.id, record.conversation_id)

    async def _encrypt_and_send(self, head: _Head) -> None:
        pins = await self._store.pins(head.record.conversation_id)
        owner = None if pins is None else await self._owners.find(pins[1])
        if pins is None or owner is None or not owner.is_active:
            await self._drop(head, "no_grant")
            return
        stream_key = StreamKey.generate(os.urandom) if head.reply.kind == "stream_start" else None
        addressed = self._addressed(head, owner, pins[0], stream_key)
        sealed = await self._commit(head, addressed)
        if sealed is None:
            return
        if stream_key is not None:
            await self._begin_stream(head, owner, stream_key, sealed.encrypted_payload)
        else:
            await self._send(await self._final_frame(head, addressed.client_message_id, sealed.encrypted_payload))

    def _addressed(self, head: _Head, owner: Owner, kind: str, stream_key: StreamKey | None) -> Addressed:
        record, reply = head.record, head.reply
        identifier = reply_id(self._keys.identifier, record.job_id, record.place)
        payload = reply.payload
        if stream_key is not None:
            payload = stream_start_payload(reply.stream_id or "", stream_key)
        return Addressed(owner, record.conversation_id, kind, reply_message_id(identifier, record.message_ms), payload)

    async def _commit(self, head: _Head, addressed: Addressed) -> SealedFor | None:
        """Encrypt and commit, again when the sessions have moved meanwhile; None when there is nothing to send."""
        sealed: SealedFor | None = None
        while True:
            peers = await self._sealer.peers(addressed.owner)
            bundles = await self._sealer.missing(addressed.owner, peers)
            async with self._sealer.locked(peers):
                if sealed is None:
                    sealed = await self._sealer.seal(addressed, peers, bundles)
                commit = await self._try_commit(head, addressed, sealed)
            if commit.outcome is Committed.COMMITTED:
                self._sealer.committed(sealed)
                return sealed
            if commit.outcome is Committed.STALE:
                sealed = None  # encrypted with a state that is no longer: never sent
            elif commit.outcome is Committed.WAIT:
                async with self._turn:  # the one that waits for the rate is the next to send
                    await trio.sleep(commit.wait_ms / 1000)
            else:
                if commit.stored is not None:
                    await self._send(resend_frame(commit.stored))
                return None

    async def _try_commit(self, head: _Head, addressed: Addressed, sealed: SealedFor) -> Commit:
        record, reply = head.record, head.reply
        outbox = OutboxRecord(
            SCHEMA_VERSION,
            addressed.client_message_id,
            record.conversation_id,
            reply.content_type,
            sealed.encrypted_payload,
            reply.stream_id,
            addressed.conversation_type,
            payload_type_of(reply.payload),
            record.emitted_ms,
        )
        return await self._store.commit(
            entry_id=head.entry_id,
            reply_record=head.packed,
            conversation_id=record.conversation_id,
            client_message_id=addressed.client_message_id,
            record=None if reply.kind == "stream_start" else outbox,
            sessions=self._sealer.writes(sealed),
            epoch=self._sealer.epoch,
            rate_per_second=self._rate,
        )

    async def _begin_stream(self, head: _Head, owner: Owner, key: StreamKey, encrypted_payload: str) -> None:
        conversation, stream_id = head.record.conversation_id, head.reply.stream_id or ""
        number = self._connection.number
        if await self._send(StreamStart(stream_id, conversation, encrypted_payload)):
            answer = (head.record.job_id, head.record.place.removesuffix(STREAM_START))
            await self._streams.begin(
                LiveStream(stream_id, conversation, answer=answer, to=owner.owner_id, key=key, connection_number=number)
            )

    async def _final_frame(self, head: _Head, client_message_id: str, encrypted_payload: str) -> Frame:
        conversation, reply = head.record.conversation_id, head.reply
        answer = (head.record.job_id, head.record.place)
        if await self._streams.end(conversation, answer, reply.stream_id) and reply.stream_id is not None:
            return StreamDone(reply.stream_id, conversation, client_message_id, reply.content_type, encrypted_payload)
        return MessageSend(client_message_id, conversation, reply.content_type, encrypted_payload)

    async def _send(self, frame: Frame) -> bool:
        try:
            await self._connection.send(frame)
        except NotConnected:
            return False  # its record stands in the outbox: the next connection sends it
        return True

    async def _drop(self, head: _Head, reason: str) -> None:
        record = head.record
        if await self._store.drop_reply(record.conversation_id, reason, entry_id=head.entry_id):
            self._metrics.dead_letters.labels("reply").inc()
            log.error("reply: dead letter", job_id=record.job_id, place=record.place, reason=reason)

    async def _drop_unreadable(self, entry: Entry) -> None:
        try:
            conversation = decode_reply_record(entry.fields["r"]).conversation_id
            if await self._store.drop_reply(conversation, "unreadable_record", entry_id=entry.id):
                self._metrics.dead_letters.labels("reply").inc()
        except (BadRecord, RedisUnavailable) as error:
            log.error("reply: stays pending", entry=entry.id, reason=str(error))


def resend_frame(record: OutboxRecord) -> Frame:
    """A committed record once more: the same bytes; its stream, if it had one, is over."""
    return MessageSend(record.client_message_id, record.conversation_id, record.content_type, record.encrypted_payload)
