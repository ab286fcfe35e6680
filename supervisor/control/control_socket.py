"""Serves the control socket, over which `hashee-agent status|stop|reload|scale`, and programs of the owner's own, reach the process that runs.

A Unix socket that only its owner can open. One request after the other is answered (bus/control/messages.py); one with `every_seconds`
again and again. Whoever serves it decides what a request does; nothing here knows.
"""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from bus.control.messages import ControlAnswer, Request
from bus.settings.places import CONTROL_SOCKET
from host.bounded_listener import BoundedListener
from host.lines import Lines, UnreadableLine, json_decoder
from host.socket_place import socket_path
from supervisor.control.answers import Answerer, answer_despite_defects

SOCKET_MODE = 0o600
BACKLOG = 16
MOST_CLIENTS = 32
"""Commands and watchers at a time, far more than people type; more would only hold descriptors."""

RECEIVE_BYTES = 4096
SHORTEST_EVERY_SECONDS = 0.1
"""How often a watched `status` answers at most, whatever was asked for."""


UNREADABLE = ControlAnswer(ok=False, error="this is no request; is hashee-agent another version here?")
_request: Callable[[bytes], Request] = json_decoder(Request)


class ControlTaken(Exception):
    """Raised when another process that lives serves this socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"another hashee-agent is running on this state directory: it serves {path}; stop it with `hashee-agent stop`"
        )


def control_path(state_dir: Path, runtime_dir: Path) -> Path:
    """Returns the socket's path: in the state directory, or in the runtime directory where the path would be too long for a socket."""
    return socket_path(state_dir / CONTROL_SOCKET, state_dir, runtime_dir)


def listen_control(path: Path) -> socket.socket:
    """Returns a listening socket, mode 0600 from its first instant. A path that a dead process left is taken over.

    Raises ControlTaken, OSError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(listener.fileno(), SOCKET_MODE)  # before bind: Linux makes the file with it
        try:
            listener.bind(str(path))
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
            if _is_served(path):
                raise ControlTaken(path) from None
            path.unlink(missing_ok=True)
            listener.bind(str(path))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # its backlog is full
        except OSError:
            return False
    return True


async def serve_control(listener: socket.socket, answer: Answerer) -> None:
    """Serves requests until cancelled; then nobody can connect, and then every connection ends, by which `stop` knows that all is over."""
    accepting = BoundedListener(trio.SocketListener(trio.socket.from_stdlib_socket(listener)), MOST_CLIENTS)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await _serve(stream, answer)
            except trio.BrokenResourceError:
                return
            except trio.Cancelled:
                # Who sees the end and connects finds no agent, and not one that does not answer.
                with trio.CancelScope(shield=True):
                    await accepting.closed.wait()
                raise

    await accepting.serve(serve)


async def _serve(stream: trio.SocketStream, answer: Answerer) -> None:
    lines = Lines()
    answered_too_long = 0
    while data := await stream.receive_some(RECEIVE_BYTES):
        for line in lines.feed(bytes(data)):
            try:
                request = _request(line)
            except UnreadableLine:
                await _send(stream, UNREADABLE)
                continue
            await _send(stream, await answer_despite_defects(answer, request))
            if request.every_seconds is not None:
                await _repeat(stream, request, answer)
        while answered_too_long < lines.too_long:
            answered_too_long += 1
            await _send(stream, UNREADABLE)


async def _repeat(stream: trio.SocketStream, request: Request, answer: Answerer) -> None:
    """Answers the same request again and again, until the other side hangs up."""
    assert request.every_seconds is not None  # noqa: S101 - the caller has looked
    while True:
        await trio.sleep(max(SHORTEST_EVERY_SECONDS, request.every_seconds))
        await _send(stream, await answer_despite_defects(answer, request))


async def _send(stream: trio.SocketStream, answer: ControlAnswer) -> None:
    await stream.send_all(msgspec.json.encode(answer) + b"\n")
