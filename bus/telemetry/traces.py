"""The spans of a message's way as values: their parents (W3C traceparent), and what is reported of each when it has ended.

A span is named by its traceparent from its beginning: that text travels with jobs and replies, and stands in log lines. It is reported
once, when it has ended, from times that were noted. `Tracing` does nothing; `LiveTracing` is used if something is sent.
"""

import os
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar

import msgspec

NONE = ""
"""In place of a traceparent: nobody traces this."""

CONSUMER = 5  # SpanKind of OTLP
PRODUCER = 4

Value = str | bool | int | float

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])")

current_span: ContextVar[str] = ContextVar("current_span", default=NONE)
"""The span that the running task belongs to; log lines name it."""


class EndedSpan(msgspec.Struct, frozen=True):
    """A finished span. `span` and `parent` are traceparents; `error`: the name of the failure; `events`: name and time (ns)."""

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
    """Tracing that is off: no span is begun, and none is kept."""

    is_on = False

    def begin(self) -> str:
        """Returns a new span at the root of a new trace; NONE while tracing is off."""
        return NONE

    def child(self, _parent: str, _span_id: str = "") -> str:
        """Returns a span under `parent`, with this id (16 hexadecimal digits) or a new one; NONE without a parent or while it is off."""
        return NONE

    def tell(self, _ended: EndedSpan) -> None:
        """Queues a finished span for the receiver, if it is sampled."""


class LiveTracing(Tracing):
    """Begins spans and queues the sampled ones; usable from any thread."""

    is_on = True

    def __init__(self, ratio: float, put: Callable[[EndedSpan], None]) -> None:
        """`ratio`: the share of traces that are sampled, chosen by their ids like OpenTelemetry's traceidratio."""
        self._below = round(ratio * (1 << 64))
        self._put = put

    def begin(self) -> str:
        """Returns a new span at the root of a new trace."""
        drawn = os.urandom(24)  # not `random`, which a handler may have seeded
        flag = int.from_bytes(drawn[8:16]) < self._below
        ids = drawn.hex()
        return f"00-{ids[:32]}-{ids[32:]}-0{flag:d}"

    def child(self, parent: str, span_id: str = "") -> str:
        """Returns a new span under `parent`; NONE without a parent."""
        if not parent:
            return NONE
        return f"{parent[:36]}{span_id or os.urandom(8).hex()}{parent[52:]}"

    def tell(self, ended: EndedSpan) -> None:
        """Queues a finished span for the receiver, if it is sampled."""
        if is_sampled(ended.span):
            self._put(ended)


OFF = Tracing()


def checked(traceparent: str) -> str:
    """Returns the text if it is a traceparent as we write it, else NONE."""
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else NONE


def is_sampled(traceparent: str) -> bool:
    """Returns whether the span is reported."""
    return traceparent.endswith("1")


def trace_id(traceparent: str) -> str:
    """Returns the trace's id, 32 hexadecimal digits."""
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    """Returns the span's id, 16 hexadecimal digits."""
    return traceparent[36:52]


def of_log_line() -> dict[str, str]:
    """Returns the names and values that a log line gets from its span; empty if there is none."""
    current = current_span.get()
    return {"trace_id": trace_id(current), "span_id": span_id(current)} if current else {}
