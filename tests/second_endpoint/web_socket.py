"""A WebSocket by wsproto over a trio stream: text messages, pings answered. Enough for loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, RejectConnection, Request, TextMessage
from wsproto.utilities import LocalProtocolError


class Closed(Exception):
    """The connection is over. `code` None: without a close frame."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed: {code}")
        self.code = code


class Socket:
    """One open connection: one task reads, others write."""

    def __init__(self, stream: trio.SocketStream, *, is_server: bool = False) -> None:
        self._stream = stream
        self._protocol = WSConnection(ConnectionType.SERVER if is_server else ConnectionType.CLIENT)
        self._parts: list[str] = []
        self._texts: list[str] = []
        self._writing = trio.Lock()

    async def open(self, host: str, target: str) -> None:
        """Raises Closed where the server refuses."""
        await self._write(self._protocol.send(Request(host=host, target=target)))
        is_open = False
        while not is_open:
            self._protocol.receive_data(await self._stream.receive_some() or None)
            for event in self._protocol.events():
                if isinstance(event, RejectConnection | CloseConnection):
                    raise Closed(None)
                is_open = is_open or isinstance(event, AcceptConnection)
                self._collect(event)

    async def accept(self, head: bytes) -> str:
        """The other side of it: what was asked for, from the request's first bytes."""
        self._protocol.receive_data(head)
        target = ""
        for event in self._protocol.events():
            if isinstance(event, Request):
                target = event.target
                await self._write(self._protocol.send(AcceptConnection()))
            self._collect(event)
        return target

    async def try_send(self, text: str) -> None:
        """The same as `send`, for who does not need to know."""
        with suppress(Closed):
            await self.send(text)

    async def send(self, text: str) -> None:
        """One text message. Raises Closed."""
        try:
            data = self._protocol.send(TextMessage(data=text))
        except LocalProtocolError:  # the other side has closed
            raise Closed(None) from None
        await self._write(data)

    async def receive(self) -> str:
        """The next text message. Raises Closed."""
        while not self._texts:
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise Closed(None) from None
            if not data:
                raise Closed(None)
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                if isinstance(event, Ping):
                    await self._write(self._protocol.send(event.response()))
                elif isinstance(event, CloseConnection):
                    await self._write(self._protocol.send(event.response()))
                    raise Closed(event.code)
                self._collect(event)
        return self._texts.pop(0)

    def _collect(self, event: object) -> None:
        if isinstance(event, TextMessage):
            self._parts.append(event.data)
            if event.message_finished:
                self._texts.append("".join(self._parts))
                self._parts.clear()

    async def _write(self, data: bytes) -> None:
        async with self._writing:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise Closed(None) from None


@asynccontextmanager
async def open_socket(url: str) -> AsyncIterator[Socket]:
    """A connection to `ws://host:port/path`, gone with the block."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    stream = await trio.open_tcp_stream(parts.hostname, parts.port or 80)
    async with stream:
        socket = Socket(stream)
        await socket.open(parts.netloc, parts.path + (f"?{parts.query}" if parts.query else ""))
        yield socket
