"""From a reply to the relay's acknowledgement (DESIGN §3): encrypt, commit, send, confirm; one reply of a conversation at a time.

A reply's way is taking → outbound → dispatch → committing → sender; what comes after is delivery. Ciphertext leaves only after its commit,
and a resend sends the same bytes. Nobody waits on a socket: whoever hears the acknowledgement confirms, whoever finds the record
unconfirmed sends it again.

This file makes one attempt: it opens the reply and has it sent. One that can never be sent is a dead letter, so that nothing blocks a
conversation for ever (DESIGN rule 13); one that cannot be sent now waits, and holds its lease meanwhile.
"""

import structlog

from bus.records.records import ACTS, BadRecord, ReplyRecord, decode_reply_record, open_reply
from bus.records.reply_ids import reply_id, reply_message_id
from bus.records.sealing import StoreKeys
from bus.steps.outbox import Outbox
from bus.telemetry.traces import current_span
from bus.transport.readers import StreamEntry
from bus.transport.wire import RedisFailed
from supervisor.observe.metrics import Metrics
from supervisor.observe.tracing import MessageTraces
from supervisor.outbound.acts import ActRefused, Acts, Unheard
from supervisor.outbound.dispatch import Dispatch
from supervisor.outbound.outgoing import Head
from supervisor.outbound.sealer import CannotSeal
from supervisor.outbound.taking import Taking
from supervisor.relay.connection import Connection
from supervisor.relay.rest import RestFailed, pause_after
from supervisor.settings.pauses import PAUSES, Pauses

log = structlog.get_logger()


class Outbound:
    """Sends the replies that one supervisor takes."""

    def __init__(
        self,
        taking: Taking,
        dispatch: Dispatch,
        acts: Acts,
        outbox: Outbox,
        connection: Connection,
        *,
        agent_id: str,
        keys: StoreKeys,
        metrics: Metrics,
        pauses: Pauses = PAUSES,
    ) -> None:
        self.traces = MessageTraces()
        self._taking = taking
        self._agent_id = agent_id
        self._keys = keys
        self._outbox = outbox
        self._connection = connection
        self._dispatch = dispatch
        self._acts = acts
        self._metrics = metrics
        self._pauses = pauses

    async def run(self) -> None:
        """Takes replies and sends them while connected, until cancelled, or until `taking` was told to stop and what was taken is done."""
        await self._taking.run(self._attempt)

    async def _attempt(self, entry: StreamEntry) -> float | None:
        """Tries to send a reply. None when nothing is left to do for it, else the seconds to wait at least: every step may be repeated."""
        try:
            record = decode_reply_record(entry.record)
            if not self._connection.is_trusted:
                await self._outbox.give_back_reply(entry.id, record.conversation_id)
                return None
            head = self._opened(entry, record)
            try:
                if head.reply.kind in ACTS:
                    await self._acts.perform(head)
                else:
                    await self._dispatch.send(head)
            except ActRefused as error:
                await self._drop(head, error.reason)
            except CannotSeal as error:
                await self._drop(head, error.reason)
            except RestFailed as error:
                if not error.is_refusal:
                    raise
                await self._drop(head, "no_usable_device")
        except BadRecord as error:
            log.error("reply: not readable", entry=entry.id, reason=str(error))
            await self._drop_unreadable(entry)
        except Unheard:
            log.warning("reply: an act waits for the relay", entry=entry.id)
            return self._pauses.reply_relay_retry
        except RedisFailed as error:
            log.warning("reply: waits for Redis", entry=entry.id, reason=str(error))
            return 0.0
        except RestFailed as error:
            log.warning("reply: waits for the relay", entry=entry.id, reason=str(error))
            return pause_after(error, self._pauses.reply_relay_retry)
        return None

    def _opened(self, entry: StreamEntry, record: ReplyRecord) -> Head:
        """Opens a reply; what this task does from now on is traced under it. Raises BadRecord."""
        reply = open_reply(record, key=self._keys.bus, agent_id=self._agent_id)
        identifier = reply_id(self._keys.identifier, record.job_id, record.place)
        head = Head(entry.id, record, reply, reply_message_id(identifier, record.message_ms))
        current_span.set(self.traces.reply_read(head.trace, head.client_message_id, record.conversation_id))
        return head

    async def _drop(self, head: Head, reason: str) -> None:
        record = head.record
        if await self._outbox.drop_reply(record.conversation_id, reason, answers=head.answers, entry_id=head.entry_id):
            self._metrics.dead_letters.labels("reply").inc()
            self.traces.refused(head.client_message_id, reason)
            log.error("reply: dead letter", job_id=record.job_id, place=record.place, reason=reason)

    async def _drop_unreadable(self, entry: StreamEntry) -> None:
        try:
            record = decode_reply_record(entry.record)
            conversation, answers = record.conversation_id, (record.job_id, record.place)
            if await self._outbox.drop_reply(conversation, "unreadable_record", answers=answers, entry_id=entry.id):
                self._metrics.dead_letters.labels("reply").inc()
        except (BadRecord, RedisFailed) as error:
            log.error("reply: stays pending", entry=entry.id, reason=str(error))
