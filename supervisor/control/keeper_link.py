"""The line between the keeper and its supervisor: the messages both ways, and the supervisor's end of it.

One socket pair. The keeper sends lines of text: `drain`, `retire`, `signal NAME`, `ask NUMBER JSON` (a request of the control socket).
The supervisor sends lines of JSON: its state, to show and to tell systemd, and its answers. A line that only a newer release knows is
passed over (host/lines.py), since an upgrade leaves the old keeper running. The line ends when the other process is gone; a supervisor
without its keeper has no Redis either and ends at once (the parent-death signal has usually done that already).
"""

import os
import re
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import msgspec
import trio
from structlog import get_logger

from bus.control.messages import ControlAnswer, Request
from host.lines import LineReader, UnreadableLine, json_decoder, plain_tag

DRAIN = "drain"
RETIRE = "retire"
"""Tells a supervisor to drain, and to stop accepting HTTP first, since a new generation serves."""

READY, CONNECTED, STANDBY = "ready", "connected", "standby"
PULSE, RELOADING = "pulse", "reloading"
"""What a supervisor reports and the keeper acts on, in this order."""

PULSE_SECONDS = 1.0
"""How often a supervisor says that it lives (supervisor/keeper/supervision.py ends one that is silent)."""

SIGNAL_QUEUE = 16
QUESTION_QUEUE = 64
"""Twice the clients of a control socket: each asks one question at a time."""

KEEPER_IS_GONE = 70
"""The exit status of a supervisor whose keeper has died: EX_SOFTWARE of sysexits(3)."""

STACKS = 0
"""The descriptor of a supervisor that its stacks go to, at SIGQUIT: a pipe to its keeper that never makes it wait. Its stderr would."""

FORWARDED = (signal.SIGTTIN, signal.SIGTTOU, signal.SIGQUIT, signal.SIGHUP)
KNOWN_SIGNALS = {forwarded.name: forwarded for forwarded in FORWARDED}
_Item = TypeVar("_Item")
_request = json_decoder(Request)


class ReportedState(msgspec.Struct, frozen=True, tag="state"):
    """What the supervisor says of itself. `ready`: configuration, Redis and a worker are good."""

    state: str
    detail: str = ""


class NumberedAnswer(msgspec.Struct, frozen=True, tag="answer"):
    """The answer to question `number`, as the control socket gives it."""

    number: int
    answer: msgspec.Raw


FromSupervisor: TypeAlias = ReportedState | NumberedAnswer


@dataclass(frozen=True)
class NumberedRequest:
    """A request of the control socket, to be answered under its number."""

    number: int
    request: Request


def encode(message: FromSupervisor) -> bytes:
    """Returns the message as a line for the keeper."""
    return msgspec.json.encode(message) + b"\n"


from_supervisor: Callable[[bytes], FromSupervisor] = json_decoder(FromSupervisor)


Order: TypeAlias = str | signal.Signals | NumberedRequest
"""What the keeper says: DRAIN or RETIRE, a signal to act on, a question to answer."""


def order(line: bytes) -> Order:
    """Returns what a line of the keeper orders. Raises UnreadableLine."""
    verb, _, rest = line.decode("utf-8", "replace").partition(" ")
    if verb in {DRAIN, RETIRE}:
        return verb
    if verb == "signal" and rest in KNOWN_SIGNALS:
        return KNOWN_SIGNALS[rest]
    number, _, body = rest.partition(" ")
    if verb == "ask" and re.fullmatch(r"[0-9]{1,18}", number):
        try:
            return NumberedRequest(int(number), _request(body.encode()))
        except UnreadableLine:
            pass  # said by its verb
    raise UnreadableLine(plain_tag(verb))


def question_line(number: int, request: Request) -> str:
    """Returns the line that asks a supervisor this request."""
    return f"ask {number} {msgspec.json.encode(request).decode()}"


def end_process() -> None:
    """Ends this process at once, without a drain: there is no Redis to drain into."""
    os._exit(KEEPER_IS_GONE)


@dataclass
class KeeperLink:
    """The supervisor's end of the line; made by `open_keeper_link`."""

    http_socket: socket.socket | None
    redis_url: str | None
    _stream: trio.SocketStream
    _drain: trio.Event
    _signals: trio.MemoryReceiveChannel[signal.Signals]
    _questions: trio.MemoryReceiveChannel[NumberedRequest]
    _sending: trio.Lock
    beside_another: bool = False
    """Whether an older generation serves until we do."""
    retired: bool = False
    """Whether a new generation has taken over; known when `wait_for_drain` returns."""

    async def ready(self, detail: str = "") -> None:
        """Reports that configuration, Redis and a worker are good: the keeper tells systemd READY=1, once."""
        await self.report(READY, detail)

    async def report(self, state: str, detail: str = "") -> None:
        """Reports a state, whose detail is shown in systemd's status: no content and no secret may be in it."""
        await self._send(ReportedState(state, detail[:1024]))

    async def answer(self, number: int, answer: ControlAnswer) -> None:
        """Answers the question of this number."""
        await self._send(NumberedAnswer(number, msgspec.Raw(msgspec.json.encode(answer))))

    async def _send(self, message: FromSupervisor) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(encode(message))
            except trio.BrokenResourceError:
                get_logger().warning("keeper: is gone")

    async def wait_for_drain(self) -> None:
        """Waits until the keeper orders a drain."""
        await self._drain.wait()

    async def next_signal(self) -> signal.Signals:
        """Waits for a signal that the keeper got: HUP, TTIN, TTOU or QUIT. What nobody fetches is dropped beyond SIGNAL_QUEUE."""
        return await self._signals.receive()

    async def next_question(self) -> NumberedRequest:
        """Waits for what somebody asks over the control socket. Each question has to be answered."""
        return await self._questions.receive()


@asynccontextmanager
async def open_keeper_link(
    control: socket.socket,
    http_socket: socket.socket | None,
    redis_url: str | None,
    on_keeper_gone: Callable[[], None] = end_process,
    *,
    beside_another: bool = False,
) -> AsyncGenerator[KeeperLink]:
    """Yields the link over an inherited socket; it is read as long as the block runs, and closed after it."""
    send_signal, signals = trio.open_memory_channel[signal.Signals](SIGNAL_QUEUE)
    send_question, questions = trio.open_memory_channel[NumberedRequest](QUESTION_QUEUE)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(control))
    link = KeeperLink(http_socket, redis_url, stream, trio.Event(), signals, questions, trio.Lock(), beside_another)
    desk = _Desk(link, send_signal, send_question)
    async with stream, send_signal, signals, send_question, questions, trio.open_nursery() as nursery:
        nursery.start_soon(_listen, stream, desk, on_keeper_gone)
        yield link
        nursery.cancel_scope.cancel()


async def _listen(stream: trio.SocketStream, desk: "_Desk", on_keeper_gone: Callable[[], None]) -> None:
    lines = LineReader(order, _say_passed_over)
    while True:
        try:
            data = await stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        if not data:
            on_keeper_gone()
            return
        for said in lines.feed(data):
            desk.obey(said)


def _say_passed_over(tag: str) -> None:
    get_logger().warning("keeper: a line was passed over, not known here", tag=tag)


@dataclass
class _Desk:
    """Puts each order of the keeper where it is waited for."""

    link: KeeperLink
    signals: trio.MemorySendChannel[signal.Signals]
    questions: trio.MemorySendChannel[NumberedRequest]

    def obey(self, said: Order) -> None:
        if isinstance(said, NumberedRequest):
            self._put(self.questions, said, said.request.command)
        elif isinstance(said, signal.Signals):
            self._put(self.signals, said, said.name)
        else:
            self.link.retired = self.link.retired or said == RETIRE
            self.link._drain.set()

    def _put(self, channel: trio.MemorySendChannel[_Item], item: _Item, name: str) -> None:
        try:
            channel.send_nowait(item)
        except trio.WouldBlock:
            get_logger().warning("keeper: a line was passed over", of=name)
