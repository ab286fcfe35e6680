"""A web server on a real socket that sends whatever bytes a test gives it: what no honest server, and no library, would send."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import trio

from tests.waiting import waiting_for

Handler = Callable[["Asked", trio.SocketStream], Awaitable[None]]

PATIENCE_SECONDS = 30.0


class Asked:
    """One request: its path, its parameters, its headers in lower case."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode().split("\r\n")
        target = urlsplit(first.split(" ")[1])
        self.path = target.path
        self.parameters = {name: values[-1] for name, values in parse_qs(target.query).items()}
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@asynccontextmanager
async def web_server(handler: Handler) -> AsyncIterator[str]:
    """Serves one request after the other on each connection until the block ends; the base URL. The handler writes the whole answer."""

    async def serve(stream: trio.SocketStream) -> None:
        rest = b""
        try:
            while True:
                while b"\r\n\r\n" not in rest:
                    data = await stream.receive_some(65536)
                    if not data:
                        return
                    rest += data
                head, _, rest = rest.partition(b"\r\n\r\n")
                await handler(Asked(head), stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client has seen enough

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        with waiting_for("what the test does while the web server runs", PATIENCE_SECONDS):
            yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def response(body: bytes, *, encoding: str = "", status: int = 200, headers: str = "") -> bytes:
    """The bytes of a whole answer."""
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}"]
    if encoding:
        lines.append(f"Content-Encoding: {encoding}")
    if headers:
        lines.append(headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
