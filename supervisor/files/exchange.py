"""One client's connection in HTTP/1.1: its requests one after the other, each with its body and its answer, all of it bounded in size and time.

The protocol is h11's; here are the bytes and the clocks. What a request means stands in supervisor/files/gate.py.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import h11
import msgspec
import trio

from bus.files.calls import CallFailure
from supervisor.files.failures import CallFailed

PIECE_BYTES = 512 * 1024
"""What is read at once, and so what a transfer holds. A body that is longer is read past h11, which would copy it twice."""

MOST_HEAD_BYTES = 16 * 1024
"""A request line and its headers: a ticket is the largest of them."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a client may take for what, in seconds."""

    head_seconds: float = 10.0
    idle_seconds: float = 60.0
    stall_seconds: float = 30.0
    """No byte of a body or an answer moves for so long."""
    linger_seconds: float = 2.0
    """After an answer that came before the body's end: what still comes is read so long, or the answer would be lost with it."""


class ClientGone(Exception):
    """The connection ended, or was too slow; there is nobody to be answered."""


Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request and its answer."""

    def __init__(self, connection: "Connection", request: h11.Request) -> None:
        self._connection = connection
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("ascii")
        self._headers = request.headers
        self.is_answered = False
        self._length = 0

    def header(self, name: str) -> str:
        """Returns a header's value, "" where it is not there. Raises CallFailed for one that is there twice."""
        values = [value for known, value in self._headers if known == name.encode()]
        if len(values) > 1:
            raise CallFailed(CallFailure.BAD_CALL, f"{name} stands there twice")
        return values[0].decode("ascii", "replace") if values else ""

    @property
    def content_length(self) -> int:
        """Returns the body's length; 0 without a body. Raises CallFailed `no_length` for a body in chunks."""
        if self.header("transfer-encoding"):
            raise CallFailed(CallFailure.NO_LENGTH, "a body needs a Content-Length")
        return int(self.header("content-length") or 0)  # h11 takes digits alone

    async def body(self) -> AsyncGenerator[bytes]:
        """Yields the body as it comes. Raises CallFailed `wrong_length` where it ends too soon, or stands still."""
        self._connection.begin_body(self.content_length)
        while True:
            try:
                with trio.fail_after(self._connection.patience.stall_seconds):
                    piece = await self._connection.next_of_body()
            except trio.TooSlowError:
                raise CallFailed(CallFailure.WRONG_LENGTH, "the body stands still") from None
            except (ClientGone, h11.RemoteProtocolError):
                raise CallFailed(CallFailure.WRONG_LENGTH, "the body ended before its Content-Length") from None
            if not piece:
                return
            yield piece

    async def whole_body(self, most_bytes: int) -> bytes:
        """Returns a small body. Raises CallFailed."""
        if self.content_length > most_bytes:
            raise CallFailed(CallFailure.BAD_CALL, f"the body of this call has at most {most_bytes} bytes")
        return b"".join([piece async for piece in self.body()])

    async def answer(self, status: int, body: object, *, content_type: str = "application/json") -> None:
        """Answers with a value as JSON, or with bytes. Raises ClientGone."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        await self.begin_answer(status, len(content), {"content-type": content_type})
        await self.send(content)
        await self.end_answer()

    async def begin_answer(self, status: int, length: int, headers: dict[str, str]) -> None:
        """Sends the head of an answer whose body has exactly this length. Raises ClientGone."""
        self.is_answered = True
        fields = {"content-length": str(length), "cache-control": "no-store", **headers}
        if self._connection.is_last:
            fields["connection"] = "close"
        named = [(name.encode(), value.encode()) for name, value in fields.items()]
        await self._connection.send(h11.Response(status_code=status, headers=named))

    async def send(self, piece: bytes) -> None:
        """Sends a piece of the body. Raises ClientGone."""
        await self._connection.send(h11.Data(data=piece))

    async def end_answer(self) -> None:
        """Raises ClientGone."""
        await self._connection.send(h11.EndOfMessage())


class Connection:
    """A client's connection."""

    def __init__(self, stream: trio.abc.Stream, patience: Patience) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
        self.patience = patience
        self._missing = 0
        """Of a long body: how many bytes were not read yet."""
        self._is_last = False

    @property
    def is_unread(self) -> bool:
        """Whether there is more of the request than was read."""
        return self._missing > 0 if self._is_last else self._http.their_state is not h11.DONE

    @property
    def is_last(self) -> bool:
        """Whether the connection ends with this answer."""
        return self._is_last or self.is_unread

    async def serve(self, handler: Handler) -> None:
        """Serves requests until the client leaves, or must."""
        async with self._stream:
            try:
                while (request := await self._next_request()) is not None:
                    exchange = Exchange(self, request)
                    await handler(exchange)
                    if exchange.is_answered and self.is_unread:
                        return await self._linger()
                    if (
                        self._http.our_state is not h11.DONE
                    ):  # also after a long body: its answer says that it is the last
                        return
                    self._http.start_next_cycle()
            except h11.RemoteProtocolError as wrong:
                await self._refuse(wrong)
            except ClientGone:
                return

    def begin_body(self, length: int) -> None:
        """Says how long the body of this request is. With a long one the connection ends: h11 does not see its end."""
        self._missing, self._is_last = length, length > PIECE_BYTES

    async def next_of_body(self) -> bytes:
        """Returns what comes next of the body, b"" at its end. Raises ClientGone, h11.RemoteProtocolError."""
        if not self._is_last:
            event = await self.next_event()
            while not isinstance(event, h11.Data | h11.EndOfMessage | None):
                event = await self.next_event()
            return bytes(event.data) if isinstance(event, h11.Data) else b""
        if not self._missing:
            return b""
        kept = self._http.next_event()  # what came with the head
        most = min(PIECE_BYTES, self._missing)
        piece = bytes(kept.data) if isinstance(kept, h11.Data) else await self._received(most)
        if not piece:
            raise ClientGone
        self._missing -= len(piece)
        return piece

    async def next_event(self) -> h11.Event | None:
        """Returns what comes next of this request. Raises ClientGone, h11.RemoteProtocolError."""
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:  # another request stands behind this one, which is not answered yet
                return None
            self._http.receive_data(await self._received(PIECE_BYTES))

    async def send(self, event: h11.Event) -> None:
        """Sends it. Raises ClientGone, also when the client takes nothing for too long."""
        data = self._http.send(event)
        if not data:
            return
        try:
            with trio.fail_after(self.patience.stall_seconds):
                await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            raise ClientGone from None

    async def _next_request(self) -> h11.Request | None:
        """Returns the next request, None when the client has left or says nothing."""
        with trio.move_on_after(self.patience.idle_seconds) as idle:
            if not self._http.trailing_data[0]:
                data = await self._received(PIECE_BYTES)
                if not data:
                    return None
                self._http.receive_data(data)
            idle.deadline = trio.current_time() + self.patience.head_seconds
            event = await self.next_event()
            return event if isinstance(event, h11.Request) else None
        return None

    async def _received(self, most_bytes: int) -> bytes:
        try:
            return bytes(await self._stream.receive_some(most_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ClientGone from None

    async def _refuse(self, wrong: h11.RemoteProtocolError) -> None:
        """Answers what is no HTTP, where an answer has not begun."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = msgspec.json.encode(CallFailed(CallFailure.BAD_CALL, "this is no HTTP/1.1 request").body)
        headers = [("content-length", str(len(body))), ("connection", "close")]
        try:
            await self.send(h11.Response(status_code=wrong.error_status_hint, headers=headers))
            await self.send(h11.Data(data=body))
            await self.send(h11.EndOfMessage())
        except (ClientGone, h11.LocalProtocolError):
            return

    async def _linger(self) -> None:
        with trio.move_on_after(self.patience.linger_seconds):
            if isinstance(self._stream, trio.SocketStream):
                await self._stream.send_eof()
            try:
                while await self._stream.receive_some(PIECE_BYTES):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
