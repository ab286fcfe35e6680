"""The span of a run of a job: its parent is the span that received the message, and it is the parent of the replies.

While tracing is off here the job's own trace is passed on with its replies, since the supervisor may trace.
"""

import msgspec

from bus.records.records import Job


class JobSpan:
    """The span of a run while tracing is off. `job`: its `trace` is the parent of the replies."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def end(self, _outcome: str, _error: str) -> None:
        """Ends the span with the run's outcome and the name of its error."""


class JobTracing:
    """Tracing that is off."""

    def begin(self, job: Job) -> JobSpan:
        """Begins the span of a run, which is the current span in this task from now on."""
        return JobSpan(job)

    def close(self) -> None:
        """Sends what waits, for a moment, at the end of the process."""


def traced(job: Job, span: str) -> Job:
    """Returns the job with `span` as the parent of its replies."""
    return msgspec.structs.replace(job, trace=span)
