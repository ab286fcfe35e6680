"""A WebSocket server made of bytes: it says exactly what a test tells it to say, whenever, right or wrong."""

import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


class Peer:
    """The server's end of one connection after the upgrade."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def frame(self, opcode: int, payload: bytes = b"") -> None:
        await self.stream.send_all(encode_frame(opcode, payload))

    async def close_frame(self, code: int, reason: str = "") -> None:
        await self.frame(CLOSE, code.to_bytes(2, "big") + reason.encode())

    async def read_frame(self) -> tuple[int, bytes]:
        """The client's next frame, unmasked. Raises EOFError at the end."""
        first, second = await self._exactly(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self._exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self._exactly(8), "big")
        mask = await self._exactly(4)
        payload = await self._exactly(size)
        return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def encode_frame(opcode: int, payload: bytes) -> bytes:
    if len(payload) < 126:
        length = bytes([len(payload)])
    elif len(payload) < 65536:
        length = b"\x7e" + len(payload).to_bytes(2, "big")
    else:
        length = b"\x7f" + len(payload).to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + payload


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def raw_server(script: Script, *, answer: bytes | None = None, headers: bytes = b"") -> AsyncIterator[str]:
    """Plays `script` on each connection after the upgrade, whose answer has these headers too (or sends `answer` instead of it); yields the address."""

    async def handle(stream: trio.SocketStream) -> None:
        request = bytearray()
        while b"\r\n\r\n" not in request:
            data = await stream.receive_some(65536)
            if not data:
                return
            request += data
        if answer is not None:
            await stream.send_all(answer)
            return
        await stream.send_all(_accept(bytes(request), headers))
        try:
            await script(Peer(stream))
        except (EOFError, trio.BrokenResourceError):
            return

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        try:
            yield f"ws://127.0.0.1:{port}/ws/agent?agent_id=a"
        finally:
            nursery.cancel_scope.cancel()


def _accept(request: bytes, headers: bytes) -> bytes:
    key = next(
        line.split(b":", 1)[1].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + headers + b"\r\n"
    )
