"""A client of the file gate (bus/files/calls.py): one call, one connection, one answer. Bytes pass piece by piece.

It neither repeats nor decides: what a call ends with is an answer or a GateFailed, which says whether the same call is worth another try.
"""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol, TypeVar, cast

import h11
import msgspec
import trio

from bus.files.calls import (
    CONFIRM_PATH,
    PROOF_HEADER,
    TICKET_HEADER,
    UPLOADS_PATH,
    Announced,
    CallFailure,
    Confirm,
    Confirmed,
    Failed,
    NewUpload,
    file_target,
    is_id,
    range_from,
    upload_path,
)
from bus.files.proofs import Call, FilesKey
from bus.files.refused_tls import refused_tls
from bus.settings.files_place import FilesPlace
from bus.settings.url_parts import netloc
from host.unreadable import UNREADABLE

Answer = TypeVar("Answer")
Piece = bytes | memoryview
"""A view is of memory that is used again: it holds until the next but one is asked for."""
Pieces = Callable[[], AsyncIterator[Piece]]
"""The sealed bytes of an upload from their beginning, each time it is called."""

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 60.0
"""The gate itself gives up after 30 s in which nothing moves, and a call that is one too many waits for 10 s before it is refused."""
MOST_ANSWER_BYTES: Final = 64 * 1024
"""Of a JSON answer."""
PIECE_BYTES: Final = 512 * 1024
"""Read at a time: what a connection holds meanwhile is taken at once, which costs an eighth of the turns of the event loop."""
SEND_BUFFER_BYTES: Final = 1024 * 1024
"""What the kernel holds for a gate on this host, so that neither side waits for each piece of the other."""
UNANSWERED: Final = "unanswered"
"""The word for a gate that gave no answer, or broke off within one: it may have died."""
NO_TLS: Final = "no_tls"
"""The word for a gate with which TLS cannot begin, by its certificate or since one side speaks none."""


class GateFailed(Exception):
    """A call failed. `reason`: a CallFailure, UNANSWERED or NO_TLS. `retry`: the same call may succeed later, after `retry_after` seconds."""

    def __init__(self, reason: str, message: str = "", *, retry: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(f"{reason}: {message}" if message else reason)
        self.reason = reason
        self.message = message
        self.retry = retry
        self.retry_after = retry_after


@dataclass(frozen=True)
class Given:
    """The bytes of a file from `first_byte` on. `takes_ranges`: after a cut the rest alone can be asked for."""

    first_byte: int
    takes_ranges: bool
    pieces: AsyncIterator[Piece]


class Gate(Protocol):
    """The four calls. GateClient makes them; the test kit has its own."""

    async def announce(self, conversation_id: str, size: int) -> Announced: ...
    async def put(self, announced: Announced, size: int, pieces: Pieces) -> None: ...
    async def confirm(self, upload_id: str, sha256: str) -> str: ...
    def get(self, attachment_id: str, size: int, first_byte: int) -> AbstractAsyncContextManager[Given]: ...


class GateClient:
    """The gate at HASHEE_FILES_URL."""

    def __init__(self, place: FilesPlace, key: FilesKey) -> None:
        self._at = place
        self._key = key

    def __repr__(self) -> str:
        return f"GateClient({self._at.shown})"

    async def announce(self, conversation_id: str, size: int) -> Announced:
        """Announces an upload; each call makes a new one. Raises GateFailed."""
        body = msgspec.json.encode(NewUpload(conversation_id, size))
        told = await self._ask(_Request("POST", UPLOADS_PATH, len(body), _hash_of(body), body), Announced)
        if not is_id(told.upload_id) or not told.ticket.isascii() or not told.ticket.isprintable():
            raise GateFailed(CallFailure.BAD_ANSWER, "the gate gave an id that is none")
        return told

    async def put(self, announced: Announced, size: int, pieces: Pieces) -> None:
        """Sends the sealed bytes, whole. May be repeated with the same bytes. Raises GateFailed, and what reading them raises."""
        request = _Request(
            "PUT", upload_path(announced.upload_id), size, announced.ticket, pieces=pieces, ticket=announced.ticket
        )
        await self._ask(request, dict[str, object])

    async def confirm(self, upload_id: str, sha256: str) -> str:
        """Confirms what was sent; returns its attachment id, at a repeat the same one. Raises GateFailed."""
        body = msgspec.json.encode(Confirm(upload_id, sha256))
        told = await self._ask(_Request("POST", CONFIRM_PATH, len(body), _hash_of(body), body), Confirmed)
        if not is_id(told.attachment_id):
            raise GateFailed(CallFailure.BAD_ANSWER, "the gate gave an id that is none")
        return told.attachment_id

    @asynccontextmanager
    async def get(self, attachment_id: str, size: int, first_byte: int) -> AsyncIterator[Given]:
        """Asks for a file, of which `size` sealed bytes are known, from a byte on; gives its bytes within the block. Raises GateFailed."""
        range_ = range_from(first_byte) if first_byte else ""
        request = _Request("GET", file_target(attachment_id, size), 0, range_, range_=range_)
        async with self._called(request) as exchange:
            told = exchange.answer
            yield Given(
                first_byte if told.status_code == 206 else 0,
                _header(told, b"accept-ranges") == b"bytes" or told.status_code == 206,
                exchange.pieces(),
            )

    async def _ask(self, request: "_Request", kind: type[Answer]) -> Answer:
        async with self._called(request) as exchange:
            body = await exchange.body()
        try:
            return msgspec.json.decode(body, type=kind)
        except UNREADABLE:
            raise GateFailed(CallFailure.BAD_ANSWER, "the gate's answer is none") from None

    @asynccontextmanager
    async def _called(self, request: "_Request") -> AsyncIterator["_Exchange"]:
        """Makes a call; gives its answer, which is a success. Raises GateFailed."""
        stream = await self._connect()
        try:
            exchange = _Exchange(stream)
            await exchange.send(request, self._headers(request))
            await exchange.hear()
            yield exchange
        finally:
            with trio.move_on_after(0, shield=True):
                await trio.aclose_forcefully(stream)

    def _headers(self, request: "_Request") -> list[tuple[str, str]]:
        call = Call(request.method, request.target, request.length, request.bound)
        proof = self._key.prove(call, time_ms=time.time_ns() // 1_000_000, nonce=secrets.token_hex(16))
        return [
            ("host", "files" if self._at.socket_path else netloc(self._at.host, self._at.port)),
            ("connection", "close"),
            ("content-length", str(request.length)),
            (PROOF_HEADER, proof),
            *([(TICKET_HEADER, request.ticket)] if request.ticket else []),
            *([("range", request.range_)] if request.range_ else []),
        ]

    async def _connect(self) -> trio.abc.Stream:
        try:
            with trio.fail_after(CONNECT_SECONDS):
                return await _opened(self._at)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
            if (refused := refused_tls(error.__cause__)) is not None:
                raise GateFailed(NO_TLS, str(refused), retry=False) from None
            raise GateFailed(UNANSWERED, f"no connection to the file gate ({type(error).__name__})") from None


async def _opened(at: FilesPlace) -> trio.abc.Stream:
    if at.socket_path is not None:
        local = await trio.open_unix_socket(at.socket_path)
        local.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        return local
    if at.tls is None:
        return await trio.open_tcp_stream(at.host, at.port)
    stream = await trio.open_ssl_over_tcp_stream(at.host, at.port, ssl_context=at.tls)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


@dataclass(frozen=True)
class _Request:
    """A call. `bound`: see bus/files/proofs.py `Call`."""

    method: str
    target: str
    length: int
    bound: str
    body: bytes = b""
    pieces: Pieces | None = None
    ticket: str = ""
    range_: str = ""


class _Exchange:
    """One request and its answer on one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self.answer = h11.Response(status_code=500, headers=[])
        self._missing: int | None = None
        """Of the answer's body: how many bytes have not come yet; None where only its end tells."""
        self._buffers: list[memoryview] = []

    async def send(self, request: _Request, headers: list[tuple[str, str]]) -> None:
        """Sends it. A gate that answers before it has read everything is heard: then the rest is not sent."""
        await self._write(h11.Request(method=request.method, target=request.target, headers=headers))
        try:
            if request.body:
                await self._write(h11.Data(data=request.body))
            if request.pieces is not None:
                async for piece in request.pieces():
                    await self._write_body(piece)
            await self._write(h11.EndOfMessage())
        except trio.BrokenResourceError:
            return  # it says why, or nothing more
        except h11.LocalProtocolError:
            raise GateFailed(CallFailure.WRONG_LENGTH, "another number of bytes than was announced") from None

    async def _write(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        data = self._http.send(event)
        if data:
            with _in_time():
                await self._stream.send_all(data)

    async def _write_body(self, piece: Piece) -> None:
        """Writes a piece as it is: h11 counts it, and copies nothing."""
        for data in self._http.send_with_data_passthrough(h11.Data(data=cast(bytes, piece))) or ():
            with _in_time():
                await self._stream.send_all(data)

    async def hear(self) -> None:
        """Hears the answer's head. Raises GateFailed where it is no success."""
        event = await self.next()
        while isinstance(event, h11.InformationalResponse):
            event = await self.next()
        if not isinstance(event, h11.Response):
            raise GateFailed(UNANSWERED, "the file gate gave no answer")
        self.answer = event
        if length := _header(event, b"content-length"):
            self._missing = int(length)  # h11 takes digits alone
        if event.status_code not in (200, 206):
            raise await self._failure()

    async def _failure(self) -> GateFailed:
        try:
            told = msgspec.json.decode(await self.body(), type=Failed).error
        except (*UNREADABLE, GateFailed):
            return GateFailed(
                CallFailure.BAD_ANSWER, f"the file gate answered with HTTP status {self.answer.status_code}"
            )
        return GateFailed(told.reason, told.message, retry=told.retry, retry_after=told.retry_after)

    async def body(self) -> bytes:
        """Returns a short answer. Raises GateFailed."""
        found = bytearray()
        async for piece in self.pieces():
            found += piece
            if len(found) > MOST_ANSWER_BYTES:
                raise GateFailed(CallFailure.BAD_ANSWER, "the file gate's answer is too long")
        return bytes(found)

    def pieces(self) -> AsyncIterator[Piece]:
        """Returns the answer's bytes, piece by piece. Reading them raises GateFailed at a cut."""
        return _Pieces(self)

    async def next(self) -> h11.Event | None:
        """Returns what comes next; None where it is no part of an answer. Raises GateFailed at a cut."""
        while True:
            event = self._kept()
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:
                return None
            self._http.receive_data(await self._received(PIECE_BYTES))

    async def piece(self) -> Piece:
        """Returns what comes next of the answer's body, b"" at its end. Raises GateFailed at a cut.

        What did not come with the head is read past h11, which would copy it twice, into memory that is used again.
        """
        event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED] | None
        if self._missing is None:
            event = await self.next()
            if isinstance(event, h11.EndOfMessage):
                return b""
        elif not self._missing:
            await trio.lowlevel.checkpoint()
            return b""
        else:
            event = self._kept()
        piece: Piece
        if isinstance(event, h11.Data):
            piece = bytes(event.data)
        elif event is h11.NEED_DATA and self._missing:
            piece = await self._received_again(min(PIECE_BYTES, self._missing))
        else:
            piece = b""
        if not piece:
            raise GateFailed(UNANSWERED, "the file gate broke off")
        if self._missing:
            self._missing -= len(piece)
        return piece

    def _kept(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Returns the next event of what has come. Raises GateFailed where it is no HTTP."""
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError:
            raise GateFailed(UNANSWERED, "the file gate broke off") from None

    async def _received(self, most_bytes: int) -> bytes:
        try:
            with _in_time():
                return bytes(await self._stream.receive_some(most_bytes))
        except trio.BrokenResourceError:
            raise GateFailed(UNANSWERED, "the file gate broke off") from None

    async def _received_again(self, most_bytes: int) -> Piece:
        """As `_received`, into one of two buffers in turn: large blocks of memory cost more to get than the bytes that go through them."""
        if not isinstance(self._stream, trio.SocketStream):
            return await self._received(most_bytes)
        if not self._buffers:
            self._buffers = [memoryview(bytearray(PIECE_BYTES)) for _ in range(2)]
        self._buffers.reverse()
        into = self._buffers[0][:most_bytes]
        try:
            with _in_time():
                return into[: await self._stream.socket.recv_into(into)]
        except OSError:
            raise GateFailed(UNANSWERED, "the file gate broke off") from None


class _Pieces:
    """The bytes of an answer. A class and no generator: whoever stops in the middle has nothing to close."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    def __aiter__(self) -> "_Pieces":
        return self

    async def __anext__(self) -> Piece:
        piece = await self._exchange.piece()
        if not piece:
            raise StopAsyncIteration
        return piece


@contextmanager
def _in_time() -> Iterator[None]:
    """Bounds one step on the network. Raises GateFailed where nothing moves, or the connection is reset while an answer is waited for."""
    try:
        with trio.fail_after(ANSWER_SECONDS):
            yield
    except trio.TooSlowError:
        raise GateFailed(UNANSWERED, f"nothing moved for {ANSWER_SECONDS:g} s") from None


def _hash_of(body: bytes) -> str:
    return sha256(body).hexdigest()


def _header(answer: h11.Response, name: bytes) -> bytes:
    return next((value for key, value in answer.headers if key == name), b"")
