"""Makes a span of OpenTelemetry for each run of a job; it is the current span while the handler runs, so that the owner's spans are under it.

Imports OpenTelemetry, so it is imported only if something is sent. The content of the owner's own spans is the owner's.
"""

import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanContext, TraceFlags

from bus.records.records import Job
from bus.telemetry.encoding import encoder
from bus.telemetry.settings import TelemetrySettings
from bus.telemetry.shipping import Shipper
from bus.telemetry.traces import (
    CONSUMER,
    EndedSpan,
    LiveTracing,
    Value,
    checked,
    current_span,
    is_sampled,
    span_id,
    trace_id,
)
from workers.process.logs import Log
from workers.process.tracing import JobSpan, JobTracing, traced

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

NAME = "handle"
CLOSE_SECONDS = 1.0
MOST_ATTRIBUTES = 64
MOST_VALUE_CHARS = 4096
SAMPLED, NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
LIMITS = SpanLimits(
    max_span_attributes=MOST_ATTRIBUTES,
    max_events=MOST_ATTRIBUTES,
    max_links=MOST_ATTRIBUTES,
    max_event_attributes=MOST_ATTRIBUTES,
    max_link_attributes=MOST_ATTRIBUTES,
    max_attribute_length=MOST_VALUE_CHARS,
    max_span_attribute_length=MOST_VALUE_CHARS,
)
"""The bounds of the owner's spans; all are given here, so that none is read from the environment."""

Told = EndedSpan | ReadableSpan


class LiveJobTracing(JobTracing):
    """The tracing of one worker process: its tracer provider, and the thread that sends."""

    def __init__(self, settings: TelemetrySettings, consumer: str, log: Log) -> None:
        who = {**settings.resource, "service.instance.id": consumer, "hashee.role": "worker"}
        self._shipper: Shipper[Told] = Shipper(
            settings, encode=encoder(who), measure=None, warn=log.warning, inform=log.info
        )
        self._tracing = LiveTracing(settings.ratio, self._shipper.put)
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.ratio)),
            resource=Resource(who),
            shutdown_on_exit=False,
            span_limits=LIMITS,
            id_generator=_OwnIds(),
        )
        provider.add_span_processor(_ToShipper(self._shipper))
        trace.set_tracer_provider(provider)
        self._shipper.start()

    def begin(self, job: Job) -> JobSpan:
        """Begins the span of a run, which is the current span in this task."""
        parent = checked(job.trace)
        span = self._tracing.child(parent) or self._tracing.begin()
        return _LiveJobSpan(job, parent, span, self._tracing)

    def close(self) -> None:
        """Sends what waits, at the end of the process."""
        self._shipper.close(CLOSE_SECONDS)


class _LiveJobSpan(JobSpan):
    def __init__(self, job: Job, parent: str, span: str, tracing: LiveTracing) -> None:
        super().__init__(traced(job, span))
        self._tracing = tracing
        self._parent = parent
        self._span = span
        self._began_ns = time.time_ns()
        self._seen = HandlerSpan(span)
        # The context is of this job's task and of those that it starts, so it need not be reset.
        current_span.set(span)
        context.attach(trace.set_span_in_context(self._seen))

    def end(self, outcome: str, error: str) -> None:
        job, seen = self.job, self._seen
        seen.is_over = True
        attributes: dict[str, Value] = {
            **seen.attributes,
            "messaging.message.id": job.job_id,
            "messaging.message.conversation_id": job.conversation_id,
            "hashee.attempt": job.attempt,
            "hashee.deliveries": job.deliveries,
            "hashee.outcome": outcome,
        }
        self._tracing.tell(
            EndedSpan(
                self._span,
                self._parent,
                NAME,
                CONSUMER,
                self._began_ns,
                time.time_ns(),
                attributes,
                error or seen.error,
            )
        )


class HandlerSpan(NonRecordingSpan):
    """The current span as the owner's code sees it: it may set attributes; of an exception only the type is kept."""

    def __init__(self, span: str) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)  # until somebody asks for it: most handlers never do
        self._span = span
        self._is_sampled = is_sampled(span)
        self.is_over = False
        self.attributes: dict[str, Value] = {}
        self.error = ""

    def get_span_context(self) -> SpanContext:
        """Returns OpenTelemetry's name of the span, under which spans of the owner's are begun."""
        if self._context is INVALID_SPAN_CONTEXT:
            flags = SAMPLED if self._is_sampled else NOT_SAMPLED
            trace_number, span_number = int(trace_id(self._span), 16), int(span_id(self._span), 16)
            self._context = SpanContext(trace_number, span_number, is_remote=False, trace_flags=flags)
        return self._context

    def is_recording(self) -> bool:
        """Returns whether attributes are sent."""
        return self._is_sampled and not self.is_over

    def set_attribute(self, key: str, value: "AttributeValue") -> None:
        """Keeps up to 64 attributes: a text (cut at 4,096 characters), a number or a bool; drops others."""
        if isinstance(value, str):
            value = value[:MOST_VALUE_CHARS]
        if not self.is_recording() or not isinstance(value, str | bool | int | float):
            return
        if key in self.attributes or len(self.attributes) < MOST_ATTRIBUTES:
            self.attributes[key] = value

    def set_attributes(self, attributes: "Mapping[str, AttributeValue]") -> None:
        """Sets each of them."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def record_exception(self, exception: BaseException, *_more: object, **_named: object) -> None:
        """Keeps the exception's type only, since its text may quote the conversation."""
        self.error = type(exception).__name__


class _OwnIds(IdGenerator):
    """Makes ids without `random`: a handler may have seeded it, and all workers would make the same ids."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def generate_span_id(self) -> int:
        return self._random.randrange(1, 1 << 64)

    def generate_trace_id(self) -> int:
        return self._random.randrange(1, 1 << 128)


class _ToShipper(SpanProcessor):
    """Queues the owner's finished spans like ours."""

    def __init__(self, shipper: Shipper[Told]) -> None:
        self._shipper = shipper

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._shipper.put(span)
