"""A job that a worker has taken, and its state, which workers/process/runner.py changes."""

from dataclasses import dataclass, field

import trio

from bus.records.records import Job
from workers.kept.keeping import Keeping
from workers.kept.waits import Wait
from workers.process.tracing import JobSpan, JobTracing
from workers.talk.sending import Sending


@dataclass(eq=False)
class Hand:
    """A job that was taken. `scope` cancels it; `begun`: its handler was begun.

    `ending`: its end is being written to Redis, whose answer says whether it was still ours. `ended`: that was answered, or nothing more
    can be done about the job.
    """

    job: Job
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    begun: bool = False
    superseded: bool = False
    stopped: bool = False
    """Its person has said /stop."""
    answers: Wait | None = None
    """The wait whose answer it is."""
    gives_back: bool = False
    """What its thread had to note has no room in Redis: it runs again later."""
    broken_by: Exception | None = None
    """What went wrong beside its handler."""
    is_known: bool = False
    """Whether it is known what it means to the threads that wait: until then it may be an answer, which nothing interrupts."""
    ending: bool = False
    ended: bool = False
    began_ms: int | None = None
    """When its handler began, until that was noted in Redis."""
    keeping: Keeping | None = None
    task: trio.lowlevel.Task | None = None
    """In which its handler runs, or waits for the thread that it runs in."""
    sending: Sending | None = None
    """The replies of its run, once its handler was begun."""
    waited_seconds: float = 0.0
    """How long its replies had no room, which does not count as its own time."""
    span: JobSpan | None = None
    outcome: str = "lost"
    error: str = ""
    """For the span: the outcome of the run, and the name of its error."""

    def begin(self, tracing: JobTracing) -> None:
        """Notes that its handler begins now, in this task, and begins its span."""
        self.begun = True
        self.span = tracing.begin(self.job)
        self.job = self.span.job

    def give_back(self) -> None:
        """Cancels its run, to have it run again later."""
        self.gives_back = True
        self.scope.cancel()

    def stop(self) -> None:
        """Ends its run: what was said stays said."""
        self.stopped = True
        if self.sending is not None:
            self.sending.was_told_to_stop = True
        self.scope.cancel()

    def speaks_by(self, sending: Sending) -> None:
        """Notes by what its run speaks, before its handler is called."""
        self.sending = sending

    def tell(self) -> None:
        """Ends its span, after the job was let go. Nothing of its run is kept: what that says by knows this too, and holds its message."""
        self.sending = self.keeping = None
        if self.span is not None:
            self.span.end(self.outcome, self.error)
