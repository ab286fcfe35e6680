"""Confirms, postpones, drops or resends a committed record until the relay has acknowledged it (DESIGN rules 12 and 13).

Acknowledgements may arrive at any connection of the agent. A record without one is sent again after 10 s, or at once on a new
connection when its sender was this process before, or a process that is gone: the same bytes.
"""

import structlog
import trio

from bus.records.records import BadRecord
from bus.steps.outbox import Outbox
from bus.steps.store import now_ms
from bus.transport.acquire import acquire
from bus.transport.spare_tasks import SpareTasks
from bus.transport.wire import MENDABLE, RedisFailed
from host.instance import Instance
from supervisor.observe.metrics import Metrics
from supervisor.observe.tracing import MessageTraces
from supervisor.outbound.decisions import essence_of_answer, is_temporary, refusal_code
from supervisor.outbound.sender import Sender
from supervisor.outbound.stream_ends import StreamEnds
from supervisor.outbound.turns import Turns
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.relay.connection import Connection, NotConnected
from supervisor.relay.frames import MessageAck, MessageError
from supervisor.relay.pending_acks import PendingAcks
from supervisor.relay.rest import bounded_seconds
from supervisor.settings.pauses import PAUSES, Pauses

REFUSED_AGAIN_SECONDS = 5.0
"""Until a message that was refused for now is sent again, unless the relay names a time."""

QUEUE_LENGTH = 1000
"""Answers of the relay that wait at most, of half a KiB each. What is passed over comes again with the resend."""

REDIS_RETRY_SECONDS = 0.2
"""Between two tries to note an answer while Redis is away: its conversation stands still until then."""

MOST_AT_ONCE = 64
"""Answers being noted at once; those of one conversation come one at a time anyhow, since it has one message unconfirmed."""

log = structlog.get_logger()


class Delivery:
    """Notes acknowledgements and refusals for one supervisor, and sends again what has neither."""

    def __init__(
        self,
        outbox: Outbox,
        connection: Connection,
        instance: Instance,
        *,
        pending: PendingAcks,
        sender: Sender,
        stream_ends: StreamEnds,
        turns: Turns,
        metrics: Metrics,
        pauses: Pauses = PAUSES,
    ) -> None:
        self._outbox = outbox
        self._connection = connection
        self._instance = instance
        self._pending = pending
        self._sender = sender
        self._stream_ends = stream_ends
        self._turns = turns
        self._metrics = metrics
        self._pauses = pauses
        self.traces = MessageTraces()
        self._early: list[MessageAck | MessageError] = []
        self._settling: SpareTasks[MessageAck | MessageError] | None = None
        self.waiting = 0
        """Answers that are heard and not noted yet."""
        self._slots = trio.Semaphore(MOST_AT_ONCE)

    def heard(self, answer: MessageAck | MessageError) -> None:
        """Called with each answer of the relay to a message. One too many is passed over: the resend brings it again."""
        if self.waiting >= QUEUE_LENGTH:
            self._metrics.frames_dropped.labels("ack_overflow").inc()
            return
        self.waiting += 1
        answer = essence_of_answer(answer)
        if self._settling is None:
            self._early.append(answer)
        else:
            self._settling.start_soon(answer)
        conversation = self._outbox.own_conversation_of(answer.client_message_id)
        if conversation is not None:
            self._pending.heard(conversation)

    async def run(self) -> None:
        """Notes answers and sends again what has none, until cancelled."""
        async with trio.open_nursery() as nursery:
            early, self._early = self._early, []
            self._settling = SpareTasks(nursery, self._settle)
            for answer in early:
                self._settling.start_soon(answer)
            nursery.start_soon(self._leave_in_doubt)
            try:
                await self._resend()
            finally:
                self._settling = None

    async def _settle(self, answer: MessageAck | MessageError) -> None:
        await acquire(self._slots)
        conversation = self._outbox.own_conversation_of(answer.client_message_id)
        sent_ms = self._sender.take_time(answer.client_message_id)
        try:
            while True:
                if await self._take_note(answer, sent_ms):
                    return
                await trio.sleep(REDIS_RETRY_SECONDS)
        finally:
            self._slots.release()
            self.waiting -= 1
            if conversation is not None:
                self._pending.noted(conversation)

    async def _take_note(self, answer: MessageAck | MessageError, sent_ms: int | None) -> bool:
        """Notes an answer in Redis. False while Redis is away: the answer is kept, or its conversation would wait for the resend."""
        try:
            await (self._confirm(answer, sent_ms) if isinstance(answer, MessageAck) else self._refused(answer))
        except MENDABLE as error:
            log.warning("ack: waits for Redis", reason=str(error))
            return False
        except RedisFailed as error:
            log.error("ack: not noted", reason=str(error))  # the resend is acknowledged again
        except BadRecord as error:
            log.error("outbox: confirmed, and not readable", reason=str(error))
        return True

    async def _confirm(self, ack: MessageAck, sent_ms: int | None) -> None:
        conversation = await self._outbox.conversation_of(ack.client_message_id)
        if conversation is None:
            return
        sent = await self._outbox.confirm(
            conversation, ack.client_message_id, ack.message_id, ack.conversation_seq, sent_ms=sent_ms
        )
        if sent is not None:
            duration_ms = max(0, now_ms() - sent.emitted_ms)
            self._metrics.outbound(sent.conversation_type, sent.payload_type, duration_ms)
            self.traces.acknowledged(ack.client_message_id, conversation, sent, sent_ms)

    async def _refused(self, refusal: MessageError) -> None:
        conversation = await self._outbox.conversation_of(refusal.client_message_id)
        if conversation is None:
            return
        code = refusal_code(refusal.code)
        if is_temporary(code):
            after = bounded_seconds(refusal.retry_after) or REFUSED_AGAIN_SECONDS
            await self._outbox.postpone(conversation, refusal.client_message_id, int(after * 1000))
            log.warning("message: refused for now", conversation_id=conversation, code=code, again_in_seconds=after)
        elif await self._outbox.drop_reply(
            conversation, f"refused_{code}", client_message_id=refusal.client_message_id
        ):
            self._metrics.dead_letters.labels("reply").inc()
            self.traces.refused(refusal.client_message_id, f"refused_{code}")
            log.error("message: refused", conversation_id=conversation, code=code)

    async def _resend(self) -> None:
        number, trouble = 0, said_trouble("outbox")
        while True:
            connected = await self._connection.wait_connected()
            try:
                await self._stream_ends.look()
                if connected != number:
                    await self.resend_orphans()
                    number = connected
                for conversation in await self._outbox.due():
                    await self._resend_one(conversation, None)
                await self._turns.look()
                trouble.over()
            except RedisFailed as error:
                trouble.met(error)
            except NotConnected:
                pass  # the next connection sends it
            await trio.sleep(self._pauses.due_look)

    async def _leave_in_doubt(self) -> None:
        """Offers, whenever the connection is doubted, what went out over it to other supervisors. The relay knows a repeat by its id."""
        while True:
            await self._connection.wait_doubted()
            try:
                await self._outbox.leave_to_others()
            except RedisFailed as error:
                log.warning("outbox: waits for Redis", reason=str(error))
                await trio.sleep(self._pauses.due_look)
                continue
            await self._connection.wait_connected()

    async def resend_orphans(self) -> None:
        """Sends again at once what this process sent over an earlier connection, or a process that is gone."""
        for conversation in await self._outbox.all():
            holder = await self._outbox.holder_of(conversation)
            if holder is not None and (holder == self._outbox.consumer or self._instance.knows_dead(holder)):
                await self._resend_one(conversation, holder)

    async def _resend_one(self, conversation_id: str, former_holder: str | None) -> None:
        try:
            record = await self._outbox.resend(conversation_id, former_holder=former_holder)
        except BadRecord as error:  # its conversation waits, visibly, and no other
            log.error("outbox: not readable", conversation_id=conversation_id, reason=str(error))
            return
        if record is not None:
            self._metrics.resent.inc()
            await self._sender.resend(record)
