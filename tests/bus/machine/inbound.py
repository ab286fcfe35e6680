"""Messages on their way in: pushed, polled, again and again, unreadable at first."""

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from bus.records.records import ReplyPlace, pack_reply
from bus.steps.held import Note
from bus.steps.store import Arrival, ConversationSnapshot, Intake, SessionWrite, Source
from tests.bus.builders import AGENT, BUS_KEY, PEER, arrival_of, job_of, reply
from tests.bus.history import REFUSAL_PLACE, Message
from tests.bus.machine.company import CONVERSATIONS, PAGE, Company, Connected, who
from tests.bus.scenes import at_once


class Inbound(Company):
    """What people and the relay do."""

    @rule(conversation=st.sampled_from(CONVERSATIONS), how_many=st.integers(1, 3))
    def people_send(self, conversation: str, how_many: int) -> None:
        for _ in range(how_many):
            self.history.relay.person_sends(conversation, None)

    @rule(conversation=st.sampled_from(CONVERSATIONS), why=st.sampled_from(["signed", "unsigned"]))
    def somebody_sends_what_cannot_be_read_yet(self, conversation: str, why: str) -> None:
        self.history.relay.person_sends(conversation, why)

    @precondition(lambda self: self.history.relay.messages)
    @rule(at=who, which=st.integers(0, 30))
    def a_push_is_opened(self, at: int, which: int) -> None:
        """Any message, also an old one; what was opened is taken in by a later step, when all may have changed."""
        messages = self.history.relay.messages
        message = messages[-1 - which % min(len(messages), 4)]
        supervisor = self._reconnected(at)
        if not self._is_unreadable(message):
            look = self._look(supervisor, message)
            supervisor.opened = (message, self._arrival(message, Source.PUSH, look))

    @precondition(lambda self: any(one.opened for one in self.supervisors))
    @rule(at=who)
    def what_was_pushed_is_taken_in(self, at: int) -> None:
        supervisor = self._reconnected(at)
        if supervisor.opened is not None:
            (message, arrival), supervisor.opened = supervisor.opened, None
            self._accept(supervisor, message, arrival)

    @rule(at=who, dies_after=st.sampled_from([None, None, None, 0, 1, 2]))
    def a_page_is_polled(self, at: int, dies_after: int | None) -> None:
        supervisor = self._reconnected(at)
        cursor = at_once(supervisor.half.store.cursor())
        page = self.history.relay.page(cursor, PAGE)
        for number, message in enumerate(page):
            if number == dies_after:
                self.supervisors[at] = self._supervisor()
                return
            self._take_in(supervisor, message, Source.POLL)
        if page:
            at_once(supervisor.half.store.advance_cursor(cursor, page[-1].id))

    @precondition(lambda self: any(self._is_unreadable(one) for one in self.history.relay.messages))
    @rule(at=who, is_tried=st.booleans())
    def something_can_be_read_now(self, at: int, is_tried: bool) -> None:
        """It is tried again, or the relay shows it again before."""
        message = next(one for one in self.history.relay.messages if self._is_unreadable(one))
        self.readable.add(message.id)
        supervisor = self._reconnected(at)
        if is_tried:
            self._requeue(supervisor, message)
        else:
            self._take_in(supervisor, message, Source.POLL)

    def _is_unreadable(self, message: Message) -> bool:
        return message.quarantine is not None and message.id not in self.readable

    def _arrival(self, message: Message, source: Source, look: ConversationSnapshot) -> Arrival:
        ratchet = self._ratchet(look)
        moved = msgspec.structs.replace(ratchet, received=ratchet.received + 1)
        session = SessionWrite(*PEER, look.session_version, moved.sealed())
        plain = arrival_of(message.seq, look.session_version, source=source, conversation=message.conversation)
        return msgspec.structs.replace(plain, session=session, epoch=look.session_epoch)

    def _take_in(self, supervisor: Connected, message: Message, source: Source) -> None:
        arrival = self._arrival(message, source, self._look(supervisor, message))
        if self._is_unreadable(message):
            signed = arrival.signed_id if message.quarantine == "signed" else b""
            unread = msgspec.structs.replace(arrival, session=None, signed_id=signed)
            outcome = at_once(supervisor.half.store.quarantine(unread, reason="no_session", frame=b"frame"))
            assert outcome.is_settled
        elif self._look(supervisor, message).sender_waits:
            known = at_once(supervisor.half.store.hold(arrival, by_itself=False))
            assert known.is_settled
        else:
            outcome = self._accept(supervisor, message, arrival)
            assert outcome.is_settled

    @rule(at=who)
    def what_waits_at_the_relay_is_fetched(self, at: int) -> None:
        self._fetch(self._reconnected(at))

    def _fetch(self, supervisor: Connected) -> bool:
        """In order, as long as there is room; whether something was taken in."""
        notes = supervisor.half.notes
        is_any = False
        for note in at_once(notes.of(PEER[0])):
            for message in self._that_wait(note):
                arrival = self._arrival(message, Source.HELD, self._look(supervisor, message))
                outcome = self._accept(supervisor, message, arrival)
                if outcome is Intake.HELD:
                    return is_any
                assert outcome.is_settled
                if note.is_open:
                    assert at_once(notes.reached(PEER[0], note, message.seq, message.id))
                else:
                    at_once(notes.forget(PEER[0], note))
                is_any = True
        return is_any

    def _that_wait(self, note: Note) -> list[Message]:
        return [
            one
            for one in self.history.relay.messages
            if one.conversation == note.conversation_id
            and (
                note.stands_for(one.seq) and not self._is_unreadable(one) if note.is_open else one.id == note.message_id
            )
        ]

    def _accept(self, supervisor: Connected, message: Message, arrival: Arrival) -> Intake:
        job = job_of(message.seq, message.conversation)
        outcome = at_once(supervisor.half.store.accept(arrival, job))
        if outcome is Intake.FULL:
            at = ReplyPlace(message.id, message.conversation, REFUSAL_PLACE, 1)
            refusal = pack_reply(at, reply("later"), emitted_ms=1, key=BUS_KEY, agent_id=AGENT)
            outcome = at_once(supervisor.half.store.accept(arrival, job, refusal=refusal))
        if outcome is Intake.HELD and arrival.source is not Source.HELD:
            outcome = at_once(supervisor.half.store.hold(arrival, by_itself=True))
        if outcome is Intake.REFUSED:
            self.history.ledger.refuses(message)
        elif outcome.is_new:
            self._delivered(message)
        return outcome

    def _requeue(self, supervisor: Connected, message: Message) -> None:
        arrival = self._arrival(message, Source.QUARANTINE, self._look(supervisor, message))
        outcome = at_once(supervisor.half.store.requeue(arrival, job_of(message.seq, message.conversation)))
        assert outcome in (Intake.ACCEPTED, Intake.DUPLICATE, Intake.GONE)
        if outcome is Intake.ACCEPTED:
            self._delivered(message)
