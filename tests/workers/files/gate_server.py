"""A file gate of a few lines on a real socket: it answers as a test tells it, and checks what it is asked by the gate's own rules."""

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h11
import msgspec
import trio

from bus.files.calls import PROOF_HEADER, TICKET_HEADER, CallFailure, Failed, FailureBody
from bus.files.proofs import Call, FilesKey, ProofChecker
from bus.settings.files_place import FilesPlace

KEY = FilesKey(bytes(range(32)))


@dataclass
class Asked:
    """A call as the gate has heard it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


Reply = Callable[[Asked, trio.SocketStream], Awaitable[None]]


def answer(status: int, body: bytes, **headers: str) -> Reply:
    """Answers so."""

    async def reply(_asked: Asked, stream: trio.SocketStream) -> None:
        lines = [
            f"HTTP/1.1 {status} X",
            f"content-length: {len(body)}",
            *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
        ]
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)

    return reply


def refusal(reason: CallFailure, *, status: int = 500, retry: bool = False, retry_after: float = 0.0) -> Reply:
    return answer(status, msgspec.json.encode(Failed(FailureBody(reason, "words", retry, retry_after))))


def raw(data: bytes) -> Reply:
    """Sends these bytes and ends."""

    async def reply(_asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(data)

    return reply


@dataclass
class GateServer:
    """`replies`: of the calls, in their order; `early`: answered before the body is read."""

    place: FilesPlace
    replies: list[Reply] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    answers_early: bool = False

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            http, asked = h11.Connection(h11.SERVER), None
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    data = await stream.receive_some(65536)
                    http.receive_data(data)
                elif isinstance(event, h11.Request):
                    headers = {name.decode(): value.decode() for name, value in event.headers}
                    asked = Asked(event.method.decode(), event.target.decode(), headers)
                    if self.answers_early:
                        break
                elif isinstance(event, h11.Data):
                    assert asked is not None
                    asked.body += event.data
                else:
                    break
            assert asked is not None
            self.asked.append(asked)
            self._check(asked)
            try:
                await self.replies.pop(0)(asked, stream)
            except trio.BrokenResourceError:
                return

    def _check(self, asked: Asked) -> None:
        bound = {"POST": hashlib.sha256(asked.body).hexdigest(), "GET": asked.headers.get("range", "")}
        call = Call(
            asked.method,
            asked.target,
            int(asked.headers["content-length"]),
            bound.get(asked.method, asked.headers.get(TICKET_HEADER, "")),
        )
        wrong = ProofChecker().check(KEY, asked.headers[PROOF_HEADER], call, time.time())
        if wrong is not None:
            self.unproven.append(wrong.message)


@asynccontextmanager
async def gate_server(folder: Path) -> AsyncIterator[GateServer]:
    """Serves at a Unix socket in a folder."""
    path = folder / "files.sock"
    socket = trio.socket.socket(trio.socket.AF_UNIX)
    await socket.bind(str(path))
    socket.listen(10)
    server = GateServer(FilesPlace(socket_path=path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, [trio.SocketListener(socket)])
        yield server
        nursery.cancel_scope.cancel()
    assert server.unproven == []
