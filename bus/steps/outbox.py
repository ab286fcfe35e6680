"""What leaves: a committed send, its exact bytes, until the relay has acknowledged it (DESIGN rules 12 to 14).

At most one record of a conversation is unconfirmed. Whoever hears the acknowledgement confirms; whoever finds a record due sends it
again, the same bytes. Every operation may be repeated.
"""

import enum
from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.records.records import OutboxRecord, SentNote, decode_outbox_record, decode_sent_note, encode_record
from bus.steps.store import SessionWrite, text_or_none
from bus.steps.write_count import WriteCount
from bus.transport.client import Commands, members_until
from bus.transport.clock import redis_ms
from bus.transport.wire import ConnectionReplaced, Value

RESEND_SECONDS = 10.0
MOST_REMEMBERED = 10_000  # of our own sends whose acknowledgement has not come: more than a relay would ever owe us


class Committed(enum.Enum):
    """What became of a commit."""

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
    """A commit's outcome; `stored` with ALREADY, `wait_ms` with WAIT.

    `stream_id`: of the stream that it ends or takes the place of, whoever began that.
    """

    outcome: Committed
    stored: OutboxRecord | None = None
    wait_ms: int = 0
    stream_id: str = ""


class Outbox:
    """Committed sends of one agent, as one supervisor (`consumer`: unique per process start)."""

    def __init__(self, client: Commands, agent_id: str, consumer: str, write_count: WriteCount | None = None) -> None:
        self._client = client
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
        """Sessions move and the bytes stand in the outbox (`record` None: nothing to acknowledge, a stream begins).

        `entry_id`: of the reply; NOT_HEAD when another of its conversation is under way. `answers`: job id and place. `epoch`: under
        which it was encrypted. `stream_id`: of the stream that begins or ends with it.
        `owner`: whose row, in which version, it was addressed by; STALE when that, or a session, is another now. `trace`: of the span that
        said it, told to whoever hears the acknowledgement.
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
        ]
        versions: list[int | bytes] = []
        for session in sessions:
            versions += [session.version, session.sealed]
        arguments = (
            *(conversation_id, entry_id, self.consumer, " ".join(answers), client_message_id),
            b"" if record is None else msgspec.msgpack.encode(record),
            b"" if record is None else encode_record(SentNote.of(record, trace)),
            int(RESEND_SECONDS * 1000),
            *(rate_per_second, max(1.0, rate_per_second)),
            *(epoch, self._write_count.highest, stream_id or ""),
            "" if owner is None else owner[1],
            *versions,
        )
        client = self._write_count.verified_connection or self._client
        try:
            return self._committed(cast("list[Value]", await client.script("commit", keys, *arguments)))
        except ConnectionReplaced:
            return Commit(Committed.WENT_BACK)  # perhaps: whoever looks will know

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

    async def post(self, conversation_id: str, reply_record: bytes) -> None:
        """Queue a reply of our own beside any job."""
        await self._client.script("post", self._keys.board(conversation_id), conversation_id, reply_record)

    async def post_before(self, conversation_id: str, entry_id: str, reply_record: bytes) -> bool:
        """Put a reply of our own before the one that was taken as `entry_id`; False when that is not ours any more."""
        keys = self._keys.board(conversation_id)
        answer = await self._client.script("post_before", keys, conversation_id, entry_id, self.consumer, reply_record)
        return answer == b"queued"

    async def confirm(
        self, conversation_id: str, client_message_id: str, message_id: str, seq: int, *, sent_ms: int | None = None
    ) -> SentNote | None:
        """The relay has stored it: what it was; None when that was known already. `sent_ms`: when it went out, if we know."""
        self._conversations.pop(client_message_id, None)
        arguments = (conversation_id, client_message_id, seq, message_id, "" if sent_ms is None else sent_ms)
        answer = await self._client.script("confirm", self._keys.board(conversation_id), *arguments)
        if answer is None:
            return None
        note, record = cast("list[bytes]", answer)
        return decode_sent_note(note) if note else SentNote.of(decode_outbox_record(record))

    def _remember(self, client_message_id: str, conversation_id: str) -> None:
        self._conversations[client_message_id] = conversation_id
        while len(self._conversations) > MOST_REMEMBERED:
            self._conversations.popitem(last=False)

    def own_conversation_of(self, client_message_id: str) -> str | None:
        """Whose acknowledgement this is, when it is of a message that this process committed."""
        return self._conversations.get(client_message_id)

    async def conversation_of(self, client_message_id: str) -> str | None:
        """Whose acknowledgement this is, when another connection or process sent it."""
        own = self.own_conversation_of(client_message_id)
        if own is not None:
            return own
        return text_or_none(await self._client.command("HGET", self._keys.acks, client_message_id))

    async def holder_of(self, conversation_id: str) -> str | None:
        """The supervisor that sent the outbox record last; None when there is no record."""
        return text_or_none(await self._client.command("HGET", self._keys.sent(conversation_id), "holder"))

    async def due(self) -> list[str]:
        """All conversations whose outbox record is to be sent again."""
        now = await redis_ms(self._client)
        return await members_until(self._client, self._keys.outbox, now)

    async def all(self) -> list[str]:
        """Conversations that have an outbox record."""
        return [
            item.decode()
            for item in cast("list[bytes]", await self._client.command("ZRANGE", self._keys.outbox, 0, -1))
        ]

    async def resend(self, conversation_id: str, *, former_holder: str | None = None) -> OutboxRecord | None:
        """Take a record that is due, or at once one that `former_holder` was sending; None when another was first."""
        keys = [self._keys.outbox, self._keys.sent(conversation_id), self._keys.write_count, self._keys.continuity]
        arguments = (conversation_id, self.consumer, int(RESEND_SECONDS * 1000), former_holder or "")
        answer = await self._client.script("resend", keys, *arguments)
        if answer is None:
            return None
        record, commits = cast("tuple[bytes, int]", answer)
        self._write_count.committed(commits)
        return decode_outbox_record(record)

    async def postpone(self, conversation_id: str, client_message_id: str, after_ms: int) -> None:
        """The relay has refused for now."""
        keys = [self._keys.outbox, self._keys.sent(conversation_id), self._keys.write_count]
        await self._client.script("postpone", keys, conversation_id, client_message_id, after_ms)

    async def leave_to_others(self) -> None:
        """All that this supervisor has sent and nobody has confirmed is due at once: another sends the same bytes."""
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
        """A reply (by its entry, and then with job id and place; once committed by its client_message_id) becomes a dead letter."""
        arguments = (conversation_id, entry_id, self.consumer, client_message_id, reason, *answers)
        answer = await self._client.script("drop_reply", self._keys.board(conversation_id), *arguments)
        return answer == b"dropped"

    async def give_back_reply(self, entry_id: str, conversation_id: str) -> None:
        """A reply that was taken and not committed is offered again."""
        keys = self._keys.board(conversation_id)
        await self._client.script("reclaim_reply", keys, conversation_id, entry_id, self.consumer, 0)

    async def publish_live(self, packed: bytes) -> None:
        """To every supervisor; best effort."""
        await self._client.command("PUBLISH", self._keys.live_channel, packed)

    async def open_streams(self) -> dict[str, str]:
        """Streams that were started and not ended: conversation → stream_id, space, the supervisor that sent its start."""
        flat = cast("list[bytes]", await self._client.command("HGETALL", self._keys.streams))
        return {one.decode(): other.decode() for one, other in zip(flat[::2], flat[1::2], strict=True)}

    async def end_stream(self, conversation_id: str, stream: str) -> bool:
        """It will not be ended as one; True for the one who is to tell the relay."""
        keys = [self._keys.streams, self._keys.write_count]
        return await self._client.script("end_stream", keys, conversation_id, stream) == 1
