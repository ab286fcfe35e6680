"""The line between the keeper and its supervisor: the messages both ways, and the supervisor's end of it.

One socket pair. Down come lines of text: `drain`, `signal NAME`. Up go lines of JSON: the state to show and to tell
systemd. Its end means that the other is gone: a supervisor whose keeper is gone has no Redis either and ends at once
(the parent-death signal has usually done that already).
"""

import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import trio
from structlog import get_logger

DRAIN = "drain"
LINE_LIMIT_BYTES = 4096
SIGNAL_QUEUE = 16
KEEPER_IS_GONE = 70
FORWARDED = (signal.SIGTTIN, signal.SIGTTOU, signal.SIGQUIT)


class State(msgspec.Struct, frozen=True):
    """What the supervisor says of itself. `ready`: configuration, Redis and a worker are good."""

    state: str
    detail: str = ""


class LineTooLong(Exception):
    """The other side sent more than LINE_LIMIT_BYTES without ending the line."""


class Lines:
    """Takes bytes as they come and gives whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT_BYTES:
            raise LineTooLong
        return [line for line in lines if line]


def encode_state(state: State) -> bytes:
    return msgspec.json.encode(state) + b"\n"


def decode_state(line: bytes) -> State:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(line, type=State)


def end_process() -> None:
    os._exit(KEEPER_IS_GONE)


@dataclass
class KeeperLink:
    """The supervisor's end. Made by `open_keeper_link`."""

    http_socket: socket.socket | None
    redis_url: str | None
    _stream: trio.SocketStream
    _drain: trio.Event
    _signals: trio.MemoryReceiveChannel[signal.Signals]
    _sending: trio.Lock

    async def ready(self, detail: str = "") -> None:
        """Configuration, Redis and a worker are good: the keeper tells systemd READY=1, once."""
        await self.report("ready", detail)

    async def report(self, state: str, detail: str = "") -> None:
        """Shown in systemd's status. No content and no secret may be in it."""
        async with self._sending:
            try:
                await self._stream.send_all(encode_state(State(state, detail[:1024])))
            except trio.BrokenResourceError:
                get_logger().warning("keeper: is gone")

    async def wait_for_drain(self) -> None:
        await self._drain.wait()

    async def next_signal(self) -> signal.Signals:
        """TTIN, TTOU or QUIT, as the keeper got it. Whoever does not ask loses nothing but these."""
        return await self._signals.receive()


@asynccontextmanager
async def open_keeper_link(
    control: socket.socket,
    http_socket: socket.socket | None,
    redis_url: str | None,
    on_keeper_gone: Callable[[], None] = end_process,
) -> AsyncGenerator[KeeperLink]:
    """The link over an inherited socket; it is read as long as the block runs, and closed after it."""
    send_signal, signals = trio.open_memory_channel[signal.Signals](SIGNAL_QUEUE)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(control))
    link = KeeperLink(http_socket, redis_url, stream, trio.Event(), signals, trio.Lock())
    async with stream, send_signal, signals, trio.open_nursery() as nursery:
        nursery.start_soon(_listen, link, stream, send_signal, on_keeper_gone)
        yield link
        nursery.cancel_scope.cancel()


async def _listen(
    link: KeeperLink,
    stream: trio.SocketStream,
    signals: trio.MemorySendChannel[signal.Signals],
    on_keeper_gone: Callable[[], None],
) -> None:
    lines = Lines()
    while True:
        try:
            data = await stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        if not data:
            on_keeper_gone()
            return
        for line in lines.feed(data):
            _obey(line.decode("ascii", "replace"), link, signals)


def _obey(line: str, link: KeeperLink, signals: trio.MemorySendChannel[signal.Signals]) -> None:
    if line == DRAIN:
        link._drain.set()
        return
    verb, _, name = line.partition(" ")
    known = {forwarded.name: forwarded for forwarded in FORWARDED}
    if verb != "signal" or name not in known:
        get_logger().warning("keeper: an unknown line was passed over")
        return
    try:
        signals.send_nowait(known[name])
    except trio.WouldBlock:
        get_logger().warning("keeper: a signal was passed over", signal=name)
