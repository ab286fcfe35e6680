"""Writes a process' log through a queue and a thread, so that a reader who is gone or stalls never blocks who writes a line.

A line that finds the queue full is lost without an error; how many were lost is said in the log itself as soon as it takes something
again. Nothing here knows what a line looks like or says.
"""

import atexit
import io
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn, TextIO, cast

from host import proc

MOST_WAITING_BYTES = 1 << 20
"""Thousands of lines: what comes while a reader stalls for a moment is kept, and a process' memory is bounded."""

LAST_WORDS_SECONDS = 1.0
"""How long a process waits at its end for its last lines to be read."""

DIRECT_WRITE_SECONDS = 0.1

LINES_LOST = "log: lines were lost, its reader was gone or too slow"

Item = bytes | threading.Event | None
"""An item of the queue: a line; an event to be set when all lines before it are written; None where lines were lost."""


def lost_line(count: int) -> str:
    """Returns the line about `count` lost lines, where the log's own format is not set."""
    return f"[hashee] warning: {LINES_LOST} lines={count}"


class LogQueue(io.BufferedIOBase):
    """The binary stream under a log's text stream. Any thread may write to it, and a signal handler in the middle of a write."""

    def __init__(self, descriptor: int, most_waiting_bytes: int = MOST_WAITING_BYTES) -> None:
        super().__init__()
        self.tell_lost: Callable[[int], str] = lost_line
        """Makes the line that tells how many lines were lost."""
        self.lost = 0
        """How many lines were lost since the start."""
        self._descriptor = descriptor
        self._most_waiting_bytes = most_waiting_bytes
        self._arrived: deque[bytes] = deque()
        self._queue: SimpleQueue[Item] = SimpleQueue()
        self._lock = threading.RLock()
        self._admits = 0
        self._thread: threading.Thread | None = None
        self._waiting_bytes = 0
        self._untold = 0
        self._is_direct = False
        os.register_at_fork(after_in_child=self._begin_in_child)

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The descriptor that the lines go to in the end."""
        return self._descriptor

    def isatty(self) -> bool:
        """Returns whether they go to a terminal."""
        return os.isatty(self._descriptor)

    def close(self) -> None:
        """Does nothing: others write here too when one text stream over it is closed, or collected."""

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]  # what a text stream gives
        """Puts `data` into the queue, or loses it if the queue is full. Never waits, never raises."""
        item = bytes(data)
        self._arrived.append(item)
        self._admit_all()
        return len(item)

    def drain(self, within_seconds: float) -> bool:
        """Waits at most so long; returns True if everything written before is out, or lost."""
        if self._is_direct or self._thread is None:
            return True
        passed = threading.Event()
        self._queue.put(passed)
        return passed.wait(within_seconds)

    def end(self, within_seconds: float) -> None:
        """Drains; what is written later is written directly, if the descriptor takes it at once."""
        self.drain(within_seconds)
        with self._lock:  # who is writing now still gets into the queue
            is_served, self._is_direct = self._thread is not None and not self._is_direct, True
        if is_served and self._queue.qsize():
            self._queue.put(passed := threading.Event())
            passed.wait(within_seconds)

    def _admit_all(self) -> None:
        """Moves what was written into the queue; only one caller does this at a time.

        A signal handler may write in the middle of this on the same thread: then the interrupted caller moves its lines too. So counts
        are changed and the thread is started only once, whatever comes between.
        """
        me = threading.get_ident()
        while self._arrived and self._admits != me:
            with self._lock:
                self._admits = me
                try:
                    while self._arrived:
                        self._admit(self._arrived.popleft())
                finally:
                    self._admits = 0

    def _admit(self, item: bytes) -> None:
        if self._is_direct:
            self._write_directly(item)
        elif self._waiting_bytes + len(item) > self._most_waiting_bytes:
            self._lose(item)
        else:
            self._waiting_bytes += len(item)
            if self._untold:
                self._queue.put(None)
            self._queue.put(item)
            if self._thread is None or not self._thread.is_alive():
                self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be started (any more)
            self._is_direct = True
            while not self._queue.empty():
                if isinstance(item := self._queue.get(), bytes):
                    self._write_directly(item)

    def _begin_in_child(self) -> None:
        """Has a forked child write directly: it has no thread, nobody holds its lock, and what is queued is the parent's to write."""
        self._is_direct = True
        self._lock, self._admits = threading.RLock(), 0
        self._arrived.clear()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, bytes):
                has_left = self._write_all(item)
                with self._lock:
                    self._waiting_bytes -= len(item)
                    if not has_left:
                        self._lose(item)
                if has_left and self._queue.empty():
                    self._tell_lost()
            else:
                self._tell_lost()
                if item is not None:
                    item.set()

    def _tell_lost(self) -> None:
        untold = self._untold
        if untold and self._write_all(self.tell_lost(untold).encode(errors="backslashreplace") + b"\n"):
            with self._lock:
                self._untold -= untold

    def _write_all(self, data: bytes) -> bool:
        """Writes all of `data`, however long that takes; returns False if the reader is gone."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # another process that shares the descriptor has made it non-blocking
                _wait_writable(self._descriptor, None)
            except OSError:
                return False
        return True

    def _write_directly(self, data: bytes) -> None:
        """Writes pieces that a writable pipe takes at once, and stops at the first that it does not: a stalled reader blocks nobody."""
        for start in range(0, len(data), select.PIPE_BUF):
            piece = data[start : start + select.PIPE_BUF]
            if not (_wait_writable(self._descriptor, DIRECT_WRITE_SECONDS) and self._write_all(piece)):
                self._lose(data)
                return

    def _lose(self, item: bytes) -> None:
        lines = item.count(b"\n")
        self.lost += lines
        self._untold += lines


def log_stream(descriptor: int, encoding: str = "utf-8") -> io.TextIOWrapper:
    """Returns a text stream to the descriptor that never waits and never raises, flushed line by line."""
    return _over(LogQueue(descriptor), encoding)


def _over(queue: LogQueue, encoding: str) -> io.TextIOWrapper:
    below = cast(io.BufferedWriter, queue)  # a text stream asks no more of it than it has
    return io.TextIOWrapper(below, encoding=encoding, errors="backslashreplace", line_buffering=True)


def queue_of(stream: object) -> LogQueue | None:
    """Returns the queue under a text stream; None if the stream is not one of ours."""
    try:
        found = getattr(stream, "buffer", None)
    except ValueError:  # it was detached from what is under it
        return None
    return found if isinstance(found, LogQueue) else None


def beside(stream: TextIO) -> TextIO:
    """Returns another text stream over the same queue, which stays open when `stream` is closed; `stream` itself if it has no queue of ours."""
    queue = queue_of(stream)
    return stream if queue is None else _over(queue, stream.encoding)


def divert_stderr(descriptor: int = 2) -> None:
    """Sends `sys.stderr` through a queue from now on; what waits in it is written when the process ends."""
    sys.stderr = sys.__stderr__ = log_stream(descriptor, sys.stderr.encoding)  # type: ignore[misc]  # it is what it was, elsewhere
    atexit.register(_end_streams)


def divert_stdout(descriptor: int = 1) -> None:
    """Sends `sys.stdout` through a queue from now on; call `divert_stderr` too."""
    sys.stdout = sys.__stdout__ = log_stream(descriptor, sys.stdout.encoding)  # type: ignore[misc]  # likewise


def opened_again(descriptor: int) -> int | None:
    """Returns a descriptor that goes where `descriptor` goes and makes no writer wait; None for a socket, or where it cannot be opened again.

    Whether a write waits belongs to an opening of a pipe or a terminal, and others share ours. A file takes all at once.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return None
    try:
        return proc.open_again(descriptor)
    except OSError:  # another user opened it, or there is no /proc
        return None


def pipe_to_stderr() -> int:
    """Returns the end for writing of a pipe that a thread reads into `sys.stderr`, until nobody has that end any more. A full pipe loses words."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    threading.Thread(target=_pass_on, args=(reading,), name="log-pipe", daemon=True).start()
    return writing


def _pass_on(descriptor: int) -> None:
    with open(descriptor, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            sys.stderr.write(line)


def lines_lost() -> int:
    """Returns how many lines of its log this process has lost so far."""
    queue = queue_of(sys.stderr)
    return 0 if queue is None else queue.lost


def drain_streams(within_seconds: float = LAST_WORDS_SECONDS) -> None:
    """Waits until all log lines of this process are written, or the time is over: call it before `os._exit`."""
    for queue in _queues():
        queue.drain(within_seconds)


def _end_streams() -> None:
    for queue in _queues():
        queue.end(LAST_WORDS_SECONDS)


def _queues() -> list[LogQueue]:
    """Returns the queues of the standard streams, after flushing these. Foreign code may have closed one, or put another in its place."""
    queues: list[LogQueue] = []
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        queue = queue_of(stream)
        if queue is None or stream is None:
            continue
        if not stream.closed:
            stream.flush()
        if queue not in queues:
            queues.append(queue)
    return queues


def leave(status: int) -> NoReturn:
    """Ends with this status, also where a stream still holds what cannot be written: Python would make 120 of it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


class NullDeviceUnusable(Exception):
    """Every child is started with the null device as one of its standard streams, so none can be."""


def check_null_device(device: str = os.devnull) -> None:
    """Raises NullDeviceUnusable with the remedy unless `device` is one, and this user may read and write it."""
    if not Path(device).is_char_device():
        raise NullDeviceUnusable(f"{device} is no device: mknod -m 666 {device} c 1 3")
    if not os.access(device, os.R_OK | os.W_OK):
        raise NullDeviceUnusable(f"{device} can not be read and written by this user: chmod 666 {device}")


def _wait_writable(descriptor: int, within_seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if within_seconds is None else within_seconds * 1000))
