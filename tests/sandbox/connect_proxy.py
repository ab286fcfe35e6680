"""A proxy that opens tunnels (CONNECT), or fails in each way that one can. Whatever is asked for, it leads to one port of this machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from tests.supervisor.relay.test_websocket_tls import pump

USER = "Us3r"
PASSWORD = "S3cret@#9"
LOGIN = f"{USER}:S3cret%40%239"
BASIC = "Proxy-Authorization: Basic VXMzcjpTM2NyZXRAIzk="
ANSWERS = {
    "refuse": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    "login": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
    "nonsense": b"220 mail.example ESMTP\r\n\r\n",
    "endless": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "close": b"",
}


@dataclass
class ConnectProxy:
    """`mood`: "open", "hang", or one of ANSWERS. `heads`: what it was asked, oldest first."""

    port: int
    leads_to: int
    mood: str = "open"
    heads: list[str] = field(default_factory=list)
    carried: bytearray = field(default_factory=bytearray)
    tunnels: set[trio.CancelScope] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url_with_login(self) -> str:
        return f"http://{LOGIN}@127.0.0.1:{self.port}"

    @property
    def targets(self) -> set[str]:
        return {head.split(" ")[1] for head in self.heads}

    def cut(self) -> None:
        """Every tunnel ends now."""
        for scope in self.tunnels:
            scope.cancel()

    async def serve(self, client: trio.SocketStream) -> None:
        async with client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                received = await client.receive_some(4096)
                if not received:
                    return
                head += received
            self.heads.append(head.decode())
            if self.mood == "hang":
                await trio.sleep_forever()
            if self.mood in ANSWERS:
                await client.send_all(ANSWERS[self.mood])
                return
            upstream = await trio.open_tcp_stream("127.0.0.1", self.leads_to)
            await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with upstream, trio.open_nursery() as nursery:
                self.tunnels.add(nursery.cancel_scope)
                nursery.start_soon(pump, upstream, client, nursery.cancel_scope)
                await pump(_Noted(client, self.carried), upstream, nursery.cancel_scope)


class _Noted(trio.abc.ReceiveStream):
    def __init__(self, inner: trio.SocketStream, notes: bytearray) -> None:
        self._inner = inner
        self._notes = notes

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._inner.receive_some(max_bytes))
        self._notes += data
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def connect_proxy(leads_to: int) -> AsyncIterator[ConnectProxy]:
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = ConnectProxy(listener.socket.getsockname()[1], leads_to)
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
