"""From a reply to the relay's acknowledgement (DESIGN §3): encrypt, commit, send, confirm; one reply of a conversation at a time.

Ciphertext leaves only after its commit, and a resend sends the same bytes. The sender waits on the record in Redis, not on its
socket: whoever hears the acknowledgement confirms, whoever finds the record unconfirmed sends it again.
"""

import os
from collections.abc import Awaitable, Mapping
from functools import partial

import msgspec
import structlog
import trio

from bus.records.records import SCHEMA_VERSION, BadRecord, OutboxRecord, ReplyRecord, decode_reply_record, open_reply
from bus.records.sealing import StoreKeys
from bus.steps.outbox import Commit, Committed, Outbox
from bus.steps.store import Store
from bus.telemetry.traces import current_span
from bus.transport.acquire import acquire
from bus.transport.backoff import Backoff
from bus.transport.leases import LeaseKeeper
from bus.transport.readers import RedisStreamReader, StreamEntry
from bus.transport.wire import RedisFailed
from crypto.envelope import V1_1, V1_2
from crypto.prekeys import Bundle
from crypto.streams import StreamKey, stream_start_payload
from supervisor.observe.metrics import Metrics
from supervisor.observe.tracing import MessageTraces
from supervisor.outbound.outgoing import Head
from supervisor.outbound.rate_line import RateLine
from supervisor.outbound.recipients import Recipient, Recipients, has_same_keys, row_of, shows_streams
from supervisor.outbound.sealer import Addressed, CannotSeal, EpochRaised, OfferFirst, SealedFor, Sealer
from supervisor.outbound.sent_times import SentTimes
from supervisor.outbound.streams import LiveStream, Streams
from supervisor.peers.addressing import GROUP
from supervisor.peers.sessions import Peer
from supervisor.recovery.time_guard import TimeGuard
from supervisor.relay.connection import Connection, NotConnected
from supervisor.relay.frames import Frame, MessageSend, StreamAbort, StreamDone, StreamStart
from supervisor.relay.own_words import OwnWords
from supervisor.relay.payloads import payload_type_of, reply_id, reply_message_id, resend_frame
from supervisor.relay.rest import RestFailed

SLOTS = 64
STREAM_START = ":start:"
RETRY_SECONDS = 1.0

log = structlog.get_logger()


class Outbound:
    """Sends the replies that one supervisor takes."""

    def __init__(
        self,
        *,
        store: Store,
        outbox: Outbox,
        reader: RedisStreamReader,
        leases: LeaseKeeper,
        keys: StoreKeys,
        recipients: Recipients,
        sealer: Sealer,
        streams: Streams,
        connection: Connection,
        metrics: Metrics,
        guard: TimeGuard,
        sent_times: SentTimes,
        send_rate_per_second: float,
    ) -> None:
        self._recipients = recipients
        self._outbox = outbox
        self._reader = reader
        self._leases = leases
        self._keys = keys
        self._sealer = sealer
        self._streams = streams
        self._connection = connection
        self._metrics = metrics
        self._guard = guard
        self._sent_times = sent_times
        self._rate = send_rate_per_second
        self._slots = trio.Semaphore(SLOTS, max_value=SLOTS)
        self._under_way: dict[str, trio.CancelScope] = {}
        self._commit_begun: set[str] = set()
        self._taking = trio.CancelScope()
        self._rate_line = RateLine(metrics)
        self._agent_id = store.keys.agent_id
        self.traces = MessageTraces()
        self._words = OwnWords(keys.bus, self._agent_id)

    async def run(self) -> None:
        """Take replies while connected, until cancelled, or told to stop and done with what was taken."""
        self._leases.on_lost = self._lease_lost
        async with trio.open_nursery() as nursery:
            with self._taking:
                await self._take(nursery)

    async def stop_taking(self) -> None:
        """Others take what comes from now on; what was read and not begun is theirs too."""
        self._taking.cancel()
        await self.give_back(await self._reader.close())

    @property
    def has_stopped_taking(self) -> bool:
        """Its reader has ended, as it should."""
        return self._taking.cancel_called

    @property
    def under_way(self) -> int:
        """Replies that were taken and are not committed, given up or given back."""
        return len(self._under_way)

    async def _take(self, nursery: trio.Nursery) -> None:
        backoff = Backoff(last=RETRY_SECONDS)
        while True:
            await self._connection.wait_connected()
            await acquire(self._slots)
            free = self._slots.value + 1
            self._slots.release()
            try:
                entries = await self._reader.read(free)
            except RedisFailed:
                await backoff.wait()
                continue
            backoff.reset()
            for entry in entries:
                if entry.id not in self._under_way:
                    self._under_way[entry.id] = trio.CancelScope()
                    nursery.start_soon(self._send_entry, entry)

    def _lease_lost(self, entry_id: str) -> None:
        """Another has the reply: whatever we did would change nothing.

        Once we have begun to commit it, the commit's answer says whose it is: it may be ourselves who have just settled the entry.
        And a send that is cancelled half-way costs the connection.
        """
        if entry_id in self._under_way and entry_id not in self._commit_begun:
            self._under_way[entry_id].cancel()

    async def give_back(self, entries: list[StreamEntry]) -> None:
        """What was read and nobody has begun to send is offered again."""
        for entry in entries:
            try:
                conversation = decode_reply_record(entry.fields["r"]).conversation_id
                await self._outbox.give_back_reply(entry.id, conversation)
            except (BadRecord, RedisFailed) as error:
                log.warning("reply: not given back", entry=entry.id, reason=str(error))  # its lease runs out

    async def _send_entry(self, entry: StreamEntry) -> None:
        """One entry of `replies`, until it is sent, given up or given back. While it waits it holds its lease and no slot."""
        self._leases.hold(entry.id)
        try:
            with self._under_way[entry.id]:
                backoff = Backoff(last=RETRY_SECONDS)
                while (at_least := await self._attempt(entry)) is not None:
                    await trio.sleep(at_least)
                    await backoff.wait()
        finally:
            self._leases.release(entry.id)
            self._commit_begun.discard(entry.id)
            del self._under_way[entry.id]

    async def _attempt(self, entry: StreamEntry) -> float | None:
        """Send it; None when that is done with, else how many seconds to wait at least: every step may be repeated."""
        await acquire(self._slots)
        try:
            record = decode_reply_record(entry.fields["r"])
            await self._send_record(entry, record)
        except BadRecord as error:
            log.error("reply: not readable", entry=entry.id, reason=str(error))
            await self._drop_unreadable(entry)
        except RedisFailed as error:
            log.warning("reply: waits for Redis", entry=entry.id, reason=str(error))
            return 0.0
        except RestFailed as error:
            log.warning("reply: waits for the relay", entry=entry.id, reason=str(error))
            return max(RETRY_SECONDS, error.retry_after_seconds)
        finally:
            self._slots.release()
        return None

    async def _send_record(self, entry: StreamEntry, record: ReplyRecord) -> None:
        if not self._connection.is_trusted:
            await self._outbox.give_back_reply(entry.id, record.conversation_id)
            return
        reply = open_reply(record, key=self._keys.bus, agent_id=self._agent_id)
        identifier = reply_id(self._keys.identifier, record.job_id, record.place)
        head = Head(entry.id, record, reply, reply_message_id(identifier, record.message_ms))
        current_span.set(self.traces.reply_read(head.trace, head.client_message_id, record.conversation_id))
        try:
            await self._encrypt_and_send(head)
        except CannotSeal as error:
            await self._drop(head, error.reason)
        except RestFailed as error:
            if not error.is_refusal:
                raise
            await self._drop(head, "no_usable_device")

    async def _encrypt_and_send(self, head: Head) -> None:
        kind, recipient = await self._recipients.find(head.record.conversation_id)
        if recipient is None:
            await self._drop(head, "no_group_key" if kind == GROUP else "no_grant")
            return
        stream_key = None
        if head.reply.kind == "stream_start":
            stream_key = StreamKey.generate(os.urandom)
            self._streams.expect(head.reply.stream_id or "")
        addressed = self._addressed(head, recipient, kind, stream_key)
        try:
            committed = await self._commit(head, addressed)
        except OfferFirst:
            await self._offer_before(head)
            return
        if committed is None:
            return
        sealed, shown = committed
        if stream_key is None:
            frame = await self._final_frame(head, addressed.client_message_id, sealed.encrypted_payload, shown)
            await self._send(frame)
        else:
            if shown and not self._streams.is_of_present_connection(shown):  # who began it may be gone
                await self._send(StreamAbort(shown, head.record.conversation_id))
            await self._begin_stream(head, addressed, stream_key, sealed.encrypted_payload)
        await self._ask_for_an_answer(head, sealed)

    async def _offer_before(self, head: Head) -> None:
        """Put an offer into the out-box before this reply, which is taken again when that is acknowledged."""
        record = head.record
        offer = self._words.renewed(record.job_id, record.conversation_id, record.message_ms)
        if await self._outbox.post_before(record.conversation_id, head.entry_id, offer):
            log.info("session: offered anew, since something went back", conversation_id=record.conversation_id)

    def _addressed(self, head: Head, recipient: Recipient, kind: str, stream_key: StreamKey | None) -> Addressed:
        reply = head.reply
        payload = reply.payload
        if stream_key is not None:
            payload = stream_start_payload(reply.stream_id or "", stream_key)
        return Addressed(
            recipient,
            head.record.conversation_id,
            kind,
            head.client_message_id,
            payload,
            reply.new_session_with,
        )

    async def _addressed_anew(self, addressed: Addressed) -> Addressed:
        """To whom its recipient is now. Raises CannotSeal (no_grant)."""
        recipient = await self._recipients.read_again(addressed.recipient)
        if recipient is None:
            raise CannotSeal("no_grant")
        return msgspec.structs.replace(addressed, recipient=recipient)

    async def _commit(self, head: Head, addressed: Addressed) -> tuple[SealedFor, str] | None:
        """Encrypt and commit, again when what it is made with has changed meanwhile; with it the stream that it ends
        or takes the place of, or ''.

        None when there is nothing to send.
        """
        place = self._rate_line.place()
        fetches = is_again = False
        while True:
            if is_again:  # what it was made with is no longer so: never sent
                addressed = await self._addressed_anew(addressed)
            is_again = True
            peers = await self._sealer.peers(addressed.recipient)
            epoch = self._sealer.epoch
            bundles = await (self._sealer.bundles(addressed) if fetches else self._sealer.missing(addressed, peers))
            if bundles is not None:
                # Asking for them has noted the owner's devices, and they were checked with the keys pinned then.
                asked, addressed = addressed, await self._addressed_anew(addressed)
                if not has_same_keys(asked.recipient, addressed.recipient):
                    continue
                peers = self._sealer.now_listed(addressed.recipient, peers)
            attempt = partial(self._seal_and_commit, head, addressed, peers, bundles or {}, epoch=epoch)
            try:
                sealed, commit = await self._rate_line.commit(place, attempt)
            except CannotSeal as error:
                if error.reason != "no_usable_device" or bundles or fetches:
                    raise
                fetches = True  # a session that was there is gone: Redis went back, or another has ended it
                continue
            except EpochRaised:
                continue
            if commit.outcome is Committed.COMMITTED:
                self._sealer.committed(sealed)
                self.traces.committed(head.client_message_id)
                self._leases.release(head.entry_id)
                return sealed, commit.stream_id
            if commit.outcome in (Committed.WENT_BACK, Committed.EPOCH):
                await self._guard.look_again()
            if commit.outcome in (Committed.STALE, Committed.WENT_BACK, Committed.EPOCH):
                continue
            if commit.stored is not None:
                await self._send(resend_frame(commit.stored))
            return None

    async def _ask_for_an_answer(self, head: Head, sealed: SealedFor) -> None:
        """A device that has not answered for long is asked to (PROTOCOL §5.4), so that its chain is renewed."""
        unanswered = self._sealer.unanswered(sealed)
        if not unanswered:
            return
        record = head.record
        ping = self._words.ping(record.job_id, record.conversation_id, record.message_ms, unanswered)
        try:
            await self._outbox.post(record.conversation_id, ping)
        except RedisFailed as error:
            log.warning("session: not pinged", reason=str(error))  # the next message asks again

    async def _seal_and_commit(
        self, head: Head, addressed: Addressed, peers: list[Peer], bundles: Mapping[str, Bundle], *, epoch: int
    ) -> tuple[SealedFor, Commit]:
        async with self._sealer.locked(peers):
            if self._sealer.epoch != epoch:
                raise EpochRaised
            sealed = await self._sealer.seal(addressed, peers, bundles)
            return sealed, await self._try_commit(head, addressed, sealed)

    def _try_commit(self, head: Head, addressed: Addressed, sealed: SealedFor) -> Awaitable[Commit]:
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
        self._commit_begun.add(head.entry_id)
        return self._outbox.commit(
            owner=row_of(addressed.recipient),
            entry_id=head.entry_id,
            conversation_id=record.conversation_id,
            client_message_id=addressed.client_message_id,
            answers=(record.job_id, record.place),
            record=None if reply.kind == "stream_start" else outbox,
            sessions=sealed.writes,
            epoch=sealed.epoch,
            rate_per_second=self._rate,
            stream_id=reply.stream_id,
            trace=head.trace,
        )

    async def _begin_stream(self, head: Head, addressed: Addressed, key: StreamKey, encrypted_payload: str) -> None:
        conversation, stream_id = head.record.conversation_id, head.reply.stream_id or ""
        stream = LiveStream(
            stream_id,
            conversation,
            answer=(head.record.job_id, head.record.place.rpartition(STREAM_START)[0]),
            to=addressed.recipient_id,
            v=V1_1 if addressed.conversation_type == GROUP else V1_2,
            key=key,
            connection_number=self._connection.number,
        )
        start = StreamStart(stream_id, conversation, encrypted_payload)
        if not shows_streams(addressed.recipient) or not await self._streams.begin(stream, start):
            await self._outbox.end_stream(conversation, f"{stream_id} {self._outbox.consumer}")

    async def _final_frame(
        self, head: Head, client_message_id: str, encrypted_payload: str, shown_stream_id: str
    ) -> Frame:
        """As the end of its stream, also when another supervisor shows that; a first run's stream is over."""
        conversation, reply = head.record.conversation_id, head.reply
        answer = (head.record.job_id, head.record.place)
        is_ours = await self._streams.end(conversation, answer, reply.stream_id)
        if shown_stream_id not in ("", reply.stream_id):
            await self._send(StreamAbort(shown_stream_id, conversation))
        if reply.stream_id is not None and (is_ours or shown_stream_id == reply.stream_id):
            return StreamDone(reply.stream_id, conversation, client_message_id, reply.content_type, encrypted_payload)
        return MessageSend(client_message_id, conversation, reply.content_type, encrypted_payload)

    async def _send(self, frame: Frame) -> bool:
        if isinstance(frame, MessageSend | StreamDone):
            self._sent_times.note(frame.client_message_id)
        try:
            await self._connection.send(frame)
        except NotConnected:
            return False  # its record stands in the outbox: the next connection sends it
        return True

    async def _drop(self, head: Head, reason: str) -> None:
        record, answers = head.record, (head.record.job_id, head.record.place)
        if await self._outbox.drop_reply(record.conversation_id, reason, answers=answers, entry_id=head.entry_id):
            self._metrics.dead_letters.labels("reply").inc()
            self.traces.refused(head.client_message_id, reason)
            log.error("reply: dead letter", job_id=record.job_id, place=record.place, reason=reason)

    async def _drop_unreadable(self, entry: StreamEntry) -> None:
        try:
            record = decode_reply_record(entry.fields["r"])
            conversation, answers = record.conversation_id, (record.job_id, record.place)
            if await self._outbox.drop_reply(conversation, "unreadable_record", answers=answers, entry_id=entry.id):
                self._metrics.dead_letters.labels("reply").inc()
        except (BadRecord, RedisFailed) as error:
            log.error("reply: stays pending", entry=entry.id, reason=str(error))
