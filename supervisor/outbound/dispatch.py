"""One reply's way to the relay: addressed, encrypted, committed, sent. Whatever cannot be sent is raised to who took the reply."""

import os
from collections.abc import Awaitable

import structlog

from bus.records.records import GROUP, OutboxRecord
from bus.steps.outbox import Outbox
from bus.transport.wire import RedisFailed
from crypto.streams import StreamKey, stream_start_payload
from supervisor.observe.tracing import MessageTraces
from supervisor.outbound.committing import Committing
from supervisor.outbound.outgoing import Addressed, Head, Recipient
from supervisor.outbound.recipients import Recipients
from supervisor.outbound.sealer import CannotSeal, OfferFirst, unanswered
from supervisor.outbound.sender import Sender, frames_again
from supervisor.outbound.stream_replies import StreamReplies
from supervisor.outbound.turns import Turns
from supervisor.relay.own_words import OwnWords

log = structlog.get_logger()


class SessionMessages:
    """Messages of our own that keep sessions alive; they go through the out-box as replies do."""

    def __init__(self, outbox: Outbox, words: OwnWords) -> None:
        self._outbox = outbox
        self._words = words

    async def offer_before(self, head: Head) -> None:
        """Puts an offer of new sessions into the out-box before this reply, which is taken again when the offer is acknowledged."""
        record = head.record
        offer = self._words.renewed(record.job_id, record.conversation_id, record.message_ms)
        if await self._outbox.post_before(record.conversation_id, head.entry_id, offer):
            log.info("session: offered anew, since something went back", conversation_id=record.conversation_id)

    async def ask_for_an_answer(self, head: Head, count: int) -> None:
        """Asks a device for an answer that has not given one to `count` messages (PROTOCOL §5.4), so that its chain is renewed."""
        record = head.record
        ping = self._words.ping(record.job_id, record.conversation_id, record.message_ms, count)
        try:
            await self._outbox.post(record.conversation_id, ping)
        except RedisFailed as error:
            log.warning("session: not pinged", reason=str(error))  # the next message asks again


class Dispatch:
    """Sends the replies that one supervisor has taken, each once it is committed."""

    def __init__(
        self,
        recipients: Recipients,
        committing: Committing,
        sender: Sender,
        *,
        streams: StreamReplies,
        session_messages: SessionMessages,
        turns: Turns,
    ) -> None:
        self.traces = MessageTraces()
        self._recipients = recipients
        self._committing = committing
        self._sender = sender
        self._streams = streams
        self._session_messages = session_messages
        self._turns = turns

    def send(self, head: Head) -> Awaitable[None]:
        """Addresses, commits and sends a reply, or puts an offer of new sessions before it. Every step may be repeated.

        Raises CannotSeal if it can never be sent; RestFailed and RedisFailed if it cannot be now.
        """
        return self._send_start(head) if head.begins_stream else self._send(head)

    async def _send_start(self, head: Head) -> None:
        async with self._streams.beginning(head):
            await self._send(head, StreamKey.generate(os.urandom))

    async def _send(self, head: Head, stream_key: StreamKey | None = None) -> None:
        kind, recipient = await self._recipients.find(head.record.conversation_id)
        if recipient is None:
            raise CannotSeal("no_group_key" if kind == GROUP else "no_grant")
        addressed = _addressed(head, recipient, kind, stream_key)
        try:
            committed = await self._committing.commit(head, addressed)
        except OfferFirst:
            await self._session_messages.offer_before(head)
            return
        if committed is None:
            return
        if isinstance(committed, OutboxRecord):
            for frame in frames_again(committed):
                await self._sender.send(frame)
            return
        self.traces.committed(head.client_message_id)
        if stream_key is None:
            await self._sender.send(await self._streams.final_frame(head, committed))
        else:
            await self._streams.begin(head, addressed, stream_key, committed)
        await self._turns.settled(head)
        if count := unanswered(committed.sealed):
            await self._session_messages.ask_for_an_answer(head, count)


def _addressed(head: Head, recipient: Recipient, kind: str, stream_key: StreamKey | None) -> Addressed:
    reply = head.reply
    payload = reply.payload if stream_key is None else stream_start_payload(reply.stream_id or "", stream_key)
    return Addressed(
        recipient, head.record.conversation_id, kind, head.client_message_id, payload, reply.new_session_with
    )
