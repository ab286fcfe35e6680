"""The lines between processes: what another release or a damaged line says is passed over, counted, and said once."""

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.control.messages import Request
from bus.records.control import (
    Crashed,
    Drain,
    Drained,
    DumpStacks,
    FromWorker,
    Heartbeat,
    Observation,
    Ready,
    RunningJob,
    Stacks,
    StartFailed,
    Stop,
    ToWorker,
    encode,
    from_worker,
    to_worker,
)
from host.lines import LINE_LIMIT_BYTES, MOST_TAGS_SAID, NO_TAG, TOO_LONG, LineReader, Lines, UnreadableLine
from supervisor.control.keeper_link import (
    FromSupervisor,
    NumberedAnswer,
    NumberedRequest,
    ReportedState,
    from_supervisor,
    order,
    question_line,
)
from supervisor.control.keeper_link import encode as encode_state

pytestmark = pytest.mark.pure

FROM_WORKER: list[FromWorker] = [
    Ready(handler="m:a", pid=1, python="3.11.2", concurrency=16, policies={"order": "queue"}),
    Heartbeat(loop_lag_ms=None, running=(RunningJob("1-0", "job", 5),), rss_bytes=9, jobs_done=1, jobs_failed=2),
    Observation(metric="m", labels={"model": "x"}, value=1.5),
    StartFailed(kind="import", exception="KeyError", file="a.py", line=3, last_line="KeyError: 'x'"),
    Crashed(exception="KeyError", at="a.py:1"),
    Stacks(text="thread\n  a.py:1 f"),
    Drained(handed_back=2),
]
TO_WORKER: list[ToWorker] = [Drain(), DumpStacks(), Stop()]
FROM_SUPERVISOR: list[FromSupervisor] = [ReportedState("ready", "2 workers"), NumberedAnswer(7, msgspec.Raw(b"{}"))]

# What a newer, an older or a damaged other end may say, and by which tag it is told.
STRANGE = {
    b'{"type":"of_tomorrow","x":{"y":[1,2]}}': "of_tomorrow",
    b'{"type":"state"}': "state",
    b'{"type":"heartbeat"}': "heartbeat",
    b'{"type":"drained","handed_back":"two"}': "drained",
    b'{"type":5}': NO_TAG,
    b'{"type":"\\u0000 a secret"}': NO_TAG,
    b'{"type":"' + b"x" * 1000 + b'"}': NO_TAG,
    b"{}": NO_TAG,
    b"not json": NO_TAG,
    b"\xff\xfe\x00": NO_TAG,
    b'{"type":"\xff"}': NO_TAG,
    b'{"type":"state","state":"\xff"}': "state",
    b'{"type":"heartbeat","running":[["1-0","\xff",5]]}': "heartbeat",
    b"[" * 100_000: NO_TAG,
    b'{"type":"state","state":' + b"[" * 50_000: NO_TAG,
    b'{"type":"state","x":1e999999,"state":1}': "state",
}


class Reading:
    """A line that is read, with what it said was passed over."""

    def __init__(self, decode: object = from_worker) -> None:
        self.said: list[str] = []
        self.reader: LineReader[object] = LineReader(decode, self.said.append)  # type: ignore[arg-type]  # one of ours


@pytest.mark.parametrize(
    ("decode", "encoded", "messages"),
    [
        (from_worker, [encode(message) for message in FROM_WORKER], FROM_WORKER),
        (to_worker, [encode(message) for message in TO_WORKER], TO_WORKER),
        (from_supervisor, [encode_state(message) for message in FROM_SUPERVISOR], FROM_SUPERVISOR),
    ],
)
def test_each_message_survives_its_line_in_any_cut(
    decode: object, encoded: list[bytes], messages: list[object]
) -> None:
    data = b"".join(encoded)
    read = Reading(decode)
    assert [one for index in range(len(data)) for one in read.reader.feed(data[index : index + 1])] == messages
    assert Reading(decode).reader.feed(data) == messages
    assert read.said == []


def test_what_the_keeper_says_is_an_order() -> None:
    question = Request("status", wait=True)
    data = f"drain\nretire\nsignal SIGHUP\n{question_line(3, question)}\n".encode()
    assert Reading(order).reader.feed(data)[-1] == NumberedRequest(3, question)
    strange = b"dance\nsignal SIGKILL\nask\nask x {}\nask 4 {}\nask 5 nonsense\nask 99999999999999999999 {}\n \xff\n"
    read = Reading(order)
    assert read.reader.feed(strange + b"drain\n") == ["drain"]
    assert (read.said, read.reader.passed_over) == (["dance", "signal", "ask", NO_TAG], 8)


@pytest.mark.parametrize("decode", [from_worker, to_worker, from_supervisor, order])
@pytest.mark.parametrize("line", STRANGE)
def test_a_strange_line_costs_itself_and_nothing_else(decode: object, line: bytes) -> None:
    good = {
        id(from_worker): encode(Drained(handed_back=2)),
        id(to_worker): encode(Drain()),
        id(from_supervisor): encode_state(ReportedState("pulse")),
        id(order): b"drain\n",
    }[id(decode)]
    read = Reading(decode)
    assert len(read.reader.feed(good + line + b"\n" + line + b"\n" + good)) == 2
    assert read.reader.passed_over == 2
    assert read.said == ["not" if line == b"not json" else NO_TAG] if decode is order else [STRANGE[line]]


def test_a_further_field_of_a_newer_release_is_left_out() -> None:
    read = Reading()
    assert read.reader.feed(b'{"type":"drained","handed_back":2,"reason":"of tomorrow"}\n') == [Drained(handed_back=2)]
    assert read.said == []


def test_an_older_release_may_leave_out_what_was_added_since() -> None:
    beat = b'{"type":"heartbeat","loop_lag_ms":1,"running":[],"rss_bytes":1,"jobs_done":0,"jobs_failed":0}\n'
    assert len(Reading().reader.feed(beat)) == 1


def test_each_tag_is_said_once_and_not_endlessly_many_are() -> None:
    read = Reading()
    for number in range(1000):
        read.reader.feed(b'{"type":"tag_%s"}\n' % bytes([97 + number % 26, 97 + number // 26 % 26]) * 2)
    assert read.reader.passed_over == 2000
    assert len(read.said) == len(set(read.said)) == MOST_TAGS_SAID


def test_nothing_of_a_line_is_told_but_a_tag_that_is_a_word() -> None:
    with pytest.raises(UnreadableLine) as caught:
        from_worker(b'{"type":"hello, this is content","handler":"a secret"}')
    assert str(caught.value) == NO_TAG


def test_a_line_of_100_mb_is_thrown_away_as_it_comes_and_the_next_one_is_heard() -> None:
    read, piece = Reading(), b"x" * (1 << 20)
    tracemalloc.start()
    for _ in range(100):
        assert read.reader.feed(piece) == []
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.reader.feed(b'tail\n{"type":"drained","handed_back":1}\n') == [Drained(handed_back=1)]
    assert (read.said, read.reader.passed_over) == ([TOO_LONG], 1)
    assert most < 6 << 20


def test_the_longest_line_is_a_line_and_one_byte_more_is_not() -> None:
    lines = Lines()
    assert lines.feed(b"x" * LINE_LIMIT_BYTES + b"\n") == [b"x" * LINE_LIMIT_BYTES]
    assert lines.feed(b"x" * (LINE_LIMIT_BYTES + 1) + b"\ny\n") == [b"y"]
    assert lines.too_long == 1


def test_half_a_line_waits_for_its_other_half() -> None:
    read = Reading()
    assert read.reader.feed(b'{"type":"drained","han') == []
    assert read.said == []
    assert read.reader.feed(b'ded_back":3}\n') == [Drained(handed_back=3)]


@given(st.lists(st.binary(max_size=30)), st.integers(1, 12))
def test_any_cut_of_any_bytes_gives_the_same_lines(pieces: list[bytes], limit: int) -> None:
    whole, cut = Lines(limit), Lines(limit)
    data = b"".join(pieces)
    expected = [line for line in data.split(b"\n")[:-1] if 0 < len(line) <= limit]
    assert whole.feed(data) == expected
    assert [line for piece in pieces for line in cut.feed(piece)] == expected
    assert whole.too_long == cut.too_long
