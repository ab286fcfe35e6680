"""Traceparents and records: what belongs under what, which traces are told, and that nothing is written while nobody traces."""

import logging
from typing import Any

import msgspec
import pytest

from bus.records.records import (
    Reply,
    ReplyPlace,
    SentNote,
    decode_job_record,
    decode_reply_record,
    decode_sent_note,
    encode_record,
    pack_job,
    pack_reply,
    unpack_job,
)
from bus.records.sealing import StoreKeys
from bus.telemetry.traces import (
    CONSUMER,
    NONE,
    OFF,
    EndedSpan,
    LiveTracing,
    checked,
    current_span,
    is_sampled,
    of_log_line,
    span_id,
    trace_id,
)
from bus.whole.reseal import Turner
from tests.bus.builders import AGENT, BUS_KEY, message_of
from workers.process.logs import LineFormatter

pytestmark = pytest.mark.pure

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def live(ratio: float = 1.0) -> tuple[LiveTracing, list[EndedSpan]]:
    told: list[EndedSpan] = []
    return LiveTracing(ratio, told.append), told


def ended(span: str) -> EndedSpan:
    return EndedSpan(span, NONE, "receive", CONSUMER, 1, 2, {})


def test_a_child_is_of_its_parents_trace_and_has_an_id_of_its_own() -> None:
    tracing, _ = live()
    root = tracing.begin()
    child = tracing.child(root)
    assert checked(root) == root
    assert checked(child) == child
    assert trace_id(child) == trace_id(root)
    assert span_id(child) != span_id(root)
    assert tracing.child(root, "00000000000000ff").split("-")[2] == "00000000000000ff"
    assert tracing.child(NONE) == NONE


def test_a_share_of_traces_is_told_and_a_trace_as_a_whole() -> None:
    tracing, told = live(0.25)
    roots = [tracing.begin() for _ in range(2000)]
    for root in roots:
        assert is_sampled(tracing.child(root)) == is_sampled(root)
        tracing.tell(ended(root))
    assert 300 < len(told) < 700
    assert all(is_sampled(one.span) for one in told)
    for ratio in (0.0, 1.0):
        tracing, told = live(ratio)
        tracing.tell(ended(tracing.begin()))
        assert len(told) == ratio


def test_nothing_is_begun_or_told_while_it_is_off() -> None:
    assert OFF.begin() == OFF.child(TRACE) == NONE
    assert of_log_line() == {}


@pytest.mark.parametrize(
    "text", ["", "00", TRACE.upper(), TRACE.replace("00-", "01-"), TRACE + "0", "x" * 55, TRACE[:-1]]
)
def test_what_is_no_traceparent_counts_as_none(text: str) -> None:
    assert checked(text) == NONE


def test_a_log_line_of_a_worker_names_the_span_that_is_current() -> None:
    formatter = LineFormatter("w1", as_json=True, with_priority=False)

    def line() -> Any:
        return msgspec.json.decode(formatter.format(logging.makeLogRecord({"msg": "job: lost"})))

    assert "trace_id" not in line()
    token = current_span.set(TRACE)
    assert (line()["trace_id"], line()["span_id"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    current_span.reset(token)


# Records


def job_record(trace: str) -> bytes:
    return pack_job(message_of(1), seq=1, accepted_ms=2, message_ms=3, key=BUS_KEY, agent_id=AGENT, trace=trace)


def test_where_nobody_traces_records_are_to_the_byte_as_a_version_wrote_them_that_knew_no_traces() -> None:
    assert len(msgspec.msgpack.decode(job_record(""))) == 8
    at = ReplyPlace("j", "c", "0", 1)
    said = Reply(kind="message", content_type="text", payload={"text": "x"})
    assert len(msgspec.msgpack.decode(pack_reply(at, said, emitted_ms=1, key=BUS_KEY, agent_id=AGENT))) == 7
    assert encode_record(SentNote(1, "h2a", "text")) == msgspec.msgpack.encode([1, "h2a", "text"])


def test_a_trace_travels_with_a_job_a_reply_and_the_note_of_a_send() -> None:
    job = unpack_job(job_record(TRACE), entry_id="1-0", attempt=1, deliveries=1, key=BUS_KEY, agent_id=AGENT)
    assert job.trace == TRACE
    at = ReplyPlace("j", "c", "0", 1)
    said = Reply(kind="message", content_type="text", payload={"text": "x"})
    packed = pack_reply(at, said, emitted_ms=1, key=BUS_KEY, agent_id=AGENT, trace=TRACE)
    assert decode_reply_record(packed).trace == TRACE
    assert decode_sent_note(encode_record(SentNote(1, "h2a", "text", TRACE))).trace == TRACE


class FormerJob(msgspec.Struct, frozen=True, array_like=True):
    """As a version knew it that knew no traces."""

    schema: int
    job_id: str
    conversation_id: str
    seq: int
    accepted_ms: int
    message_ms: int
    sealed: bytes
    sender_id: str = ""


class FormerNote(msgspec.Struct, frozen=True, array_like=True):
    emitted_ms: int
    conversation_type: str
    payload_type: str


def test_a_former_version_passes_over_a_trace_and_what_it_wrote_is_read() -> None:
    former = msgspec.msgpack.decode(job_record(TRACE), type=FormerJob)
    assert former.job_id == decode_job_record(job_record(TRACE)).job_id
    assert decode_job_record(msgspec.msgpack.encode(former)).trace == NONE
    note = msgspec.msgpack.decode(encode_record(SentNote(1, "h2a", "text", TRACE)), type=FormerNote)
    assert decode_sent_note(msgspec.msgpack.encode(note)).trace == NONE


def test_a_trace_survives_a_new_store_secret() -> None:
    old, new = StoreKeys.derive(bytes(32)), StoreKeys.derive(bytes([1]) * 32, 1)
    packed = pack_job(message_of(1), seq=1, accepted_ms=2, message_ms=3, key=old.bus, agent_id=AGENT, trace=TRACE)
    turned = Turner(old, new, AGENT).record(packed)
    assert turned is not None
    assert decode_job_record(turned).trace == TRACE
