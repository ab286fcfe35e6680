"""Workers that take jobs, answer them, and do not always succeed."""

from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from bus.records.records import Job, decode_job_record
from bus.steps.job_steps import Emitted, Failed, Finished, Started
from bus.steps.placing import Placed
from tests.bus.builders import placed_job, reply
from tests.bus.history import Retrying
from tests.bus.machine.company import CONVERSATIONS, LATER_MS, Company, Running, who
from tests.bus.scenes import at_once

placements = count(1)


class Working(Company):
    """What workers do."""

    @rule(at=who, steps=st.integers(1, 4))
    def a_worker_works(self, at: int, steps: int) -> None:
        for _ in range(steps):
            self._work(self.workers[at])

    def _work(self, worker: Running) -> bool:
        """One step: take and start, or emit, or finish. False when there is nothing to do."""
        if worker.job is None:
            worker.job = at_once(worker.half.take())
            if worker.job is not None and worker.job.kind != "message":
                return self._run_placed(worker, worker.job)
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
        """As a runner does: of a first run under `queue` there is nothing to ask."""
        is_asked = not (job.is_first_run and self.policies.busy == "queue")
        started = at_once(worker.half.steps.start(job)) if is_asked else Started("started", is_noted=False)
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

    def _run_placed(self, worker: Running, job: Job) -> bool:
        """A job that no message began runs to its end: nothing interrupts it, and it has no company."""
        started = at_once(worker.half.steps.start(job))
        assert started.outcome == "started"
        assert started.together == ()
        assert at_once(worker.half.steps.finish(job)) is Finished.DONE
        self.history.ledger.ends_placed(job.job_id, job.conversation_id)
        worker.job = None
        return True

    @rule(at=who, where=who)
    def a_job_is_placed(self, at: int, where: int) -> None:
        packed = placed_job(f"{next(placements)}", CONVERSATIONS[where])
        placing, job_id = self._reconnected(at).half.placing, decode_job_record(packed).job_id
        assert at_once(placing.place(packed)) is Placed.PLACED
        self.history.ledger.places(job_id, CONVERSATIONS[where])
        assert at_once(placing.place(packed)) is Placed.ALREADY

    def _finish(self, worker: Running, job: Job, *, is_answered: bool = True) -> None:
        together = worker.together if is_answered else []
        if at_once(worker.half.steps.finish(job, "done" if is_answered else "superseded")) is Finished.DONE:
            self.history.ledger.ends(self._message(job.job_id), together, is_answered=is_answered)
        worker.job = None

    @rule(at=who)
    def a_job_is_taken_and_not_begun(self, at: int) -> None:
        worker = self.workers[at]
        job = None if worker.job else at_once(worker.half.take())
        if job is not None:
            at_once(worker.half.steps.hand_back(job))

    @precondition(lambda self: any(one.job for one in self.workers))
    @rule(at=who, how=st.sampled_from(["retry", "retry later", "dead", "hand_back", "superseded"]))
    def a_job_does_not_go_well(self, at: int, how: str) -> None:
        worker = self.workers[at]
        job, worker.job = worker.job, None
        if job is None:
            return
        if how == "hand_back":
            at_once(worker.half.steps.hand_back(job, has_begun=True))
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
