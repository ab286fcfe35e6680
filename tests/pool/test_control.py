"""The small language on the pipe."""

import pytest

from bus.control import (
    MAX_LINE_BYTES,
    BadControlMessage,
    Crashed,
    Drain,
    Drained,
    DumpStacks,
    FromWorker,
    Heartbeat,
    Lines,
    Observation,
    Ready,
    RunningJob,
    Stacks,
    StartFailed,
    Stop,
    decode_from_worker,
    decode_to_worker,
    encode,
)

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


def test_each_message_survives_the_pipe_in_any_cut() -> None:
    data = b"".join(encode(message) for message in FROM_WORKER)
    lines = Lines()
    read = [decode_from_worker(line) for index in range(len(data)) for line in lines.feed(data[index : index + 1])]
    assert read == FROM_WORKER
    assert [decode_to_worker(encode(message)) for message in (Drain(), DumpStacks(), Stop())] == [
        Drain(),
        DumpStacks(),
        Stop(),
    ]


@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"type":"drain"}', b"not json", b'{"type":"drained","handed_back":"x"}']
)
def test_what_is_no_message_of_a_worker_is_refused_without_being_quoted(line: bytes) -> None:
    with pytest.raises(BadControlMessage) as caught:
        decode_from_worker(line)
    assert not line or line.decode() not in str(caught.value)


def test_a_line_without_an_end_is_refused() -> None:
    with pytest.raises(BadControlMessage):
        Lines().feed(b"x" * (MAX_LINE_BYTES + 1))
