"""The one adapter over trio-websocket: nothing else imports it, so another client touches one file.

It keeps what the library leaves open: nothing but our two exceptions (and our caller's own) comes out of it, every
wait ends when the connection does, a close is bounded in time, and a cancelled send never leaves half a frame
behind. It knows nothing of frames, authentication or reconnecting.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast
from urllib.parse import urlsplit

import trio
import trio.abc
import trio_websocket
from wsproto.utilities import LocalProtocolError

from host.reasons import why
from supervisor.relay.guarded_stream import GuardedStream
from supervisor.relay.relay_date import RelayDate, boot_seconds
from supervisor.relay.tunnel import TunnelFailed, open_tunnel, secured
from supervisor.settings.way import DIRECTLY, Way

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""Above the largest envelope (1 MiB after base64) and its frame. What announces more ends the connection with 1009."""

MESSAGE_QUEUE_SIZE = 512
"""With the library's default of 1, two unread messages stop it from answering pings. Their bytes are bounded in supervisor/relay/wire_guard.py."""

RECEIVE_BYTES = 64 * 1024
"""One read. The library's 4 KiB makes 512 rounds of a 2 MiB message."""

CONNECT_TIMEOUT_SECONDS = 10.0
"""For TCP, proxy and TLS, and again for the upgrade: three retransmissions of the first packet (RFC 6298)."""

CLOSE_TIMEOUT_SECONDS = 2.0
"""How long a close waits for the peer's close frame, also when the caller was cancelled."""

MAX_CLOSE_REASON_BYTES = 123
"""A control frame carries 125 bytes, two of them the code (RFC 6455 §5.5)."""

ABNORMAL_CLOSURE = 1006
"""What the library reports when no close frame came. It never stands on the wire, so we say `None`."""


_GONE = (
    trio_websocket.ConnectionClosed,
    trio.ClosedResourceError,
    trio.BrokenResourceError,
    LocalProtocolError,
)
"""How the library says that a connection is closed, closing or broken."""


class WebSocketError(Exception):
    """The root of what this adapter raises."""


class ConnectFailed(WebSocketError):
    """Raised when no connection came about. `status` is the HTTP status where the server refused the upgrade."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class ConnectionLost(WebSocketError):
    """Raised when the connection is closed or gone. `code` is the close frame's, `None` when there was none."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"connection lost: code {code}, {reason or 'no reason given'}")
        self.code = code
        self.reason = reason


class BinaryMessageRefused(WebSocketError):
    """Raised for a binary message, since PROTOCOL §2 has only text frames. It is dropped; the connection stays."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"binary message of {size_bytes} bytes refused")
        self.size_bytes = size_bytes


class _Reader:
    """Stands in for the nursery that the library starts its reader in: runs it, contains it, says when it ended.

    Left to itself the reader raises LocalProtocolError on a ping that comes while closing, which cancels the
    library's nursery and lets a bare `trio.Cancelled` escape (its issue 184); and when it ends, a waiting `ping()`
    or opening handshake is never woken.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.ended = trio.Event()
        self.failure: Exception | None = None

    def start_soon(self, reader_task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, reader_task)

    async def _run(self, reader_task: Callable[[], Awaitable[None]]) -> None:
        try:
            await reader_task()
        except Exception as error:  # noqa: BLE001 - kept and reported by whoever waits on the connection
            self.failure = error
        finally:
            self.ended.set()


class WebSocket:
    """One open connection. One task receives; any task may send, ping or close. `date`: of the answer to the upgrade, if it had one."""

    def __init__(
        self,
        connection: trio_websocket.WebSocketConnection,
        stream: GuardedStream,
        reader: _Reader,
        close_timeout_seconds: float,
        date: RelayDate | None,
    ) -> None:
        self.date = date
        self._connection = connection
        self._stream = stream
        self._reader = reader
        self._close_timeout_seconds = close_timeout_seconds
        self._closing = False
        self._closed = trio.Event()

    @property
    def heard_at(self) -> float:
        """`trio.current_time()` of the last whole frame from the peer, whatever it was; of a large one also while it comes."""
        return self._stream.heard_at

    async def send(self, text: str) -> None:
        """Sends one text message. Raises `ConnectionLost`. Cancelled in the middle of it, the connection is gone."""
        if self._closing or self._reader.ended.is_set():
            raise self._lost()
        try:
            await self._connection.send_message(text)
        except _GONE:
            raise self._lost() from None

    async def receive(self) -> str:
        """Returns the next text message. Raises `ConnectionLost` (after what came before it) or `BinaryMessageRefused`."""
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed:
            raise self._lost() from None
        self._stream.taken()
        if isinstance(message, bytes):
            raise BinaryMessageRefused(len(message))
        return message

    async def ping(self) -> None:
        """Pings, and returns with the pong. Raises `ConnectionLost`, also when the connection ends meanwhile."""
        if self._closing or self._reader.ended.is_set():
            raise self._lost()
        answered = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_ended, nursery.cancel_scope)
            try:
                await self._connection.ping()
                answered = True
            except _GONE:
                answered = False
            nursery.cancel_scope.cancel()
        if not answered:
            raise self._lost()

    async def close(self, code: int = 1000, reason: str = "", *, within_seconds: float = math.inf) -> None:
        """Sends a close frame and waits for the peer's, at most the close timeout (and so long); then nothing is left open.

        Once closing, `send` and `receive` raise `ConnectionLost`; what had not been received yet is discarded.
        """
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        try:
            with trio.move_on_after(min(self._close_timeout_seconds, within_seconds), shield=True):
                await self._closing_handshake(code, reason)
        finally:
            try:
                await self._stream.end()
            finally:  # ending the stream raises when we are cancelled, and others wait for us
                self._closed.set()

    async def _closing_handshake(self, code: int, reason: str) -> None:
        self._stream.held_open = True
        self._stream.discard()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_ended, nursery.cancel_scope)
            with suppress(*_GONE):
                await self._connection.aclose(code, _clipped(reason))
            nursery.cancel_scope.cancel()
        if self._reader.failure is not None:
            # The reader died of a ping that crossed our close frame: the peer's answer still ends the stream.
            with suppress(*_GONE):
                while await self._stream.receive_some(RECEIVE_BYTES):
                    pass

    async def _cancel_when_ended(self, scope: trio.CancelScope) -> None:
        await self._reader.ended.wait()
        scope.cancel()

    def _lost(self) -> ConnectionLost:
        refusal = self._stream.refusal
        if refusal is not None:
            return ConnectionLost(refusal.code, f"ended by us: {refusal.reason}")
        closed = self._connection.closed
        if closed is None:
            failure = self._reader.failure
            return ConnectionLost(None, type(failure).__name__ if failure else "closed")
        if closed.code == ABNORMAL_CLOSURE:
            return ConnectionLost(None, "no close frame")
        return ConnectionLost(closed.code, closed.reason or "")


@asynccontextmanager
async def open_websocket(
    url: str,
    *,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    close_timeout_seconds: float = CLOSE_TIMEOUT_SECONDS,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    message_queue_size: int = MESSAGE_QUEUE_SIZE,
    way: Way = DIRECTLY,
) -> AsyncIterator[WebSocket]:
    """Connects to `url` (ws://, or wss:// on a way with TLS) and closes on leaving, bounded. Raises `ConnectFailed`.

    What the body raises comes out as it is, never in an exception group.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            reader = _Reader(nursery)
            try:
                transport = await _connect(url, connect_timeout_seconds, way)
                stream = GuardedStream(transport, max_message_bytes)
                try:
                    asked = boot_seconds()
                    connection = await _upgrade(
                        url,
                        stream,
                        reader,
                        timeout_seconds=connect_timeout_seconds,
                        max_message_bytes=max_message_bytes,
                        message_queue_size=message_queue_size,
                    )
                    date = _date_of(connection, asked)
                    socket = WebSocket(connection, stream, reader, close_timeout_seconds, date)
                    try:
                        yield socket
                    finally:
                        await socket.close()
                finally:
                    await stream.end()
            except BaseException as error:
                failure = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup:
        if failure is None:
            raise
    if failure is not None:
        raise failure


async def _connect(url: str, timeout_seconds: float, way: Way) -> trio.abc.Stream:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or parts.hostname is None:
        raise ConnectFailed("the address must be ws://host… or wss://host…")
    host, port = parts.hostname, parts.port or (80 if parts.scheme == "ws" else 443)
    through = "" if way.proxy is None else f" through the proxy {way.proxy.url}"
    try:
        with trio.fail_after(timeout_seconds):
            if way.proxy is None:
                stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
            else:
                stream = await open_tunnel(way, way.proxy, host, port)
            return await secured(stream, way, host) if parts.scheme == "wss" else stream
    except trio.TooSlowError:
        raise ConnectFailed(f"connecting{through} took too long") from None
    except TunnelFailed as error:
        raise ConnectFailed(str(error)) from None
    except trio.BrokenResourceError as error:
        raise ConnectFailed(f"TLS handshake failed{through}: {why(error)}") from None
    except OSError as error:
        raise ConnectFailed(f"cannot connect{through}: {why(error)}") from None


async def _upgrade(
    url: str,
    stream: GuardedStream,
    reader: _Reader,
    *,
    timeout_seconds: float,
    max_message_bytes: int,
    message_queue_size: int,
) -> trio_websocket.WebSocketConnection:
    parts = urlsplit(url)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection: trio_websocket.WebSocketConnection | None = None
    with trio.move_on_after(timeout_seconds) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_set, reader.ended, nursery.cancel_scope)
            connection = await trio_websocket.wrap_client_stream(
                # The library only calls start_soon on the nursery and sends and receives on the stream.
                cast("trio.Nursery", reader),
                cast("trio.SocketStream", stream),
                parts.netloc.rpartition("@")[2],
                resource,
                message_queue_size=message_queue_size,
                max_message_size=max_message_bytes,
                receive_buffer_size=RECEIVE_BYTES,
            )
            nursery.cancel_scope.cancel()
    if connection is not None:
        return connection
    if scope.cancelled_caught:
        raise ConnectFailed("the server did not answer the upgrade in time")
    if stream.refusal is not None:
        raise ConnectFailed(stream.refusal.reason)
    if isinstance(reader.failure, trio_websocket.ConnectionRejected):
        status = reader.failure.status_code
        raise ConnectFailed(f"the server refused the upgrade with HTTP status {status}", status)
    raise ConnectFailed("the server ended the connection during the upgrade")


def _date_of(connection: trio_websocket.WebSocketConnection, asked: float) -> RelayDate | None:
    found = next((value for name, value in connection.handshake_headers if name.lower() == b"date"), None)
    return None if found is None else RelayDate(found.decode("ascii", "replace"), asked, boot_seconds())


def _clipped(reason: str) -> str | None:
    """Returns as much of the reason as a close frame carries, None for nothing."""
    return reason.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore") or None


async def _cancel_when_set(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
