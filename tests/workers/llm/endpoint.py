"""A local HTTP server that speaks as much of an OpenAI-compatible endpoint as a test wants, and misbehaves in every way that was reported of one."""

import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

EVENT_STREAM = "text/event-stream"
RESET = struct.pack("ii", 1, 0)
"""Of SO_LINGER: the end of a connection is a reset."""


def chunk(content: object = None, *, finish: object = None, **delta: object) -> dict[str, object]:
    """One chunk of a streamed answer."""
    inside = delta if content is None else {"content": content, **delta}
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": inside, "finish_reason": finish}]}


def sse(*values: object, done: bool = True) -> bytes:
    """Server-sent events: of bytes as they stand, of all else as JSON."""
    lines = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return b"".join(b"data: " + line + b"\n\n" for line in (*lines, *([b"[DONE]"] if done else [])))


def events(*pieces: str, finish: bool = True, usage: tuple[int, int] | None = None) -> bytes:
    """Server-sent events of one streamed answer; `usage`: the tokens read and written, told after its end."""
    chunks = [chunk(piece) for piece in pieces]
    if finish:
        chunks.append(chunk(finish="stop"))
    if usage is not None:
        chunks.append({"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}})
    return sse(*chunks, done=finish)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response. `framing`: how it says where its body ends, `close` by the end of the connection alone; `is_cut`: it does not come to it.

    `then`: what happens behind the body: its end, a connection that stays open and silent, or a reset. `pace`: so many bytes at once, and
    what is awaited after each.
    """

    body: bytes = b""
    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    content_type: str = EVENT_STREAM
    framing: Literal["chunked", "length", "close"] = "chunked"
    is_cut: bool = False
    then: Literal["end", "silence", "reset"] = "end"
    pace: tuple[int, Callable[[], Any]] | None = None


def refusal(status: str, told: object = None, *headers: str) -> Answer:
    """A response with an error."""
    body = json.dumps({"error": told} if told is not None else {}).encode()
    return Answer(body=body, status=status, headers=headers, content_type="application/json", framing="length")


@dataclass
class FakeEndpoint:
    """`answers` are given one after the other, the last one again and again. `requests`: what it was asked, `hung_up`: who asked has left.

    `decide`: makes the answer of what is asked, in the place of `answers`.
    """

    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    hung_up: trio.Event = field(default_factory=trio.Event)
    connections: int = 0
    decide: Callable[[dict[str, Any]], bytes] | None = None
    base_url: str = ""

    def say(self, *answers: Answer | bytes) -> None:
        """Has it answer so from now on."""
        self.answers = [one if isinstance(one, Answer) else Answer(body=one) for one in answers]

    @property
    def asked(self) -> list[list[tuple[str, str]]]:
        """The messages of each request: role and content."""
        return [[(turn["role"], turn["content"]) for turn in request["messages"]] for request in self.requests]

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            try:
                while await self._exchange(stream):
                    pass
            except trio.BrokenResourceError:
                self.hung_up.set()

    async def _exchange(self, stream: trio.SocketStream) -> bool:
        head, _, body = (await _head(stream)).partition(b"\r\n\r\n")
        if not head:
            return False
        lines = head.decode().splitlines()
        if lines[0].split(" ")[1].partition("/v1/")[0]:  # somebody's who means the one that had this port before
            await self._answer(stream, refusal("404 Not Found"))
            return False
        length = sum(int(line[15:]) for line in lines if line.lower().startswith("content-length"))
        self.keys += [line[22:] for line in lines if line.lower().startswith("authorization: bearer ")]
        while len(body) < length:
            body += await stream.receive_some()
        self.requests.append(json.loads(body or b"{}"))
        if self.decide is not None:
            answer = Answer(body=self.decide(self.requests[-1]))
        else:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await self._answer(stream, answer)
        if answer.then == "silence":
            while await stream.receive_some():
                pass
            self.hung_up.set()
        if answer.then == "reset":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return answer.then == "end" and answer.framing != "close" and not answer.is_cut

    async def _answer(self, stream: trio.SocketStream, answer: Answer) -> None:
        lines = [f"HTTP/1.1 {answer.status}", f"Content-Type: {answer.content_type}", *answer.headers]
        if answer.framing == "length":
            lines.append(f"Content-Length: {len(answer.body) + 1000 * answer.is_cut}")
        elif answer.framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        for part in _parts(answer):
            await stream.send_all(b"%x\r\n%b\r\n" % (len(part), part) if answer.framing == "chunked" else part)
            if answer.pace is not None:
                await answer.pace[1]()
        if answer.framing == "chunked" and not answer.is_cut and answer.then == "end":
            await stream.send_all(b"0\r\n\r\n")


def _parts(answer: Answer) -> Iterable[bytes]:
    size = answer.pace[0] if answer.pace is not None else max(len(answer.body), 1)
    return (answer.body[at : at + size] for at in range(0, len(answer.body), size))


async def _head(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            return b""
        data += more
    return data


@asynccontextmanager
async def endpoint(*answers: Answer | bytes) -> AsyncIterator[FakeEndpoint]:
    """On a free port of the loopback interface."""
    server = FakeEndpoint()
    server.say(*answers)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(_serve, server)
        port = listeners[0].socket.getsockname()[1]
        server.base_url = f"http://127.0.0.1:{port}/v1"
        yield server
        nursery.cancel_scope.cancel()


async def _serve(
    server: FakeEndpoint,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    await trio.serve_tcp(server.serve, 0, host="127.0.0.1", task_status=task_status)
