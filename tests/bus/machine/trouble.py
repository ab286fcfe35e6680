"""What goes wrong and is put right: deaths, time that passes, dead letters brought back, a Redis that goes back."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from bus.records.records import JobRecord
from bus.steps.recovery import HeldEntries, Reclaim
from tests.bus.machine.company import LEASE_MS, Company, who
from tests.bus.scenes import at_once


class Trouble(Company):
    """What happens to them."""

    @rule(at=who, is_seen=st.booleans(), ran_many=st.booleans())
    def a_worker_dies(self, at: int, is_seen: bool, ran_many: bool) -> None:
        gone, self.workers[at] = self.workers[at], self._worker()
        if is_seen:
            lease = self._reconnected(at).half.recovery
            self._reclaim(at, lease.jobs, Reclaim(is_strike=True, ran_many=ran_many), gone.half.name)

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
        lease = supervisor.half.recovery
        for held in (lease.jobs, lease.replies):
            self._reclaim(at, held, Reclaim(idle_ms=LEASE_MS))
        now_ms = at_once(supervisor.half.store.now_ms())
        at_once(lease.start_due(now_ms))
        self.history.ledger.starts_due()
        assert at_once(lease.audit(now_ms + 1)) == 0, "something was lost on its way"
        for conversation in at_once(supervisor.half.outbox.due()):
            record = at_once(supervisor.half.outbox.resend(conversation))
            supervisor.outgoing += [] if record is None else [record]

    def _reclaim(self, at: int, held: HeldEntries, how: Reclaim, consumer: str | None = None) -> None:
        lease = self.supervisors[at].half.recovery
        held = lease.jobs if held.stream == lease.jobs.stream else lease.replies
        for pending in at_once(lease.pending(held, idle_ms=how.idle_ms, consumer=consumer)):
            reclaimed = at_once(lease.reclaim(held, pending, how))
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
