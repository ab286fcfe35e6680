"""Spans of a message's way, as values: which belongs under which (W3C traceparent), and what is told of each when it has ended.

A span is named by its traceparent from its beginning on: that text travels with jobs and replies, and stands in log lines. It is told
once, when it has ended, from times that were noted. `Tracing` is off; `LiveTracing` is what it is where something is sent.
"""

import os
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar

import msgspec

NONE = ""
"""Where a traceparent may stand: nobody traces this."""

CONSUMER = 5  # SpanKind of OTLP
PRODUCER = 4

Value = str | bool | int | float

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])")

current_span: ContextVar[str] = ContextVar("current_span", default=NONE)
"""The span of ours that what runs here belongs to: log lines name it."""


class EndedSpan(msgspec.Struct, frozen=True):
    """What is told of a span. `span` and `parent` are traceparents; `error`: the name of what went wrong; `events`: name and time (ns)."""

    span: str
    parent: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    error: str = ""
    events: tuple[tuple[str, int], ...] = ()


class Tracing:
    """Where nobody traces: no span is begun, and none is kept."""

    is_on = False

    def begin(self) -> str:
        """A new span at the root of a new trace; NONE where nobody traces."""
        return NONE

    def child(self, _parent: str, _span_id: str = "") -> str:
        """A new span under `parent`, with an id of 16 hexadecimal digits or a new one; NONE under none, and where nobody traces."""
        return NONE

    def tell(self, _ended: EndedSpan) -> None:
        """Keep it for the receiver; one that is not sampled is passed over."""


class LiveTracing(Tracing):
    """Begins spans, and puts those that are sampled where they are sent from. Of any thread."""

    is_on = True

    def __init__(self, ratio: float, put: Callable[[EndedSpan], None]) -> None:
        """`ratio`: the share of traces that are sampled, by their ids, as OpenTelemetry's traceidratio takes them."""
        self._below = round(ratio * (1 << 64))
        self._put = put

    def begin(self) -> str:
        """A new span at the root of a new trace."""
        trace = os.urandom(16)  # not `random`, which a handler may have seeded
        flag = int.from_bytes(trace[8:]) < self._below
        return f"00-{trace.hex()}-{os.urandom(8).hex()}-0{flag:d}"

    def child(self, parent: str, span_id: str = "") -> str:
        """A new span under `parent`; NONE under none."""
        if not parent:
            return NONE
        return f"{parent[:36]}{span_id or os.urandom(8).hex()}{parent[52:]}"

    def tell(self, ended: EndedSpan) -> None:
        """Keep it for the receiver, if it is sampled."""
        if is_sampled(ended.span):
            self._put(ended)


OFF = Tracing()


def checked(traceparent: str) -> str:
    """What came with a record: itself if it is a traceparent as we write it, else NONE."""
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else NONE


def is_sampled(traceparent: str) -> bool:
    """Whether it is told of."""
    return traceparent.endswith("1")


def trace_id(traceparent: str) -> str:
    """32 hexadecimal digits."""
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    """16 hexadecimal digits."""
    return traceparent[36:52]


def of_log_line() -> dict[str, str]:
    """What a log line says of the span that it belongs to: nothing where there is none."""
    current = current_span.get()
    return {"trace_id": trace_id(current), "span_id": span_id(current)} if current else {}
