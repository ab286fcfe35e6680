"""A bus under everything that happens to it, as a state machine: supervisors and workers that act in any order, stop, wake and die, a
relay that repeats itself, acknowledgements that come late, twice and to anybody, and a Redis that goes back in time.

Whatever has happened, in the end every message has ended once, in order, and nothing is left lying about.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bus.job_steps import Emitted, Failed, Finished
from bus.outbox import Committed
from bus.policies import Busy, Full, Policies
from bus.readers import Entry
from bus.records import (
    SCHEMA_VERSION,
    Job,
    JobRecord,
    OutboxRecord,
    ReplyPlace,
    ReplyRecord,
    decode_reply_record,
    pack_reply,
)
from bus.recovery import Held, Reclaim
from bus.store import Arrival, Intake, Look, SessionWrite, Source
from tests.bus.builders import AGENT, BUS_KEY, PEER, arrival_of, job_of, reply
from tests.bus.history import REFUSAL_PLACE, Ack, History, Ledger, Message, Ratchet, Retrying
from tests.bus.scenes import Scene, Supervisor, Worker, at_once

CONVERSATIONS = ("one", "two")
LEASE_MS = 15_000
LATER_MS = 3_600_000
PAGE = 3
MOST_ROUNDS = 400

who = st.integers(0, 1)
names = count(1)
encryptions = count(1)


@dataclass
class Sending:
    """A reply that was taken and encrypted, under the session as it was read."""

    entry: Entry
    cmid: str
    session: SessionWrite
    record: OutboxRecord
    epoch: int


@dataclass
class Connected:
    """A supervisor with what it has in memory."""

    half: Supervisor
    opened: tuple[Message, Arrival] | None = None
    sending: Sending | None = None
    outgoing: list[OutboxRecord] = field(default_factory=list)
    must_check: bool = False


@dataclass
class Running:
    """A worker with the job that it believes to have."""

    half: Worker
    job: Job | None = None
    message: Message | None = None
    together: list[Message] = field(default_factory=list)
    emitted: set[str] = field(default_factory=set)


class BusMachine(RuleBasedStateMachine):
    def __init__(self, open_scene: Callable[[], Scene]) -> None:
        super().__init__()
        self.scene = open_scene()
        self.history = History()
        self.readable: set[str] = set()
        self.acks: list[Ack] = []
        self.remembered: tuple[object, Ledger] | None = None
        self.supervisors: list[Connected] = []
        self.workers: list[Running] = []

    @initialize(
        busy=st.sampled_from(["queue", "interrupt", "coalesce"]),
        full=st.sampled_from(["refuse", "park"]),
        most=st.sampled_from([1, 2, 100]),
    )
    def begin(self, busy: Busy, full: Full, most: int) -> None:
        self.policies = Policies(busy=busy, full=full, most_waiting=most)
        self.supervisors = [self._supervisor() for _ in range(2)]
        self.workers = [self._worker() for _ in range(2)]

    def _supervisor(self) -> Connected:
        return Connected(at_once(self.scene.supervisor(f"supervisor-{next(names)}")))

    def _worker(self) -> Running:
        return Running(at_once(self.scene.worker(f"worker-{next(names)}", self.policies)))

    def teardown(self) -> None:
        try:
            if self.supervisors:
                self._settle()
        finally:
            self.scene.close()

    # Messages on their way in

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

    def _look(self, supervisor: Connected, message: Message) -> Look:
        return at_once(supervisor.half.store.look(message.conversation, PEER, bytes(8)))

    def _ratchet(self, look: Look) -> Ratchet:
        if look.session_sealed is None:
            return Ratchet(next(self.history.sessions))
        return msgspec.msgpack.decode(look.session_sealed, type=Ratchet)

    def _arrival(self, message: Message, source: Source, look: Look) -> Arrival:
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
        else:
            outcome = self._accept(supervisor, message, arrival)
            assert outcome.is_settled

    def _accept(self, supervisor: Connected, message: Message, arrival: Arrival) -> Intake:
        job = job_of(message.seq, message.conversation)
        outcome = at_once(supervisor.half.store.accept(arrival, job))
        if outcome is Intake.FULL:
            at = ReplyPlace(message.id, message.conversation, REFUSAL_PLACE, 1)
            refusal = pack_reply(at, reply("later"), emitted_ms=1, key=BUS_KEY, agent_id=AGENT)
            outcome = at_once(supervisor.half.store.accept(arrival, job, refusal=refusal))
        if outcome is Intake.REFUSED:
            self.history.ledger.refuses(message)
        elif outcome.is_new:
            self._delivered(message)
        return outcome

    def _delivered(self, message: Message) -> None:
        self.history.ledger.takes_in(message, interrupts=self.policies.busy == "interrupt")

    def _requeue(self, supervisor: Connected, message: Message) -> None:
        arrival = self._arrival(message, Source.QUARANTINE, self._look(supervisor, message))
        outcome = at_once(supervisor.half.store.requeue(arrival, job_of(message.seq, message.conversation)))
        assert outcome in (Intake.ACCEPTED, Intake.DUPLICATE, Intake.GONE)
        if outcome is Intake.ACCEPTED:
            self._delivered(message)

    # Workers

    @rule(at=who, steps=st.integers(1, 4))
    def a_worker_works(self, at: int, steps: int) -> None:
        for _ in range(steps):
            self._work(self.workers[at])

    def _work(self, worker: Running) -> bool:
        """One step: take and start, or emit, or finish. False when there is nothing to do."""
        if worker.job is None:
            worker.job = at_once(worker.half.take())
            return worker.job is not None and self._start(worker, worker.job)
        message = self._message(worker.job.job_id)
        place = next((one for one in message.places if one not in worker.emitted), None)
        if place is None:
            self._finish(worker, worker.job)
            return True
        emitted = at_once(worker.half.steps.emit(worker.job, place, reply(place)))
        worker.emitted.add(place)
        if emitted is Emitted.QUEUED:
            self.history.ledger.said[message.conversation].append(f"{message.id}/{place}")
        elif emitted is Emitted.FENCED:
            worker.job = None
        return True

    def _start(self, worker: Running, job: Job) -> bool:
        started = at_once(worker.half.steps.start(job))
        message = self._message(job.job_id)
        if started.outcome == "superseded":
            self._finish(worker, job, is_answered=False)
            return True
        worker.together = [self._message(one.message_id) for one in started.together]
        worker.emitted = set(started.places)
        if started.outcome == "started":
            self.history.ledger.starts(message, worker.together)
        else:
            worker.job = None
        return True

    def _finish(self, worker: Running, job: Job, *, is_answered: bool = True) -> None:
        together = worker.together if is_answered else []
        if at_once(worker.half.steps.finish(job, "done" if is_answered else "superseded")) is Finished.DONE:
            self.history.ledger.ends(self._message(job.job_id), together, is_answered=is_answered)
        worker.job = None

    def _message(self, message_id: str) -> Message:
        return next(one for one in self.history.relay.messages if one.id == message_id)

    @precondition(lambda self: any(one.job for one in self.workers))
    @rule(at=who, how=st.sampled_from(["retry", "retry later", "dead", "hand_back", "superseded"]))
    def a_job_does_not_go_well(self, at: int, how: str) -> None:
        worker = self.workers[at]
        job, worker.job = worker.job, None
        if job is None:
            return
        if how == "hand_back":
            at_once(worker.half.steps.hand_back(job))
        elif how == "superseded":
            _, interrupted = at_once(worker.half.renew(job.entry_id))
            if interrupted:
                worker.job = job
                together = worker.together
                if at_once(worker.half.steps.finish(job, "superseded")) is Finished.DONE:
                    self.history.ledger.ends(self._message(job.job_id), together, is_answered=False)
                worker.job = None
            else:
                worker.job = job
        else:
            delay_ms = {"retry": 0, "retry later": LATER_MS, "dead": None}[how]
            failed = at_once(worker.half.steps.fail(job, "broke", delay_ms))
            if failed is Failed.RETRY:
                retrying = Retrying(self._message(job.job_id), worker.together, is_soon=delay_ms == 0)
                self.history.ledger.retrying[job.conversation_id] = retrying
            elif failed is Failed.DEAD:
                self.history.ledger.gives_up(self._message(job.job_id))
            elif failed is Failed.SUPERSEDED:
                self.history.ledger.ends(self._message(job.job_id), worker.together, is_answered=False)

    @rule(at=who, is_seen=st.booleans())
    def a_worker_dies(self, at: int, is_seen: bool) -> None:
        gone, self.workers[at] = self.workers[at], self._worker()
        if is_seen:
            office = self._reconnected(at).half.recovery
            self._reclaim(at, office.jobs, Reclaim(is_strike=True), gone.half.name)

    # Replies on their way out

    @rule(at=who)
    def a_reply_is_encrypted(self, at: int) -> None:
        supervisor = self._reconnected(at)
        entry = supervisor.sending.entry if supervisor.sending else at_once(supervisor.half.take_reply())
        if entry is not None:
            self._encrypt(supervisor, entry)

    def _encrypt(self, supervisor: Connected, entry: Entry) -> None:
        said = decode_reply_record(entry.fields["r"])
        epoch = supervisor.half.generation.epoch
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
        conversation = decode_reply_record(entry.fields["r"]).conversation_id
        if is_given_back:
            at_once(supervisor.half.outbox.give_back_reply(entry.id, conversation))
        elif at_once(supervisor.half.outbox.drop_reply(conversation, "no_grant", entry_id=entry.id)):
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

    @rule(
        first=who,
        sent=st.sampled_from([None, None, "signed", "unsigned"]),
        retried=st.sampled_from([None, True, False]),
        committing=st.sets(who),
        sending=st.sets(who),
        hearing=st.sets(who),
    )
    def all_do_something(
        self,
        *,
        first: int,
        sent: str | None,
        retried: bool | None,
        committing: set[int],
        sending: set[int],
        hearing: set[int],
    ) -> None:
        """So that what goes wrong finds much under way."""
        both = (first, 1 - first)
        self.history.relay.person_sends(CONVERSATIONS[first], sent)
        self.a_page_is_polled(first, None)
        if retried is not None and any(self._is_unreadable(one) for one in self.history.relay.messages):
            self.something_can_be_read_now(first, retried)
        for at in both:
            self.a_worker_works(at, 3)
        for at in both:
            self.a_reply_is_encrypted(at)
        for at in both:
            if at in committing:
                self.what_was_encrypted_is_committed(at, is_sent=at in sending)
            if at in hearing and self.acks:
                self.an_acknowledgement_is_heard(at, 0)

    # Second chances

    @rule(at=who, is_seen=st.booleans())
    def a_supervisor_dies(self, at: int, is_seen: bool) -> None:
        gone, self.supervisors[at] = self.supervisors[at], self._supervisor()
        self.supervisors[at].must_check = gone.must_check
        if is_seen:
            supervisor = self._reconnected(at)
            self._reclaim(at, supervisor.half.recovery.replies, Reclaim(), gone.half.name)
            for conversation in at_once(supervisor.half.outbox.all()):
                record = at_once(supervisor.half.outbox.resend(conversation, former_holder=gone.half.name))
                supervisor.outgoing += [] if record is None else [record]

    @rule(at=who)
    def one_looks_after_the_others(self, at: int) -> None:
        supervisor = self._reconnected(at)
        office = supervisor.half.recovery
        for held in (office.jobs, office.replies):
            self._reclaim(at, held, Reclaim(idle_ms=LEASE_MS))
        now_ms = at_once(supervisor.half.store.now_ms())
        at_once(office.start_due(now_ms))
        self.history.ledger.starts_due()
        assert at_once(office.audit(now_ms + 1)) == 0, "something was lost on its way"
        for conversation in at_once(supervisor.half.outbox.due()):
            record = at_once(supervisor.half.outbox.resend(conversation))
            supervisor.outgoing += [] if record is None else [record]

    def _reclaim(self, at: int, held: Held, how: Reclaim, consumer: str | None = None) -> None:
        office = self.supervisors[at].half.recovery
        held = office.jobs if held.stream == office.jobs.stream else office.replies
        for pending in at_once(office.pending(held, idle_ms=how.idle_ms, consumer=consumer)):
            reclaimed = at_once(office.reclaim(held, pending, how))
            if reclaimed.outcome == "dead":
                self.history.ledger.gives_up(self._message(reclaimed.job_id))

    @rule(at=who)
    def a_dead_letter_is_revived(self, at: int) -> None:
        supervisor = self._reconnected(at)
        for letter in at_once(supervisor.half.dead.first(1)):
            record = letter.decoded()
            if at_once(supervisor.half.dead.retry(letter, supervisor.half.name)) == "revived" and isinstance(
                record, JobRecord
            ):
                self._delivered(self._message(record.job_id))

    @rule(milliseconds=st.sampled_from([1000, 4000, 11_000, 16_000]), renewing=st.sets(who))
    def time_passes(self, milliseconds: int, renewing: set[int]) -> None:
        """Those who renew are awake; the others are stopped, and may wake later."""
        at_once(self.scene.time_passes(milliseconds))
        for at in renewing:
            job = self.workers[at].job
            if job is not None:
                at_once(self.workers[at].half.renew(job.entry_id))

    @rule()
    def a_copy_is_kept(self) -> None:
        self.remembered = (at_once(self.scene.remember()), self.history.remember())

    @precondition(lambda self: self.remembered is not None)
    @rule()
    def redis_goes_back(self) -> None:
        assert self.remembered is not None
        contents, ledger = self.remembered
        at_once(self.scene.go_back(contents))
        self.history.goes_back(ledger)
        for supervisor in self.supervisors:
            supervisor.must_check = True

    def _reconnected(self, at: int) -> Connected:
        supervisor = self.supervisors[at]
        if supervisor.must_check:
            at_once(supervisor.half.check(certainly_back=True))
            supervisor.must_check = False
        return supervisor

    # What holds at any time, and at the end

    @invariant()
    def what_is_counted_is_there(self) -> None:
        facts = at_once(self.scene.facts())
        assert facts.waiting == facts.in_mailboxes
        assert facts.busy == facts.at_work

    def _settle(self) -> None:
        """Everybody does what there is to do, until there is nothing."""
        self.readable = {one.id for one in self.history.relay.messages}
        at_once(self.scene.time_passes(LATER_MS))
        self.one_looks_after_the_others(0)
        self.history.ledger.retrying.clear()
        for _ in range(MOST_ROUNDS):
            is_done = True
            for at in (0, 1):
                supervisor = self._reconnected(at)
                page = self.history.relay.page(at_once(supervisor.half.store.cursor()), PAGE)
                self.a_page_is_polled(at, None)
                while self._work(self.workers[at]):
                    is_done = False
                self.a_reply_is_encrypted(at)
                while supervisor.sending is not None:
                    is_done = False
                    self._commit(supervisor, supervisor.sending)
                self._send_all(supervisor)
                is_done = is_done and not page
            for message in self.history.relay.messages:
                if at_once(self.supervisors[0].half.quarantine.find(message.id)) is not None:
                    self._requeue(self.supervisors[0], message)
                    is_done = False
            for ack in self.history.relay.stored.values():
                self._confirm(self.supervisors[0], ack)
            self.one_looks_after_the_others(0)
            self.what_is_counted_is_there()
            if is_done and not at_once(self.scene.facts()).at_work:
                break
            at_once(self.scene.time_passes(4000))
        assert at_once(self.scene.facts()).busy == frozenset(), "something never ends"
        assert at_once(self.scene.leftovers()) == []
        dead_messages, dead_replies = set(), set()
        for letter in at_once(self.supervisors[0].half.dead.first()):
            match letter.decoded():
                case JobRecord(job_id=job_id):
                    dead_messages.add(job_id)
                case ReplyRecord(job_id=job_id, place=place):
                    dead_replies.add(f"{job_id}/{place}")
                case OutboxRecord(client_message_id=cmid):
                    dead_replies.add(cmid)
        self.history.check(dead_messages, dead_replies)
