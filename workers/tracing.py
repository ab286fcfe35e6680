"""The span of one run of a job: under the one that brought the message, current while the handler runs, over what is said in it.

Where nobody traces here the job's own trace goes on with what is said, since the supervisor may trace.
"""

import msgspec

from bus.records.records import Job


class JobSpan:
    """Where nobody traces. `job`: whose `trace` what is said in it goes out under."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def end(self, _outcome: str, _error: str) -> None:
        """What became of the run, and the name of what went wrong."""


class JobTracing:
    """Where nobody traces."""

    def begin(self, job: Job) -> JobSpan:
        """A run of the job begins in this task: its span is the current one in it from now on."""
        return JobSpan(job)

    def close(self) -> None:
        """The process ends: what waits is sent, for a moment."""


def traced(job: Job, span: str) -> Job:
    """The job, what is said in it under `span`."""
    return msgspec.structs.replace(job, trace=span)
