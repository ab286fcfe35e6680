"""One connection to Redis for a trio program, without a thread: the task that waits for an answer sends and receives the bytes.

redis-py makes the connection (address, TLS, AUTH, the scripts; in a thread, since it blocks) and hands its socket over; hiredis packs
and parses. It takes half the CPU of a thread that pipelines, and a third of the latency (docs/benchmarks.md). Nothing is repeated here.
Cancelling a call loses no byte: the next call goes on where it stopped.
"""

import errno
import math
import socket
import ssl
import threading

import hiredis
import trio
from redis.exceptions import ResponseError

from bus.settings.redis_url import parse_redis_url
from bus.transport.lua import Scripts
from bus.transport.route import Route
from bus.transport.wire import Answer, RedisUnavailable, Wire
from host.reasons import why

RECEIVE_BYTES = 256 * 1024
CONNECT_ANSWER_SECONDS = 5.0
WATCH_SECONDS = 0.5
ATTEMPTS_AT_ONCE = 4
"""Threads in which one link is made; an attempt that was given up may hang in one. Its own, since a handler may have all that are shared."""


class Link:
    """The connection. `open` makes one, also again after `close` or a failure; `end` closes it for good."""

    def __init__(self, where: str | Route, scripts: Scripts) -> None:
        """`where`: a URL or a Route. Raises BadRedisUrl."""
        self._route = Route(parse_redis_url(where)) if isinstance(where, str) else where
        self._scripts = scripts
        self._socket: socket.socket | None = None
        self._parser = hiredis.Reader(replyError=ResponseError)
        self._unsent = bytearray()
        self._has_ended = False
        self._threads = trio.CapacityLimiter(ATTEMPTS_AT_ONCE)
        self._answer_due = math.inf
        self._is_overdue = False
        self.connects = 0
        self.client_id = 0

    @property
    def is_open(self) -> bool:
        """Returns whether there is a connection, as far as is known."""
        return self._socket is not None

    async def open(self) -> None:
        """Connects and loads the scripts. Raises RedisUnavailable, RedisRefused."""
        attempt = _Attempt(self._route, self._scripts)
        try:
            made, self.client_id = await trio.to_thread.run_sync(
                attempt.run, abandon_on_cancel=True, limiter=self._threads
            )
        except trio.Cancelled:
            attempt.abandon()
            raise
        if self._has_ended:
            made.close()
            raise RedisUnavailable("the connection was closed while it was made")
        made.setblocking(False)
        self._socket = made
        self._parser = hiredis.Reader(replyError=ResponseError)
        self._unsent.clear()
        self._is_overdue = False
        self.connects += 1
        trio.lowlevel.spawn_system_task(self._watch, made)

    def write(self, command: bytes) -> None:
        """Queues a packed command; `exchange` sends it."""
        self._unsent += command

    async def exchange(self, answer_timeout_seconds: float) -> list[Answer]:
        """Sends what is queued, waits for at least one answer, and returns all that have come, in order.

        Raises RedisUnavailable; then the connection is closed, and any number of the commands may have run. An answer counts as too late
        once two watches in a row have found it overdue.
        """
        self._answer_due = trio.current_time() + answer_timeout_seconds
        try:
            await self._send()
            return await self._receive()
        except (OSError, trio.ClosedResourceError, hiredis.ProtocolError) as error:
            self.close()
            if self._is_overdue:
                raise RedisUnavailable(f"no answer within {answer_timeout_seconds:.0f} s") from None
            raise RedisUnavailable(f"the connection was lost: {why(error)}") from None
        finally:
            self._answer_due = math.inf

    async def _watch(self, watched: socket.socket) -> None:
        """Closes the connection if an answer is overdue; ends with the connection, or with the run.

        A task without a parent, since a link has none that outlives an exchange; a deadline for each exchange would cost a tenth of the
        exchange. It closes only at the second watch: after the whole process was stopped the answer may lie there unread.
        """
        while self._socket is watched:
            due = self._answer_due
            is_overdue = due <= trio.current_time()
            await trio.sleep(WATCH_SECONDS)
            if is_overdue and due == self._answer_due and self._socket is watched:
                self._is_overdue = True
                self.close()

    def moved(self, answer: ResponseError) -> bool:
        """Returns True if it says that another node has our slot (MOVED); the next connection goes there."""
        return self._route.moved(answer)

    def asked(self, answer: ResponseError) -> Route | None:
        """Returns the route to the node that our slot is being moved to, if the answer says so (ASK), else None."""
        return self._route.asked(answer)

    def close(self) -> None:
        """Closes the connection; a task that waits on it fails."""
        if self._socket is not None:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._socket = None

    def end(self) -> None:
        """Closes it for good, also while it is being made."""
        self._has_ended = True
        self.close()

    async def _send(self) -> None:
        while self._unsent:
            connected = self._connected()
            try:
                del self._unsent[: connected.send(self._unsent)]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await trio.lowlevel.wait_writable(connected)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(connected)

    async def _receive(self) -> list[Answer]:
        while True:
            connected = self._connected()
            if not (isinstance(connected, ssl.SSLSocket) and connected.pending()):
                await trio.lowlevel.wait_readable(connected)
            try:
                received = connected.recv(RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(connected)
                continue
            if not received:
                raise ConnectionResetError(errno.ECONNRESET, "Redis closed the connection")
            self._parser.feed(received)
            if answers := self._parsed():
                return answers

    def _parsed(self) -> list[Answer]:
        answers: list[Answer] = []
        while (answer := self._parser.gets()) is not False:  # False: no whole answer yet; RESP2 has no booleans
            answers.append(answer)
        return answers

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionResetError(errno.ECONNRESET, "the connection is closed")
        return self._socket


class _Attempt:
    """One try to connect, in a thread. If it is abandoned it closes the connection that it makes."""

    def __init__(self, route: Route, scripts: Scripts) -> None:
        self._wire = Wire(route, scripts, answer_timeout_seconds=CONNECT_ANSWER_SECONDS)
        self._lock = threading.Lock()
        self._abandoned = False
        self._made: socket.socket | None = None

    def run(self) -> tuple[socket.socket, int]:
        """Returns the connected socket and the connection's CLIENT ID."""
        made = self._wire.hand_over()
        with self._lock:
            self._made = made
            if self._abandoned:
                made.close()
        return made, self._wire.client_id

    def abandon(self) -> None:
        """Closes the connection that was or will be made."""
        with self._lock:
            self._abandoned = True
            if self._made is not None:
                self._made.close()
