"""Lines of a log: no reader, or one that stalls, costs lines and nobody's time; how many is said; the last ones are not lost."""

import io
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pytest

from host.log_stream import (
    LINES_LOST,
    LogQueue,
    NullDeviceUnusable,
    beside,
    check_null_device,
    drain_streams,
    log_stream,
    pipe_to_stderr,
    queue_of,
)

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 10.0


def until(condition: Callable[[], object]) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while not condition():
        assert monotonic() < deadline
        sleep(0.005)


def read_until(descriptor: int, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0], found[-200:]
        piece = os.read(descriptor, 65536)
        assert piece, found[-200:]
        found += piece
    return found


def test_lines_come_out_whole_and_in_order() -> None:
    reading, writing = os.pipe()
    stream = log_stream(writing)
    for number in range(1000):
        print("line", number, file=stream)
    wanted = "".join(f"line {number}\n" for number in range(1000)).encode()
    assert read_until(reading, b"line 999\n") == wanted


def test_a_reader_that_stalls_holds_nobody_up_and_hears_how_many_lines_it_missed_in_their_place() -> None:
    reading, writing = os.pipe()
    queue = LogQueue(writing, most_waiting_bytes=200_000)
    before = monotonic()
    for number in range(1000):
        queue.write(b"%0999d\n" % number)
    assert monotonic() - before < PATIENCE_SECONDS
    assert queue.lost >= 1000 - 200 - 64 - 1
    kept = told = 0
    buffered = b""
    while (
        kept + told < 1000
    ):  # the thread may get its turn in the middle of the writing: then there are two places, or more
        *lines, buffered = (buffered + read_until(reading, b"\n")).split(b"\n")
        for line in lines:
            if line.startswith(b"["):
                told += int(line.removeprefix(f"[hashee] warning: {LINES_LOST} lines=".encode()))
            else:
                assert int(line) <= kept + told, "what was lost before it is told before it"
                kept += 1
    assert (kept, told, buffered) == (1000 - queue.lost, queue.lost, b"")
    queue.write(b"and on it goes\n")
    assert read_until(reading, b"\n") == b"and on it goes\n"


def test_the_loss_is_told_before_the_next_line_that_is_kept() -> None:
    reading, writing = os.pipe()
    queue = LogQueue(writing, most_waiting_bytes=105_000)
    while not queue.lost:
        queue.write(b"y" * 9_999 + b"\n")
    queue.write(b"short enough to be kept\n")
    heard = read_until(reading, b"kept\n")
    assert heard.index(LINES_LOST.encode()) < heard.index(b"short enough")


def test_a_reader_that_is_gone_costs_lines_and_a_new_one_hears_how_many(tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    queue = LogQueue(os.open(fifo, os.O_WRONLY))
    os.close(reading)
    for _ in range(3):
        queue.write(b"nobody hears this\n")
    assert queue.drain(PATIENCE_SECONDS)
    assert queue.lost == 3
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    queue.write(b"somebody hears this\n")
    assert b"lines=3\n" in read_until(reading, b"lines=3\n")


def test_a_descriptor_that_somebody_made_non_blocking_loses_nothing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    queue = LogQueue(writing)
    data = b"".join(b"%06d\n" % number for number in range(70_000))
    queue.write(data)
    assert read_until(reading, b"069999\n") == data


def test_a_drain_is_bounded_where_nobody_reads() -> None:
    _, writing = os.pipe()
    queue = LogQueue(writing)
    queue.write(b"x" * 200_000)
    before = monotonic()
    assert not queue.drain(0.05)
    assert monotonic() - before < PATIENCE_SECONDS


def test_threads_and_a_signal_handler_write_at_once_and_nothing_is_torn() -> None:
    reading, writing = os.pipe()
    queue = LogQueue(writing, most_waiting_bytes=1 << 24)
    old = signal.signal(signal.SIGALRM, lambda *_: queue.write(b"s" * 50 + b"\n") and None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(read_until(reading, b"end\n")))
    reader.start()
    try:

        def write(mark: bytes) -> None:
            for _ in range(2000):
                queue.write(mark * 50 + b"\n")

        threads = [threading.Thread(target=write, args=(mark,)) for mark in (b"a", b"b", b"c")]
        for thread in threads:
            thread.start()
        write(b"d")
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    queue.write(b"end\n")
    reader.join(PATIENCE_SECONDS)
    lines = heard[0].splitlines()[:-1]
    assert all(len(line) == 50 and len(set(line)) == 1 for line in lines)
    assert [lines.count(mark * 50) for mark in (b"a", b"b", b"c", b"d")] == [2000] * 4
    assert queue.lost == 0


def test_a_signal_handler_that_writes_while_the_thread_is_being_started_starts_no_second_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    queue = LogQueue(writing)
    really_start = threading.Thread.start
    started = list[threading.Thread]()

    def start(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 1:
            signal.raise_signal(signal.SIGALRM)
        really_start(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    old = signal.signal(signal.SIGALRM, lambda *_: queue.write(b"of the handler\n") and None)
    try:
        queue.write(b"of the program\n")
    finally:
        signal.signal(signal.SIGALRM, old)
    queue.write(b"end\n")
    assert read_until(reading, b"end\n") == b"of the program\nof the handler\nend\n"
    assert len(started) == 1


def test_signals_in_the_midst_of_the_first_lines_leave_every_order_as_it_was() -> None:
    for attempt in range(100):
        reading, writing = os.pipe()
        queue = LogQueue(writing)
        old = signal.signal(signal.SIGALRM, lambda *_, queue=queue: queue.write(b"s\n") and None)
        signal.setitimer(signal.ITIMER_REAL, 0.000005 * (attempt + 1))  # one, each time a little later
        try:
            for number in range(20):
                queue.write(b"%d\n" % number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        queue.write(b"end\n")
        lines = read_until(reading, b"end\n").split()
        assert [line for line in lines if line != b"s"] == [b"%d" % number for number in range(20)] + [b"end"]
        os.close(reading)


def test_where_no_thread_can_be_started_the_lines_go_out_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reading, writing = os.pipe()
    queue = LogQueue(writing)
    queue.write(b"the first\n")
    queue.write(b"the second\n")
    assert read_until(reading, b"second\n") == b"the first\nthe second\n"


def test_a_long_line_at_the_end_waits_for_nobody_even_if_its_beginning_has_room() -> None:
    reading, writing = os.pipe()
    queue = LogQueue(writing)
    queue.end(PATIENCE_SECONDS)
    room = 3 * select.PIPE_BUF
    os.set_blocking(writing, False)
    while select.select([], [writing], [], 0)[1]:
        os.write(writing, b"." * select.PIPE_BUF)
    os.set_blocking(writing, True)
    os.read(reading, room)
    last = threading.Thread(target=queue.write, args=(b"x" * 99_999 + b"\n",), daemon=True)
    last.start()
    last.join(PATIENCE_SECONDS)
    assert not last.is_alive()
    assert queue.lost == 1


def program(text: str, **streams: int) -> subprocess.Popen[bytes]:
    start = "from host.log_stream import *; import os, sys; divert_stderr(); divert_stdout(); "
    return subprocess.Popen([sys.executable, "-c", start + text], cwd=ROOT, **streams)  # type: ignore[call-overload,no-any-return]


def test_the_last_words_of_a_process_are_not_lost_nor_the_traceback_of_its_crash() -> None:
    ended = program("print('x' * 300_000); print('last'); 1 / 0", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = ended.communicate(timeout=PATIENCE_SECONDS)
    assert out.endswith(b"x\nlast\n")
    assert b"ZeroDivisionError" in err
    assert ended.returncode == 1


def test_a_process_whose_log_nobody_reads_ends_all_the_same_and_with_its_own_status() -> None:
    _, stalled = os.pipe()
    gone_reader, gone = os.pipe()
    os.close(gone_reader)
    for descriptor in (stalled, gone):
        ended = program("[print('x' * 99_999) for _ in range(30)]; sys.exit(7)", stdout=descriptor, stderr=descriptor)
        assert ended.wait(PATIENCE_SECONDS) == 7


def test_the_child_of_a_fork_is_heard_too() -> None:
    text = "print('parent', flush=True)\nif os.fork() == 0: print('child'); os._exit(0)\nos.wait()"
    done = program("exec(" + repr(text) + ")", stdout=subprocess.PIPE)
    out, _ = done.communicate(timeout=PATIENCE_SECONDS)
    assert sorted(out.split()) == [b"child", b"parent"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_dev_null_so_that_no_file_gets_their_number(closed: str, tmp_path: Path) -> None:
    text = (
        "from host.entrance import open_standard_streams; from host.log_stream import *; open_standard_streams(); divert_stderr(); import sys; "
        f"number = open({str(tmp_path / 'file')!r}, 'w').fileno(); print('to nobody', file=sys.stderr); "
        "print('out'); print(len(sys.stdin.readline()), file=sys.stderr); sys.exit(number)"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, text],
        check=False,
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 3


STACKS_AT_SIGQUIT = (
    "import os, signal, socket, sys, time\n"
    "from workers.process.last_words import divert_streams, dump_on_signals\n"
    "dump_on_signals(None)\n"
    "divert_streams(None)\n"
    "os.set_blocking(2, False)\n"
    "try:\n"
    "    while FILLS: os.write(2, b'#' * 65536)\n"
    "except BlockingIOError: pass\n"
    "try:\n"
    "    while FILLS: os.write(2, b'#')\n"
    "except BlockingIOError: pass\n"
    "os.set_blocking(2, True)\n"
    "os.kill(os.getpid(), signal.SIGQUIT)\n"
    "print('goes on', flush=True)\n"
    "sys.stdin.read()\n"
    "os._exit(3)\n"
)


@pytest.mark.parametrize("is_full", [True, False])
@pytest.mark.parametrize("make", [os.pipe, lambda: tuple(one.detach() for one in socket.socketpair())])
def test_stacks_at_sigquit_hold_a_process_up_in_no_case_and_come_where_they_are_read(
    make: Callable[[], tuple[int, int]], is_full: bool
) -> None:
    reading, writing = make()
    text = STACKS_AT_SIGQUIT.replace("FILLS", str(is_full))
    process = subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writing
    )
    try:
        os.close(writing)
        assert process.stdin is not None
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"goes on")
        if not is_full:
            read_until(reading, b"most recent call first")
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 3
    finally:
        process.kill()
        process.communicate()
        os.close(reading)


def test_what_is_written_into_a_pipe_to_stderr_goes_through_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, log = os.pipe()
    monkeypatch.setattr(sys, "stderr", log_stream(log))
    writing = pipe_to_stderr()
    assert not os.get_blocking(writing)
    os.write(writing, b'  File "x.py", line 3\n\xff no text\n')
    os.close(writing)
    assert read_until(reading, b"no text\n") == '  File "x.py", line 3\n\ufffd no text\n'.encode()


def test_only_a_stream_of_ours_has_a_queue(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w", encoding="utf-8") as file:
        assert queue_of(file) is None
    _, writing = os.pipe()
    assert isinstance(queue_of(log_stream(writing)), LogQueue)
    assert queue_of(partial(print)) is None


@pytest.mark.parametrize("deed", ["close", "detach", "wrap and collect"])
def test_what_foreign_code_does_to_a_stream_stops_no_other_over_its_queue(
    deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, log = os.pipe()
    stream = log_stream(log)
    monkeypatch.setattr(sys, "stderr", stream)
    ours = beside(stream)
    match deed:
        case "close":
            stream.close()
        case "detach":
            stream.detach()
        case _:
            io.TextIOWrapper(stream.buffer, encoding="latin-1").close()
    ours.write("a line\n")
    drain_streams()
    assert read_until(reading, b"line\n") == b"a line\n"


def test_a_null_device_that_is_none_is_said_with_its_remedy(tmp_path: Path) -> None:
    check_null_device()
    (tmp_path / "null").touch()
    for name in ("null", "missing"):
        with pytest.raises(NullDeviceUnusable, match=f"{tmp_path / name} is no device: mknod -m 666"):
            check_null_device(str(tmp_path / name))


def test_a_null_device_that_this_user_may_not_write_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.F_OK)
    with pytest.raises(NullDeviceUnusable, match="/dev/null can not be read and written by this user: chmod 666"):
        check_null_device()
