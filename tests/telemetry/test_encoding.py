"""What is written byte by byte is what OpenTelemetry's own definitions read, whatever stands in a span."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from bus.telemetry.encoding import PARENT_IS_KNOWN, PARENT_IS_REMOTE, SAMPLED, encoder
from bus.telemetry.traces import EndedSpan, LiveTracing, Value

pytestmark = pytest.mark.pure

TRACING = LiveTracing(1.0, lambda _: None)
NAMES = st.text(max_size=8)
TEXTS = st.one_of(NAMES, st.sampled_from(["x" * size for size in (127, 128, 300, 20_000)]))
"""Also those whose length takes two bytes and three."""
TIMES_NS = st.integers(min_value=0, max_value=2**63)
VALUES: st.SearchStrategy[Value] = st.one_of(
    TEXTS, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
)


@st.composite
def spans(draw: st.DrawFn) -> EndedSpan:
    parent = draw(st.sampled_from(["", TRACING.begin()]))
    return EndedSpan(
        TRACING.child(parent) or TRACING.begin(),
        parent,
        draw(NAMES),
        draw(st.integers(0, 5)),
        draw(TIMES_NS),
        draw(TIMES_NS),
        draw(st.dictionaries(TEXTS, VALUES, max_size=3)),
        draw(st.sampled_from(["", "ValueError"])),
        tuple(draw(st.lists(st.tuples(NAMES, TIMES_NS), max_size=2))),
    )


def value_of(read: AnyValue) -> object:
    return getattr(read, str(read.WhichOneof("value")))


@given(st.lists(spans(), max_size=2))
def test_whatever_is_in_a_span_is_read_as_it_was_told(told: list[EndedSpan]) -> None:
    request = ExportTraceServiceRequest.FromString(encoder({"service.name": "an agent"})(told))
    [resource] = request.resource_spans
    assert [(one.key, value_of(one.value)) for one in resource.resource.attributes] == [("service.name", "an agent")]
    [scope] = resource.scope_spans
    assert scope.scope.name == "hashee-agent"
    for read, span in zip(scope.spans, told, strict=True):
        _, trace, own, _ = span.span.split("-")
        assert (read.trace_id.hex(), read.span_id.hex()) == (trace, own)
        assert read.parent_span_id.hex() == (span.parent.split("-")[2] if span.parent else "")
        assert read.flags == SAMPLED | PARENT_IS_KNOWN | (PARENT_IS_REMOTE if span.parent else 0)
        assert (read.name, read.kind, read.start_time_unix_nano) == (span.name, span.kind, span.start_ns)
        assert read.end_time_unix_nano == max(span.start_ns, span.end_ns)
        error = [("error.type", span.error)] if span.error else []
        assert [(one.key, value_of(one.value)) for one in read.attributes] == [*span.attributes.items(), *error]
        assert all(type(value_of(one.value)) is type(span.attributes.get(one.key, "")) for one in read.attributes)
        assert [(one.name, one.time_unix_nano) for one in read.events] == list(span.events)
        assert read.status.code == (2 if span.error else 0)


def test_equal_values_of_other_types_are_written_each_as_its_own() -> None:
    encode = encoder({})
    for value in (True, 1, 1.0, False, 0, 0.0, True):
        span = EndedSpan(TRACING.begin(), "", "handle", 5, 1, 2, {"value": value})
        [read] = (
            ExportTraceServiceRequest.FromString(encode([span])).resource_spans[0].scope_spans[0].spans[0].attributes
        )
        assert type(value_of(read.value)) is type(value)
        assert value_of(read.value) == value


def test_numbers_that_are_none_are_written_too() -> None:
    span = EndedSpan(TRACING.begin(), "", "handle", 5, 1, 2, {"nan": math.nan, "inf": -math.inf})
    request = ExportTraceServiceRequest.FromString(encoder({})([span]))
    nan, inf = [value_of(one.value) for one in request.resource_spans[0].scope_spans[0].spans[0].attributes]
    assert isinstance(nan, float)
    assert math.isnan(nan)
    assert inf == -math.inf
