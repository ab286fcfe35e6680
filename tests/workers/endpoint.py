"""A local HTTP server that speaks as much of an OpenAI-compatible endpoint as a test wants: whole, busy, cut or stalled."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio


def events(*pieces: str, finish: bool = True, usage: tuple[int, int] | None = None) -> bytes:
    """Server-sent events of one streamed answer; `usage`: the tokens read and written, told after its end."""
    chunks: list[dict[str, object]] = [{"delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    if finish:
        chunks.append({"delta": {}, "finish_reason": "stop"})
    lines = [
        json.dumps(
            {
                "id": "c",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0} | chunk],
            }
        )
        for chunk in chunks
    ]
    if usage is not None:
        lines.append(json.dumps({"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}))
    if finish:
        lines.append("[DONE]")
    return "".join(f"data: {line}\n\n" for line in lines).encode()


@dataclass
class Endpoint:
    """What it answers next, and what it was asked."""

    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    body: bytes = b""
    stalls: bool = False
    declared_bytes: int | None = None
    requests: list[dict[str, object]] = field(default_factory=list)
    hung_up: trio.Event = field(default_factory=trio.Event)
    base_url: str = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head, _, body = (await self._read(stream)).partition(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length"))
            while len(body) < length:
                body += await stream.receive_some()
            self.requests.append(json.loads(body))
            lines = [f"HTTP/1.1 {self.status}", "Content-Type: text/event-stream", "Connection: close", *self.headers]
            if self.declared_bytes is not None:
                lines.append(f"Content-Length: {self.declared_bytes}")
            await stream.send_all("\r\n".join([*lines, "", ""]).encode() + self.body)
            if self.stalls:
                while await stream.receive_some():
                    pass
                self.hung_up.set()

    async def _read(self, stream: trio.SocketStream) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        return data


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    """On a free port of the loopback interface."""
    server = Endpoint()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(_serve, server)
        port = listeners[0].socket.getsockname()[1]
        server.base_url = f"http://127.0.0.1:{port}/v1"
        yield server
        nursery.cancel_scope.cancel()


async def _serve(
    server: Endpoint,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    await trio.serve_tcp(server.serve, 0, host="127.0.0.1", task_status=task_status)
