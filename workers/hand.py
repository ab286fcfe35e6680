"""A job that a worker has taken, and how far it is with it. Values; workers/runner.py moves them."""

from dataclasses import dataclass, field

import trio

from bus.records.records import Job
from workers.tracing import JobSpan, JobTracing


@dataclass(eq=False)
class Hand:
    """A job that was taken: the scope that ends it, whether its handler was begun, whether its end is being told to Redis, whose answer
    says if it was still ours, and whether it has had it, or nothing more can be done about it.
    """

    job: Job
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    begun: bool = False
    superseded: bool = False
    ending: bool = False
    ended: bool = False
    began_ms: int | None = None
    """When its handler began, as long as nobody has been told."""
    waited_seconds: float = 0.0
    """For room for what it said: that is not of its own time."""
    span: JobSpan | None = None
    outcome: str = "lost"
    error: str = ""
    """Both for its span: what became of the run, and the name of what went wrong."""

    def begin(self, tracing: JobTracing) -> None:
        """Its handler is begun now, in this task."""
        self.begun = True
        self.span = tracing.begin(self.job)
        self.job = self.span.job

    def tell(self) -> None:
        """It is let go: its span has ended."""
        if self.span is not None:
            self.span.end(self.outcome, self.error)
