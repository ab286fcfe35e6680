"""Operations on the outbox: the exact bytes of each committed send, kept until the relay has acknowledged them (DESIGN rules 12 to 14).

At most one record of a conversation is unconfirmed. Any supervisor that hears the acknowledgement confirms it; any that finds a record
due sends the same bytes again. Every operation may be repeated.
"""

import enum
from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.records.outside import has_turn
from bus.records.records import OutboxRecord, SentNote, decode_outbox_record, decode_sent_note, encode_record
from bus.steps.store import SessionWrite, text_or_none
from bus.steps.write_count import WriteCount
from bus.transport.client import Commands, members_until
from bus.transport.clock import redis_ms
from bus.transport.wire import ConnectionReplaced, Value

RESEND_SECONDS = 10.0
MOST_REMEMBERED = 10_000  # own sends without an acknowledgement: more than a relay that works ever owes us


class Committed(enum.Enum):
    """The outcomes of `commit`."""

    COMMITTED = b"committed"
    ALREADY = b"already"
    DONE_BEFORE = b"done_before"
    NOT_HEAD = b"not_head"
    FENCED = b"fenced"
    STALE = b"stale"
    EPOCH = b"epoch"
    WENT_BACK = b"went_back"
    WAIT = b"wait"


class Commit(msgspec.Struct, frozen=True):
    """The result of `commit`. `stored` comes with ALREADY, `wait_ms` with WAIT.

    `stream_id`: the stream that this commit ends or replaces, whoever began it.
    """

    outcome: Committed
    stored: OutboxRecord | None = None
    wait_ms: int = 0
    stream_id: str = ""


class Outbox:
    """The committed sends of one agent, as one supervisor (`consumer`: unique per process start)."""

    def __init__(
        self,
        client: Commands,
        agent_id: str,
        consumer: str,
        write_count: WriteCount | None = None,
        *,
        resend_seconds: float = RESEND_SECONDS,
        most_remembered: int = MOST_REMEMBERED,
    ) -> None:
        self._client = client
        self._resend_ms = int(resend_seconds * 1000)
        self._most_remembered = most_remembered
        self._keys = Keys(agent_id)
        self._write_count = write_count or WriteCount()
        self.consumer = consumer
        self._conversations: OrderedDict[str, str] = OrderedDict()

    async def commit(
        self,
        *,
        entry_id: str,
        conversation_id: str,
        client_message_id: str,
        answers: tuple[str, str],
        record: OutboxRecord | None,
        sessions: Sequence[SessionWrite],
        epoch: int,
        rate_per_second: float,
        stream_id: str | None = None,
        owner: tuple[str, int] | None = None,
        trace: str = "",
    ) -> Commit:
        """Stores the moved sessions and the encrypted bytes in one step. `record` None: a stream begins, which nobody acknowledges.

        `entry_id`: of the reply; NOT_HEAD if another one of its conversation is under way. `answers`: job id and place. `epoch`: the one
        that it was encrypted in. `stream_id`: the stream that begins or ends with it. `owner`: the row, and its version, that it was
        addressed by; STALE if the row or a session has changed since. `trace`: the span that made the reply, for the confirmation.
        """
        if self._write_count.is_doubted:
            return Commit(Committed.WENT_BACK)
        self._remember(client_message_id, conversation_id)
        keys = [
            *self._keys.board(conversation_id),
            self._keys.rate,
            self._keys.owner("" if owner is None else owner[0]),
            self._keys.continuity,
            *(self._keys.session(s.owner_id, s.device_id) for s in sessions),
            *self._turn_of(answers),
        ]
        versions: list[int | bytes] = []
        for session in sessions:
            versions += [session.version, session.sealed]
        arguments = (
            *(conversation_id, entry_id, self.consumer, " ".join(answers), client_message_id),
            b"" if record is None else msgspec.msgpack.encode(record),
            b"" if record is None else encode_record(SentNote.of(record, trace)),
            self._resend_ms,
            *(rate_per_second, max(1.0, rate_per_second)),
            *(epoch, self._write_count.highest, stream_id or ""),
            "" if owner is None else owner[1],
            *versions,
        )
        client = self._write_count.verified_connection or self._client
        try:
            return self._committed(cast("list[Value]", await client.script("commit", keys, *arguments)))
        except ConnectionReplaced:
            return Commit(Committed.WENT_BACK)  # or it is only another connection: the check that follows finds out

    def _committed(self, answer: list[Value]) -> Commit:
        outcome = Committed(answer[0])
        if outcome is Committed.COMMITTED:
            self._write_count.seen(cast(int, answer[1]))
            self._write_count.committed(cast(int, answer[3]))
            return Commit(outcome, stream_id=cast(bytes, answer[2]).decode().partition(" ")[0])
        if outcome is Committed.ALREADY:
            self._write_count.committed(cast(int, answer[2]))
            return Commit(outcome, stored=decode_outbox_record(cast(bytes, answer[1])))
        return Commit(outcome, wait_ms=cast(int, answer[1]) if outcome is Committed.WAIT else 0)

    async def acted(self, conversation_id: str, entry_id: str, *, answers: tuple[str, str], what: str) -> bool:
        """Ends a reply that was an act (a recall, a reaction) and not a message; returns False if it is no longer ours. `what`: for the ledger."""
        arguments = (conversation_id, entry_id, self.consumer, *answers, what)
        return await self._client.script("acted", self._keys.board(conversation_id), *arguments) == b"done"

    async def post(self, conversation_id: str, reply_record: bytes) -> None:
        """Queues a reply of our own, which belongs to no job."""
        await self._client.script("post", self._keys.board(conversation_id), conversation_id, reply_record)

    async def post_before(self, conversation_id: str, entry_id: str, reply_record: bytes) -> bool:
        """Queues a reply of our own before the one that was taken as `entry_id`; returns False if that is no longer ours."""
        keys = self._keys.board(conversation_id)
        answer = await self._client.script("post_before", keys, conversation_id, entry_id, self.consumer, reply_record)
        return answer == b"queued"

    async def confirm(
        self, conversation_id: str, client_message_id: str, message_id: str, seq: int, *, sent_ms: int | None = None
    ) -> SentNote | None:
        """Removes a record that the relay has stored; returns its note, None if it was removed before. `sent_ms`: when it went out, if known."""
        self._conversations.pop(client_message_id, None)
        arguments = (conversation_id, client_message_id, seq, message_id, "" if sent_ms is None else sent_ms)
        answer = await self._client.script("confirm", self._keys.board(conversation_id), *arguments)
        if answer is None:
            return None
        note, record = cast("list[bytes]", answer)
        return decode_sent_note(note) if note else SentNote.of(decode_outbox_record(record))

    def _remember(self, client_message_id: str, conversation_id: str) -> None:
        self._conversations[client_message_id] = conversation_id
        while len(self._conversations) > self._most_remembered:
            self._conversations.popitem(last=False)

    def own_conversation_of(self, client_message_id: str) -> str | None:
        """Returns the conversation of an acknowledged message if this process committed it."""
        return self._conversations.get(client_message_id)

    async def conversation_of(self, client_message_id: str) -> str | None:
        """Returns the conversation of an acknowledged message that another connection or process sent; None if it is not known."""
        own = self.own_conversation_of(client_message_id)
        if own is not None:
            return own
        return text_or_none(await self._client.command("HGET", self._keys.acks, client_message_id))

    async def holder_of(self, conversation_id: str) -> str | None:
        """Returns the supervisor that sent the outbox record last; None if there is no record."""
        return text_or_none(await self._client.command("HGET", self._keys.sent(conversation_id), "holder"))

    async def due(self) -> list[str]:
        """Returns all conversations whose outbox record is due to be sent again."""
        now = await redis_ms(self._client)
        return await members_until(self._client, self._keys.resend_times, now)

    async def all(self) -> list[str]:
        """Returns all conversations that have an outbox record."""
        return [
            item.decode()
            for item in cast("list[bytes]", await self._client.command("ZRANGE", self._keys.resend_times, 0, -1))
        ]

    async def resend(self, conversation_id: str, *, former_holder: str | None = None) -> OutboxRecord | None:
        """Takes a record to send again: a due one, or at once one of `former_holder`. Returns None if another supervisor was first."""
        keys = [
            self._keys.resend_times,
            self._keys.sent(conversation_id),
            self._keys.write_count,
            self._keys.continuity,
        ]
        arguments = (conversation_id, self.consumer, self._resend_ms, former_holder or "")
        answer = await self._client.script("resend", keys, *arguments)
        if answer is None:
            return None
        record, commits = cast("tuple[bytes, int]", answer)
        self._write_count.committed(commits)
        return decode_outbox_record(record)

    async def postpone(self, conversation_id: str, client_message_id: str, after_ms: int) -> None:
        """Sets when the record is due again, after the relay has refused it for now."""
        keys = [self._keys.resend_times, self._keys.sent(conversation_id), self._keys.write_count]
        await self._client.script("postpone", keys, conversation_id, client_message_id, after_ms)

    async def leave_to_others(self) -> None:
        """Makes all unconfirmed records of this supervisor due at once, so that another one sends the same bytes."""
        for conversation in await self.all():
            sent = self._keys.sent(conversation)
            holder, client_message_id = cast(
                "list[bytes | None]", await self._client.command("HMGET", sent, "holder", "cmid")
            )
            if holder == self.consumer.encode() and client_message_id is not None:
                await self.postpone(conversation, client_message_id.decode(), 0)

    async def drop_reply(
        self,
        conversation_id: str,
        reason: str,
        *,
        answers: tuple[str, str] = ("", ""),
        entry_id: str = "",
        client_message_id: str = "",
    ) -> bool:
        """Makes a reply a dead letter.

        It is named by its entry, job id and place, or once it is committed by its client_message_id.
        """
        arguments = (conversation_id, entry_id, self.consumer, client_message_id, reason, *answers)
        keys = [*self._keys.board(conversation_id), *self._turn_of(answers)]
        return await self._client.script("drop_reply", keys, *arguments) == b"dropped"

    def _turn_of(self, answers: tuple[str, str]) -> tuple[str, ...]:
        """Returns the key of the turn that ends with this reply, if it came from outside."""
        return (self._keys.outside_turn,) if has_turn(answers) else ()

    async def give_back_reply(self, entry_id: str, conversation_id: str) -> None:
        """Offers a reply again that was taken and not committed."""
        keys = self._keys.board(conversation_id)
        await self._client.script("reclaim_reply", keys, conversation_id, entry_id, self.consumer, 0)

    async def publish_live(self, packed: bytes) -> None:
        """Sends a message over the live channel to every supervisor; best effort."""
        await self._client.command("PUBLISH", self._keys.live_channel, packed)

    async def open_streams(self) -> dict[str, str]:
        """Returns the streams that were started and not ended: conversation → stream_id, space, the supervisor that started it."""
        flat = cast("list[bytes]", await self._client.command("HGETALL", self._keys.streams))
        return {one.decode(): other.decode() for one, other in zip(flat[::2], flat[1::2], strict=True)}

    async def may_end_stream(self, conversation_id: str, run: str) -> bool:
        """Whether a reply may still come that ends a stream of this run: it is under way, or something waits to be sent."""
        name = self._keys.conversation(conversation_id)
        entry, reply = cast("list[bytes | None]", await self._client.command("HMGET", name, "entry", "reply"))
        return reply is not None or entry == run.encode()

    async def end_stream(self, conversation_id: str, stream: str) -> bool:
        """Forgets a stream that no message will end; returns True to the one caller that is to tell the relay."""
        keys = [self._keys.streams, self._keys.write_count]
        return await self._client.script("end_stream", keys, conversation_id, stream) == 1
