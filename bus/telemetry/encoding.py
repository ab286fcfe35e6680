"""Encodes spans as a request of OTLP. Ours are written byte by byte, for a tenth of the cost of OpenTelemetry's encoder; the owner's go through it.

Imports OpenTelemetry, so it is imported only if something is sent. The numbers of the fields are those of opentelemetry/proto/trace/v1/trace.proto.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status

from bus.telemetry.traces import EndedSpan, Value, span_id, trace_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

SCOPE = "hashee-agent"
SAMPLED = 1
PARENT_IS_KNOWN = 0x100  # flag of OTLP: it is known whether the parent is of another process
PARENT_IS_REMOTE = 0x200
MOST_HEADS = 1024  # so many parts that come again (names, small numbers, what stands before a text) are made once

# The key of a field, for a value that has a length: number << 3 | 2.
RESOURCE_SPANS = b"\x0a"  # of a request
SCOPE_SPANS = b"\x12"  # of resource spans
SPAN = b"\x12"  # of scope spans
PARENT_SPAN_ID, NAME, ATTRIBUTE, EVENT = b"\x22", b"\x2a", b"\x4a", b"\x5a"
TIME, TIME_BYTES, EVENT_NAME = b"\x09", 8, b"\x12"  # of an event
STATUS_ERROR = bytes((0x7A, 2, 0x18, Status.STATUS_CODE_ERROR))
KEY, VALUE = b"\x0a", b"\x12"  # of an attribute
STRING, BOOL, INT, DOUBLE = b"\x0a", b"\x10", b"\x18", b"\x21"  # of its value
_IDS = struct.Struct("<2s16s2s8s")  # trace_id and span_id, with their keys and lengths
_TIMES = struct.Struct("<BBBQBQ2sI")  # kind, start, end, flags
_DOUBLE = struct.Struct("<d")


def resource_of(attributes: Mapping[str, str]) -> Resource:
    """Returns OTLP's description of this process."""
    return Resource(attributes=[_pair(name, value) for name, value in attributes.items()])


def encoder(attributes: Mapping[str, str]) -> "Callable[[Sequence[EndedSpan | ReadableSpan]], bytes]":
    """Returns a function that encodes spans as a request; `attributes` describe this process."""
    resource = bytes(ResourceSpans(resource=resource_of(attributes)).SerializeToString())
    scope = bytes(ScopeSpans(scope=InstrumentationScope(name=SCOPE)).SerializeToString())

    def encode(spans: "Sequence[EndedSpan | ReadableSpan]") -> bytes:
        ours = b"".join([_field(SPAN, _bytes_of(span)) for span in spans if isinstance(span, EndedSpan)])
        request = _field(RESOURCE_SPANS, resource + _field(SCOPE_SPANS, scope + ours))
        theirs = [span for span in spans if not isinstance(span, EndedSpan)]
        if theirs:
            # A second large import, which a supervisor never needs.
            from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # noqa: PLC0415

            request += bytes(encode_spans(theirs).SerializeToString())  # two requests behind each other are one
        return request

    return encode


def _bytes_of(span: EndedSpan) -> bytes:
    """Returns a span as protobuf has it."""
    flags, parent = SAMPLED | PARENT_IS_KNOWN, b""
    if span.parent:
        flags |= PARENT_IS_REMOTE
        parent = _field(PARENT_SPAN_ID, bytes.fromhex(span_id(span.parent)))
    both = bytes.fromhex(trace_id(span.span) + span_id(span.span))
    ids = _IDS.pack(b"\x0a\x10", both[:16], b"\x12\x08", both[16:])
    end_ns = max(span.start_ns, span.end_ns)  # a clock may be set back
    times = _TIMES.pack(0x30, span.kind, 0x39, span.start_ns, 0x41, end_ns, b"\x85\x01", flags)
    told = [_attribute(name, value) for name, value in span.attributes.items()]
    for name, at_ns in span.events:
        before, after = _around_time(name)
        told.append(before + at_ns.to_bytes(8, "little") + after)
    if span.error:
        told += [_attribute("error.type", span.error), STATUS_ERROR]
    return b"".join((ids, parent, _name(span.name), times, *told))


def _attribute(name: str, value: Value) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return _before_text(name, len(text)) + text
    if isinstance(value, float):
        return _field(ATTRIBUTE, _field(KEY, name.encode()) + _field(VALUE, DOUBLE + _DOUBLE.pack(value)))
    return _whole_number(name, value)


@lru_cache(MOST_HEADS, typed=True)  # True and 1 are equal, and are not written alike
def _whole_number(name: str, value: int) -> bytes:
    """Returns an attribute that is a number or a bool; those of ours are few and small."""
    packed = BOOL + bytes((value,)) if isinstance(value, bool) else INT + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    return _field(ATTRIBUTE, _field(KEY, name.encode()) + _field(VALUE, packed))


@lru_cache(MOST_HEADS)
def _name(name: str) -> bytes:
    return _field(NAME, name.encode())


@lru_cache(MOST_HEADS)
def _around_time(event: str) -> tuple[bytes, bytes]:
    """Returns what stands before and behind the time of an event with this name."""
    whole = _field(EVENT, TIME + bytes(TIME_BYTES) + _field(EVENT_NAME, event.encode()))
    at = whole.index(TIME + bytes(TIME_BYTES)) + len(TIME)
    return whole[:at], whole[at + TIME_BYTES :]


@lru_cache(MOST_HEADS)
def _before_text(name: str, size: int) -> bytes:
    """Returns what stands before the text of an attribute with this name and so many bytes of text."""
    whole = _field(ATTRIBUTE, _field(KEY, name.encode()) + _field(VALUE, _field(STRING, bytes(size))))
    return whole[: len(whole) - size]


def _field(key: bytes, value: bytes) -> bytes:
    """Returns a field whose value has a length."""
    size = len(value)
    return key + (_ONE_BYTE[size] if size < len(_ONE_BYTE) else _varint(size)) + value


_ONE_BYTE = tuple(bytes((number,)) for number in range(128))


def _varint(number: int) -> bytes:
    packed = bytearray()
    while number > 0x7F:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)
    return bytes(packed)


def _pair(name: str, value: str) -> KeyValue:
    pair = KeyValue(key=name)
    pair.value.string_value = value
    return pair
