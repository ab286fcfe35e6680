"""A bus under everything that happens to it, as a state machine: supervisors and workers that act in any order, stop, wake and die, a
relay that repeats itself, acknowledgements that come late, twice and to anybody, and a Redis that goes back in time.

Whatever has happened, in the end every message has ended once, in order, and nothing is left lying about.
"""

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from bus.records.records import JobRecord, OutboxRecord, ReplyRecord
from tests.bus.machine.company import CONVERSATIONS, LATER_MS, MOST_ROUNDS, PAGE, who
from tests.bus.machine.inbound import Inbound
from tests.bus.machine.outbound import Outbound
from tests.bus.machine.trouble import Trouble
from tests.bus.machine.working import Working
from tests.bus.scenes import at_once


class BusMachine(Inbound, Working, Outbound, Trouble):
    """All together, and what holds at any time and at the end."""

    @rule(
        first=who,
        sent=st.sampled_from([None, None, "signed", "unsigned"]),
        retried=st.sampled_from([None, True, False]),
        placing=st.booleans(),
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
        placing: bool,
        committing: set[int],
        sending: set[int],
        hearing: set[int],
    ) -> None:
        """So that what goes wrong finds much under way."""
        both = (first, 1 - first)
        if placing:
            self.a_job_is_placed(first, first)
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

    @invariant()
    def what_is_counted_is_there(self) -> None:
        facts = at_once(self.scene.facts())
        assert facts.waiting == facts.in_mailboxes
        assert facts.busy == facts.at_work
        assert facts.counted == facts.waits

    def teardown(self) -> None:
        try:
            if self.supervisors:
                self._settle()
        finally:
            self.scene.close()

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
            is_done = not self._fetch(self.supervisors[0]) and is_done
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
