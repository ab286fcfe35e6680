"""The worker's end of the pipe to its supervisor, served by two threads, so that neither a handler nor the event loop can starve it.

One thread sends heartbeats and queued messages, the other receives. Sending never blocks: a message that finds the queue full is dropped
and counted. When the pipe ends the supervisor is gone, and this process ends too; no message over it, however broken, does that.
"""

import queue
import socket
import threading
import time
from collections.abc import Callable

from bus.records.control import HEARTBEAT_SECONDS, FromWorker, Heartbeat, ToWorker, encode, to_worker
from host.lines import LineReader

QUEUE_LIMIT = 1000
RECEIVE_BYTES = 65536


class ControlLink:
    """Sends heartbeats and receives commands.

    `pulse(dropped)` makes a heartbeat, `on_command` gets each command, and `on_end` is called at the end of the pipe: all three in
    this link's threads.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        pulse: Callable[[int], Heartbeat],
        on_command: Callable[[ToWorker], None],
        on_end: Callable[[], None],
        say_passed_over: Callable[[str], None],
    ) -> None:
        """`say_passed_over`: called once with the tag of each kind of message that is not known here."""
        self._connection = connection
        self._pulse = pulse
        self._on_command = on_command
        self._on_end = on_end
        self._lines = LineReader(to_worker, say_passed_over)
        self._outgoing: queue.Queue[FromWorker | None] = queue.Queue(QUEUE_LIMIT)
        self._dropped = 0
        self._closing = False
        self._writer = threading.Thread(target=self._write, name="control-writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name="control-reader", daemon=True)

    @property
    def dead_threads(self) -> list[str]:
        """Returns which of its threads have ended, which is a defect: without them no heartbeat leaves, or no command arrives."""
        if self._closing:
            return []
        return [thread.name for thread in (self._writer, self._reader) if not thread.is_alive()]

    def start(self) -> None:
        """Starts both threads; the first heartbeat leaves at once."""
        self._connection.setblocking(True)
        self._writer.start()
        self._reader.start()

    def send(self, message: FromWorker) -> None:
        """Queues a message."""
        try:
            self._outgoing.put_nowait(message)
        except queue.Full:
            self._dropped += 1

    def close(self, within_seconds: float) -> None:
        """Sends what is queued, for at most so long, then ends the pipe."""
        self._closing = True
        try:
            self._outgoing.put(None, timeout=within_seconds)
        except queue.Full:
            return
        self._writer.join(within_seconds)
        try:
            self._connection.shutdown(socket.SHUT_RDWR)  # wakes the reader too
        except OSError:
            return  # the supervisor has closed it already
        self._reader.join(within_seconds)
        self._connection.close()

    def _write(self) -> None:
        next_beat = time.monotonic()
        while True:
            message: FromWorker | None
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + HEARTBEAT_SECONDS
                message = self._pulse(self._dropped)
            else:
                try:
                    message = self._outgoing.get(timeout=max(0.0, next_beat - time.monotonic()))
                except queue.Empty:
                    continue
            if message is None:
                return
            try:
                self._connection.sendall(encode(message))
            except OSError:
                self._ended()
                return

    def _read(self) -> None:
        while data := self._receive():
            for command in self._lines.feed(data):
                self._on_command(command)
        self._ended()

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(RECEIVE_BYTES)
        except OSError:
            return b""

    def _ended(self) -> None:
        if not self._closing:
            self._on_end()
