"""Whether a worker tells of its jobs by OpenTelemetry, as the settings say; what is not sent loads none of it."""

from bus.telemetry.settings import NowhereToSend
from workers.process.logs import Log
from workers.process.settings import WorkerSettings
from workers.process.tracing import JobTracing


def open_tracing(settings: WorkerSettings, log: Log) -> JobTracing:
    """As the settings say; before the handler is loaded, so that its libraries find where to tell their spans."""
    if isinstance(settings.telemetry, NowhereToSend):
        log.info(
            "telemetry: not sent", reason=settings.telemetry.reason
        )  # the supervisor warns, once for all of its own
        return JobTracing()
    if settings.telemetry is None or not settings.telemetry.sends_traces:
        return JobTracing()
    # Loads OpenTelemetry.
    from workers.process.live_tracing import LiveJobTracing  # noqa: PLC0415

    return LiveJobTracing(settings.telemetry, settings.consumer, log)
