"""The span of one run of a job: under the one that brought the message, current while the handler runs, over what is said in it.

Where nobody traces here the job's own trace goes on with what is said, since the supervisor may trace.
"""

import msgspec

from bus.records.records import Job
from bus.telemetry.settings import NotSent
from workers.logs import Log
from workers.settings import WorkerSettings


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


def open_tracing(settings: WorkerSettings, log: Log) -> JobTracing:
    """As the settings say; before the handler is loaded, so that its libraries find where to tell their spans."""
    if isinstance(settings.telemetry, NotSent):
        log.info(
            "telemetry: not sent", reason=settings.telemetry.reason
        )  # the supervisor warns, once for all of its own
        return JobTracing()
    if settings.telemetry is None or not settings.telemetry.sends_traces:
        return JobTracing()
    # Loads OpenTelemetry.
    from workers.live_tracing import LiveJobTracing  # noqa: PLC0415

    return LiveJobTracing(settings.telemetry, settings.consumer, log)


def traced(job: Job, span: str) -> Job:
    """The job, what is said in it under `span`."""
    return msgspec.structs.replace(job, trace=span)
