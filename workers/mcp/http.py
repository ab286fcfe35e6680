"""Requests to a server over HTTP, whose answers are read within a bound: the package's own client reads them whole, however long they are."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Final, cast

import httpx2

from workers.mcp.pace import Pace

MOST_ANSWER_BYTES: Final = 4 << 20
TOO_LONG: Final = f"an answer of more than {MOST_ANSWER_BYTES >> 20} MiB"
COMPRESSED: Final = "a compressed answer, though it was asked for none"
CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 300.0
"""Between two pieces of an answer; a call has a limit of its own."""

LINES_OF_AN_EVENT: Final = 2
"""At least: its data, and the empty line that ends it."""

EVENTS: Final = "text/event-stream"
"""Of a stream each event is bounded, by the package."""


class TooLong(httpx2.ReadError):
    """An answer is longer than is read."""


def client_of(headers: Mapping[str, str], tell: Callable[[str], None]) -> httpx2.AsyncClient:
    """Returns a client. It takes no proxy and no certificate from the environment. `tell` hears why an answer is not read."""
    return httpx2.AsyncClient(
        transport=_Bounded(httpx2.AsyncHTTPTransport(trust_env=False), tell),
        headers={**headers, "accept-encoding": "identity"},
        timeout=httpx2.Timeout(CONNECT_SECONDS, read=READ_SECONDS),
        trust_env=False,
    )


class _Bounded(httpx2.AsyncBaseTransport):
    def __init__(self, inner: httpx2.AsyncBaseTransport, tell: Callable[[str], None]) -> None:
        self._inner = inner
        self._tell = tell
        self._pace = Pace()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        why = _refused(response)
        if why:
            await response.aclose()
            self._tell(why)
            raise TooLong(why)
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101 - of an async transport
        is_events = response.headers.get("content-type", "").startswith(EVENTS)
        response.stream = _Paced(stream, self._pace) if is_events else _Counted(stream, self._tell)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def _refused(response: httpx2.Response) -> str:
    """Returns why an answer is not read, as its head says; '' if nothing is wrong with that."""
    if response.headers.get("content-encoding", "identity") != "identity":
        return COMPRESSED
    length = response.headers.get("content-length", "")
    return TOO_LONG if length.isdecimal() and int(length) > MOST_ANSWER_BYTES else ""


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, tell: Callable[[str], None]) -> None:
        self._inner = inner
        self._tell = tell

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async with aclosing(cast("AsyncGenerator[bytes]", aiter(self._inner))) as pieces:
            async for piece in pieces:
                count += len(piece)
                if count > MOST_ANSWER_BYTES:
                    self._tell(TOO_LONG)
                    raise TooLong(TOO_LONG)
                yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Paced(httpx2.AsyncByteStream):
    """A stream of events, each of which is bounded by the package; all streams of a connection share its pace."""

    def __init__(self, inner: httpx2.AsyncByteStream, pace: Pace) -> None:
        self._inner = inner
        self._pace = pace

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(cast("AsyncGenerator[bytes]", aiter(self._inner))) as pieces:
            async for piece in pieces:
                await self._pace.took(piece.count(b"\n") // LINES_OF_AN_EVENT)
                yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
