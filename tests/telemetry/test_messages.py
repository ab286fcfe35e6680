"""What a supervisor tells of a message, whoever hears what; what a handler may say in its span; and its metrics as OTLP has them."""

from dataclasses import dataclass, field

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bus.records.records import SentNote
from bus.steps.store import Intake
from bus.telemetry.encoding import encoder
from bus.telemetry.traces import CONSUMER, NONE, OFF, EndedSpan, LiveTracing, Value, span_id, trace_id
from supervisor.observe.metrics import Metrics
from supervisor.observe.otlp_metrics import measurer
from supervisor.observe.tracing import MessageTraces
from tests.telemetry.receiver import Taken
from workers.process.live_tracing import MOST_ATTRIBUTES, HandlerSpan

pytestmark = pytest.mark.pure

HANDLE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
IDS = ("m1", "c1")


@dataclass
class Told:
    spans: list[EndedSpan] = field(default_factory=list)

    def traces(self) -> MessageTraces:
        return MessageTraces(LiveTracing(1.0, self.spans.append))


@pytest.mark.parametrize("outcome", [Intake.DUPLICATE, Intake.GAP, Intake.NOT_NOW, Intake.NOTED, Intake.OLD, None])
def test_of_what_is_not_taken_in_now_nothing_is_told(outcome: Intake | None) -> None:
    told = Told()
    traces = told.traces()
    traces.received(traces.arrived(), 1, IDS, outcome, None)
    assert told.spans == []


def test_what_goes_into_quarantine_is_told_with_its_reason() -> None:
    told = Told()
    traces = told.traces()
    traces.received(traces.arrived(), 1, IDS, Intake.ACCEPTED, "no_session")
    [span] = told.spans
    assert (span.error, span.attributes["hashee.outcome"]) == ("no_session", "quarantined")


def test_a_send_is_told_by_whoever_hears_the_acknowledgement_as_the_same_span() -> None:
    here, elsewhere = Told(), Told()
    sender, other = here.traces(), elsewhere.traces()
    sending = sender.reply_read(HANDLE, "cm1", "c1")
    sender.committed("cm1")
    sender.acknowledged("cm1", "c1", SentNote(5, "h2a", "text", HANDLE), 7)
    other.acknowledged("cm1", "c1", SentNote(5, "h2a", "text", HANDLE), None)
    [full], [bare] = here.spans, elsewhere.spans
    assert full.span == bare.span == sending
    assert full.parent == bare.parent == HANDLE
    assert [name for name, _ in full.events] == ["encrypted", "sent"]
    assert (bare.events, bare.start_ns) == ((), 5_000_000)


def test_a_reply_that_is_given_up_is_told_once_with_its_reason() -> None:
    told = Told()
    traces = told.traces()
    traces.reply_read(HANDLE, "cm1", "c1")
    traces.refused("cm1", "no_grant")
    traces.refused("cm1", "no_grant")
    [span] = told.spans
    assert (span.name, span.error, span.attributes["hashee.outcome"]) == ("send", "no_grant", "dead")


def test_what_nobody_traces_is_not_told_and_what_is_never_acknowledged_has_a_bound() -> None:
    told = Told()
    on, off = MessageTraces(LiveTracing(1.0, told.spans.append), most_sends=10), MessageTraces(OFF)
    assert on.reply_read(NONE, "cm", "c") == off.reply_read(HANDLE, "cm", "c") == off.arrived() == NONE
    off.acknowledged("cm", "c", SentNote(5, "h2a", "text", HANDLE), None)
    for number in range(100):
        on.reply_read(HANDLE, f"cm{number}", "c")
    assert told.spans == []
    for number in range(100):  # of those that are not kept any more nobody knows that they were traced
        on.acknowledged(f"cm{number}", "c", SentNote(5, "h2a", "text"), None)
    assert [span.attributes["messaging.message.id"] for span in told.spans] == [f"cm{n}" for n in range(90, 100)]


# In a handler


def test_a_handlers_span_takes_attributes_within_bounds_and_of_an_exception_its_type() -> None:
    span = HandlerSpan(HANDLE)
    assert span.is_recording()
    span.set_attributes({"tier": "gold", "count": 3, "ratio": 0.5, "is_new": True, "list": ["not kept"]})
    span.set_attribute("long", "x" * 10_000)
    span.record_exception(ValueError("quotes what a person wrote"))
    assert span.error == "ValueError"
    assert len(str(span.attributes.pop("long"))) == 4096
    assert span.attributes == {"tier": "gold", "count": 3, "ratio": 0.5, "is_new": True}
    for number in range(200):
        span.set_attribute(f"a{number}", number)
    assert len(span.attributes) == MOST_ATTRIBUTES
    span.is_over = True
    span.set_attribute("tier", "late")
    assert span.attributes["tier"] == "gold"
    assert not HandlerSpan(HANDLE[:-1] + "0").is_recording()


@pytest.mark.parametrize("flag", ["0", "1"])
def test_a_handlers_span_is_named_for_libraries_as_its_traceparent_names_it(flag: str) -> None:
    context = (span := HandlerSpan(HANDLE[:-1] + flag)).get_span_context()
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == (trace_id(HANDLE), span_id(HANDLE))
    assert (context.trace_flags.sampled, context.is_valid, context.is_remote) == (flag == "1", True, False)
    assert span.get_span_context() is context


def test_spans_of_ours_and_of_libraries_go_into_one_request() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    within = trace.set_span_in_context(HandlerSpan(HANDLE))
    provider.get_tracer("library").start_span("asks", context=within).end()
    attributes: dict[str, Value] = {"text": "a", "count": 2, "share": 0.5, "is_late": False}
    ours = EndedSpan(HANDLE, NONE, "handle", CONSUMER, 20, 10, attributes, "Boom", (("sent", 15),))
    body = encoder({"service.name": "s"})([*kept.get_finished_spans(), ours])
    seen = {span.name: span for span in Taken(requests=[("/v1/traces", {}, body)]).spans}
    assert seen["asks"].parent_id == seen["handle"].span_id == span_id(HANDLE)
    assert seen["asks"].trace_id == seen["handle"].trace_id
    assert seen["handle"].attributes == {**attributes, "error.type": "Boom"}
    assert (seen["handle"].is_error, seen["handle"].events, seen["handle"].end_ns) == (True, ("sent",), 20)


# Metrics


def test_otlp_is_told_what_a_scrape_shows() -> None:
    metrics = Metrics()
    metrics.inbound("h2a", "text")
    metrics.inbound("h2a", "text")
    metrics.connection_status.set(1)
    for duration in (3, 30, 300, 100_000):
        metrics.outbound("h2a", "text", duration)
    body = measurer(metrics.registry, {"service.name": "s"})()
    [resource] = ExportMetricsServiceRequest.FromString(body).resource_metrics
    found: dict[str, Metric] = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    [inbound] = found["hashee_message_inbound"].sum.data_points
    assert found["hashee_message_inbound"].sum.is_monotonic
    assert inbound.as_double == 2
    assert {label.key: label.value.string_value for label in inbound.attributes} == {
        "conv_type": "h2a",
        "payload_type": "text",
    }
    assert found["hashee_connection_status"].gauge.data_points[0].as_double == 1
    [sent] = found["hashee_send_duration_ms"].histogram.data_points
    assert (sent.count, sent.sum) == (4, 100_333)
    assert len(sent.bucket_counts) == len(sent.explicit_bounds) + 1
    assert sum(sent.bucket_counts) == 4
    assert sent.bucket_counts[-1] == 1
    shown = {family.name for family in metrics.registry.collect() if family.samples}
    assert set(found) == shown
