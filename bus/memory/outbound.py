"""Replies on their way out (DESIGN §3, `commit`, `confirm`, `drop_reply`; rules 12 to 15, 17)."""

from collections.abc import Sequence

import msgspec

from bus.memory.world import Conversation, Entry, Sent, World
from bus.records.outside import has_turn
from bus.records.records import OutboxRecord, SentNote, decode_outbox_record
from bus.steps.outbox import RESEND_SECONDS, Commit, Committed
from bus.steps.store import SessionWrite
from bus.steps.write_count import WriteCount
from bus.transport.readers import StreamEntry as Read

RESEND_MS = int(RESEND_SECONDS * 1000)


class MemoryOutbox:
    """As `bus.steps.outbox.Outbox`."""

    def __init__(self, world: World, consumer: str, write_count: WriteCount) -> None:
        self._world = world
        self._write_count = write_count
        self.consumer = consumer

    async def take(self) -> Read | None:
        """The oldest reply that nobody holds."""
        replies = [at.reply for at in self._world.conversations.values() if at.reply is not None]
        free = [entry for entry in replies if entry.holder is None]
        if not free:
            return None
        entry = min(free, key=lambda entry: int(entry.id.partition("-")[0]))
        entry.holder, entry.renewed_ms = self.consumer, self._world.now_ms
        return Read(entry.id, {"r": entry.record})

    def _holds(self, entry_id: str) -> bool:
        return any(self._held(at, entry_id) is not None for at in self._world.conversations.values())

    def _held(self, at: Conversation, entry_id: str) -> Entry | None:
        entry = at.reply
        return entry if entry is not None and entry.id == entry_id and entry.holder == self.consumer else None

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
    ) -> Commit:
        world, at = self._world, self._world.conversation(conversation_id)
        if self._write_count.is_doubted:
            return Commit(Committed.WENT_BACK)
        if at.sent is not None and at.sent.client_message_id == client_message_id:
            self._write_count.committed(world.commits)
            return Commit(Committed.ALREADY, stored=decode_outbox_record(at.sent.record))
        if at.reply is None or at.reply.id != entry_id:
            return Commit(Committed.NOT_HEAD if self._holds(entry_id) else Committed.DONE_BEFORE)
        if self._held(at, entry_id) is None:
            return Commit(Committed.FENCED)
        if world.write_count < self._write_count.highest:
            return Commit(Committed.WENT_BACK)
        if world.epoch != epoch:
            return Commit(Committed.EPOCH)
        if any(world.session((one.owner_id, one.device_id)).version != one.version for one in sessions):
            return Commit(Committed.STALE)
        if record is not None and (wait_ms := self._take_token(rate_per_second)):
            return Commit(Committed.WAIT, wait_ms=wait_ms)
        at.reply = None
        at.out_box.pop(0)
        if has_turn(answers):
            world.end_turn(answers[0])
        for one in sessions:
            session = world.session((one.owner_id, one.device_id))
            session.version, session.sealed, session.epoch = one.version + 1, one.sealed, epoch
        self._write_count.seen(world.wrote())
        world.commits += 1
        self._write_count.committed(world.commits)
        former = "" if stream_id is None or at.stream is None else at.stream.partition(" ")[0]
        if record is None:
            at.stream = f"{stream_id} {self.consumer}"
            world.start_next_reply(at)
            return Commit(Committed.COMMITTED, stream_id=former)
        if stream_id is not None:
            at.stream = None
        due_ms = world.now_ms + RESEND_MS
        at.sent = Sent(client_message_id, msgspec.msgpack.encode(record), self.consumer, due_ms, answers[1], answers[0])
        return Commit(Committed.COMMITTED, stream_id=former)

    def _take_token(self, rate_per_second: float) -> int:
        """0, or how long to wait for one (ms)."""
        world, burst = self._world, max(1.0, rate_per_second)
        if rate_per_second <= 0:
            return 0
        tokens = burst if world.tokens is None else world.tokens
        passed = world.now_ms - world.tokens_at_ms
        tokens = burst if passed < 0 else min(burst, tokens + passed * rate_per_second / 1000)
        if tokens < 1:
            return -int(-(1 - tokens) * 1000 // rate_per_second)
        world.tokens, world.tokens_at_ms = tokens - 1, world.now_ms
        return 0

    async def post(self, conversation_id: str, reply_record: bytes) -> None:
        self._world.wrote()
        self._world.say(self._world.conversation(conversation_id), reply_record)

    async def post_before(self, conversation_id: str, entry_id: str, reply_record: bytes) -> bool:
        at = self._world.conversation(conversation_id)
        if self._held(at, entry_id) is None:
            return False
        self._world.wrote()
        at.reply = None
        at.out_box.insert(0, reply_record)
        self._world.start_next_reply(at)
        return True

    async def confirm(
        self, conversation_id: str, client_message_id: str, message_id: str, seq: int, *, sent_ms: int | None = None
    ) -> SentNote | None:
        at = self._world.conversation(conversation_id)
        sent = self._drop_sent(at, client_message_id)
        if sent is None:
            return None
        self._world.acknowledged[sent.job_id, sent.place] = message_id
        if seq == at.next_seq:
            at.take_seq(seq)
        elif seq > at.next_seq:
            at.own_seqs.add(seq)
        self._world.start_next_reply(at)
        return SentNote.of(decode_outbox_record(sent.record))

    def _drop_sent(self, at: Conversation, client_message_id: str) -> Sent | None:
        sent = at.sent
        if sent is None or sent.client_message_id != client_message_id:
            return None
        self._world.wrote()
        at.sent = None
        at.own.discard(sent.place)
        return sent

    async def conversation_of(self, client_message_id: str) -> str | None:
        for name, at in self._world.conversations.items():
            if at.sent is not None and at.sent.client_message_id == client_message_id:
                return name
        return None

    async def holder_of(self, conversation_id: str) -> str | None:
        sent = self._world.conversation(conversation_id).sent
        return None if sent is None else sent.holder

    async def due(self) -> list[str]:
        now = self._world.now_ms
        return [name for name, at in self._world.conversations.items() if at.sent is not None and at.sent.due_ms <= now]

    async def all(self) -> list[str]:
        return [name for name, at in self._world.conversations.items() if at.sent is not None]

    async def resend(self, conversation_id: str, *, former_holder: str | None = None) -> OutboxRecord | None:
        sent = self._world.conversation(conversation_id).sent
        if sent is None or (sent.due_ms > self._world.now_ms and sent.holder != former_holder):
            return None
        sent.due_ms, sent.holder = self._world.now_ms + RESEND_MS, self.consumer
        self._world.wrote()
        self._write_count.committed(self._world.commits)
        return decode_outbox_record(sent.record)

    async def postpone(self, conversation_id: str, client_message_id: str, after_ms: int) -> None:
        sent = self._world.conversation(conversation_id).sent
        if sent is not None and sent.client_message_id == client_message_id:
            sent.due_ms = self._world.now_ms + after_ms
            self._world.wrote()

    async def drop_reply(
        self,
        conversation_id: str,
        reason: str,
        *,
        answers: tuple[str, str] = ("", ""),
        entry_id: str = "",
        client_message_id: str = "",
    ) -> bool:
        at = self._world.conversation(conversation_id)
        if entry_id:
            if self._held(at, entry_id) is None:
                return False
            at.reply = None
            at.own.discard(answers[1])
            self._world.bury(at.out_box.pop(0), reason)
            self._world.wrote()
            if has_turn(answers):
                self._world.end_turn(answers[0])
        else:
            sent = self._drop_sent(at, client_message_id)
            if sent is None:
                return False
            self._world.bury(sent.record, reason)
        self._world.start_next_reply(at)
        return True

    async def give_back_reply(self, entry_id: str, conversation_id: str) -> None:
        at = self._world.conversation(conversation_id)
        if self._held(at, entry_id) is not None:
            self._world.wrote()
            at.reply = self._world.new_entry(at.out_box[0])

    async def acted(self, conversation_id: str, entry_id: str, *, answers: tuple[str, str], what: str) -> bool:
        at = self._world.conversation(conversation_id)
        if self._held(at, entry_id) is None:
            return False
        at.reply = None
        at.out_box.pop(0)
        self._world.wrote()
        self._world.start_next_reply(at)
        return True

    async def open_streams(self) -> dict[str, str]:
        return {name: at.stream for name, at in self._world.conversations.items() if at.stream is not None}

    async def may_end_stream(self, conversation_id: str, run: str) -> bool:
        at = self._world.conversation(conversation_id)
        return at.sent is not None or at.reply is not None or (at.job is not None and at.job.id == run)

    async def end_stream(self, conversation_id: str, stream: str) -> bool:
        at = self._world.conversation(conversation_id)
        if at.stream != stream:
            return False
        at.stream = None
        self._world.wrote()
        return True
