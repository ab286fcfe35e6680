"""Replies on their way out: encrypted, committed, sent, acknowledged late, twice and to anybody, refused."""

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from bus.records.records import SCHEMA_VERSION, OutboxRecord, decode_reply_record
from bus.steps.outbox import Committed
from bus.steps.store import SessionWrite
from bus.transport.readers import StreamEntry
from tests.bus.builders import PEER
from tests.bus.history import Ack, Ratchet
from tests.bus.machine.company import CONVERSATIONS, Company, Connected, Sending, encryptions, who
from tests.bus.scenes import at_once


class Outbound(Company):
    """What supervisors do with replies."""

    @rule(at=who)
    def a_reply_is_encrypted(self, at: int) -> None:
        supervisor = self._reconnected(at)
        entry = supervisor.sending.entry if supervisor.sending else at_once(supervisor.half.take_reply())
        if entry is not None:
            self._encrypt(supervisor, entry)

    def _encrypt(self, supervisor: Connected, entry: StreamEntry) -> None:
        said = decode_reply_record(entry.fields["r"])
        epoch = supervisor.half.write_count.epoch
        look = at_once(supervisor.half.store.look(said.conversation_id, PEER, bytes(8)))
        ratchet = self._ratchet(look)
        if look.session_epoch < epoch:
            ratchet = Ratchet(next(self.history.sessions))
        ratchet = msgspec.structs.replace(ratchet, sent=ratchet.sent + 1)
        cmid = f"{said.job_id}/{said.place}"
        key = f"{ratchet.session}:{ratchet.sent}#{next(encryptions)}"
        record = OutboxRecord(SCHEMA_VERSION, cmid, said.conversation_id, "text", key, None, "h2a", "text", 1)
        session = SessionWrite(*PEER, look.session_version, ratchet.sealed())
        supervisor.sending = Sending(entry, cmid, session, record, epoch)

    @precondition(lambda self: any(one.sending for one in self.supervisors))
    @rule(at=who, is_sent=st.booleans())
    def what_was_encrypted_is_committed(self, at: int, is_sent: bool) -> None:
        supervisor = self._reconnected(at)
        if supervisor.sending is not None and self._commit(supervisor, supervisor.sending) and is_sent:
            self._send_all(supervisor)

    def _commit(self, supervisor: Connected, sending: Sending) -> bool:
        said = decode_reply_record(sending.entry.fields["r"])
        commit = at_once(
            supervisor.half.outbox.commit(
                entry_id=sending.entry.id,
                conversation_id=said.conversation_id,
                client_message_id=sending.cmid,
                answers=(said.job_id, said.place),
                record=sending.record,
                sessions=[sending.session],
                epoch=sending.epoch,
                rate_per_second=0,
            )
        )
        match commit.outcome:
            case Committed.COMMITTED:
                self.history.ledger.committed[sending.cmid] += 1
                supervisor.outgoing.append(sending.record)
                supervisor.sending = None
            case Committed.ALREADY:
                assert commit.stored is not None
                supervisor.outgoing.append(commit.stored)
                supervisor.sending = None
            case Committed.DONE_BEFORE | Committed.FENCED:
                supervisor.sending = None
            case Committed.STALE:
                self._encrypt(supervisor, sending.entry)
            case Committed.EPOCH | Committed.WENT_BACK:
                at_once(supervisor.half.check())
                self._encrypt(supervisor, sending.entry)
            case other:
                raise AssertionError(other)
        return supervisor.sending is None

    @precondition(lambda self: any(one.outgoing for one in self.supervisors))
    @rule(at=who, is_lost=st.booleans())
    def what_was_committed_is_sent(self, at: int, is_lost: bool) -> None:
        if is_lost:
            self.supervisors[at].outgoing.clear()
        self._send_all(self.supervisors[at])

    def _send_all(self, supervisor: Connected) -> None:
        for record in supervisor.outgoing:
            self.acks.append(self.history.relay.reads(record))
        supervisor.outgoing.clear()

    @precondition(lambda self: self.acks)
    @rule(at=who, which=st.integers(0, 5))
    def an_acknowledgement_is_heard(self, at: int, which: int) -> None:
        """By whom it may concern, in any order, again and again."""
        self._confirm(self._reconnected(at), self.acks[-1 - which % len(self.acks)])

    def _confirm(self, supervisor: Connected, ack: Ack) -> None:
        at_once(supervisor.half.outbox.confirm(ack.conversation, ack.cmid, ack.message_id, ack.seq))

    @precondition(lambda self: any(one.sending for one in self.supervisors))
    @rule(at=who, is_given_back=st.booleans())
    def a_reply_is_not_sent_by_this_one(self, at: int, is_given_back: bool) -> None:
        supervisor = self._reconnected(at)
        if supervisor.sending is None:
            return
        entry, supervisor.sending = supervisor.sending.entry, None
        record = decode_reply_record(entry.fields["r"])
        outbox, conversation, answers = supervisor.half.outbox, record.conversation_id, (record.job_id, record.place)
        if is_given_back:
            at_once(outbox.give_back_reply(entry.id, conversation))
        elif at_once(outbox.drop_reply(conversation, "no_grant", answers=answers, entry_id=entry.id)):
            self.history.drops += 1

    @precondition(lambda self: self.acks or any(one.outgoing for one in self.supervisors))
    @rule(at=who, conversation=st.sampled_from(CONVERSATIONS), is_final=st.booleans())
    def the_relay_refuses(self, at: int, conversation: str, is_final: bool) -> None:
        outbox = self._reconnected(at).half.outbox
        record = at_once(outbox.resend(conversation, former_holder=at_once(outbox.holder_of(conversation))))
        if record is None:
            return
        if not is_final:
            at_once(outbox.postpone(conversation, record.client_message_id, 4000))
        elif record.client_message_id not in self.history.relay.stored:
            for one in self.supervisors:  # it was refused to whoever sent it
                one.outgoing = [other for other in one.outgoing if other != record]
            assert at_once(outbox.drop_reply(conversation, "refused", client_message_id=record.client_message_id))
            self.history.drops += 1
