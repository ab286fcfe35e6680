"""Reads the body of the relay's answer in pieces, bounded: it is weighed as it comes, and again as what it is once decompressed.

A compressed body may grow a thousandfold, so no library opens it: one layer of gzip is opened here, piece by piece, and nothing else.
"""

import math
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Final, cast

import httpx2
import trio

PIECE_BYTES: Final = 64 * 1024
"""The most that is decompressed at once, and so the most that is held beyond what the body's reader keeps."""

GZIP: Final = 16 + zlib.MAX_WBITS
"""What zlib is told to expect: a gzip header and trailer."""


class BodyRefused(Exception):
    """Raised for a body that is too large, or encoded as nobody asked for. The text names the bound or the encoding, nothing of the body."""


async def pieces(answer: httpx2.Response, most_bytes: int) -> AsyncGenerator[bytes]:
    """Yields the body as it comes, decompressed, in pieces of at most PIECE_BYTES. Raises BodyRefused, also in the middle of it."""
    opened = _opener(answer)
    came = given = 0
    async with aclosing(raw_pieces(answer)) as raw:
        async for piece in raw:
            came += len(piece)
            for part in opened(piece):
                given += len(part)
                if given > most_bytes:
                    break
                yield part
                await trio.lowlevel.checkpoint()  # a small piece may open into many
            if max(came, given) > most_bytes:
                raise BodyRefused(f"answer over {most_bytes} bytes")


async def whole(answer: httpx2.Response, most_bytes: int) -> bytes:
    """Returns the whole body, decompressed. Raises BodyRefused."""
    body = bytearray()
    async with aclosing(pieces(answer, most_bytes)) as parts:
        async for part in parts:
            body += part
    return bytes(body)


async def raw_pieces(answer: httpx2.Response) -> AsyncGenerator[bytes]:
    """Yields the bytes on the wire. Not by the response's own iterators, which keep for ever what follows the end of a gzip stream."""
    stream: AsyncIterator[bytes] = aiter(cast(httpx2.AsyncByteStream, answer.stream))
    try:
        async for piece in stream:
            yield piece
    finally:
        # The library's iterators do not close each other: one that is left in its middle ends by being cancelled at its next read.
        with trio.CancelScope(deadline=-math.inf):
            async for _ in stream:
                pass


def _opener(answer: httpx2.Response) -> Callable[[bytes], Iterator[bytes]]:
    """Returns what makes plain pieces of the bytes on the wire. Raises BodyRefused for an encoding that was not asked for."""
    encodings = [name.strip().lower() for name in answer.headers.get("Content-Encoding", "").split(",")]
    named = [name for name in encodings if name not in ("", "identity")]
    if not named:
        return _cut
    if named not in (["gzip"], ["x-gzip"]):
        raise BodyRefused(f"an encoding that was not asked for: {', '.join(named)[:64]!r}")
    return _Gunzip().feed


def _cut(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


class _Gunzip:
    """Decompresses one gzip stream; what follows its end is passed over."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(GZIP)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields what these bytes add, in pieces. Raises BodyRefused."""
        while not self._inflate.eof:
            try:
                piece = self._inflate.decompress(data, PIECE_BYTES)
            except zlib.error:
                raise BodyRefused("not the gzip that it says it is") from None
            data = self._inflate.unconsumed_tail
            if not piece and not data:
                return
            if piece:
                yield piece
