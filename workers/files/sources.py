"""Where the content of a file that is sent comes from: a file on the disk, bytes, a text, or pieces as they are made.

A file and bytes can be read again, pieces cannot: their size is not known before they have come, and they come once.
"""

import os
import stat
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Final, TypeAlias

import trio

from workers.errors import BadFile
from workers.files.gate import Piece
from workers.files.limits import check_size

READ_BYTES: Final = 1024 * 1024
"""Of the disk at a time, in a thread."""

Content: TypeAlias = Path | os.PathLike[str] | bytes | bytearray | str | AsyncIterable[bytes]


class Source:
    """Content that can be read. `size` is known before it is, except of pieces."""

    size: int | None = None

    def pieces(self) -> AsyncIterator[Piece]:
        """Returns the content from its beginning, piece by piece; each holds until the next is asked for. Raises BadFile."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Ends what reading has begun."""


def source_of(content: object) -> Source:
    """Returns the source of what a handler gave. Nothing is read, but of a file on the disk its size. Raises BadFile, FileTooLarge."""
    if isinstance(content, str):
        content = content.encode(errors="surrogatepass")
    if isinstance(content, bytes | bytearray | memoryview):
        check_size(len(content))
        return _OfBytes(bytes(content))
    if isinstance(content, os.PathLike):
        return _OfPath(Path(content))
    if isinstance(content, AsyncIterable):
        return _OfPieces(content)
    raise BadFile(
        f"a file is made of a Path, bytes, a text or an async iterator of bytes, not of {type(content).__name__}"
    )


class _OfBytes(Source):
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def pieces(self) -> AsyncIterator[Piece]:
        return _Slices(self._content)


class _Slices:
    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0

    def __aiter__(self) -> "_Slices":
        return self

    async def __anext__(self) -> Piece:
        await trio.lowlevel.checkpoint()
        piece = self._content[self._at : self._at + READ_BYTES]
        if not piece:
            raise StopAsyncIteration
        self._at += len(piece)
        return piece


class _OfPath(Source):
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = path.stat()
        except OSError as error:
            raise BadFile(f"the file cannot be sent: {error.strerror} ({path})") from None
        if not stat.S_ISREG(found.st_mode):
            raise BadFile(f"the file cannot be sent: {path} is no file")
        check_size(found.st_size)
        self.size = found.st_size
        self._reader: OpenedFile | None = None

    def pieces(self) -> AsyncIterator[Piece]:
        self._reader = OpenedFile(self._path)
        return self._reader

    async def aclose(self) -> None:
        if self._reader is not None:
            await self._reader.aclose()


class OpenedFile:
    """A file on the disk, read from its beginning in pieces. Opening and reading raise BadFile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._is_closed = False
        self._buffer = memoryview(bytearray(READ_BYTES))
        """Used again for each piece: a large block of memory costs more to get than the bytes that are read into it."""

    def __aiter__(self) -> "OpenedFile":
        return self

    async def __anext__(self) -> Piece:
        try:
            piece = await trio.to_thread.run_sync(self._read)
        except OSError as error:
            await self.aclose()
            raise BadFile(f"the file cannot be read: {error.strerror} ({self._path})") from None
        if not piece:
            await self.aclose()
            raise StopAsyncIteration
        return piece

    def _read(self) -> Piece:
        if self._is_closed:
            return b""
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._buffer[: os.readv(self._descriptor, [self._buffer])]

    async def aclose(self) -> None:
        """Closes it."""
        self._is_closed = True
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class _OfPieces(Source):
    def __init__(self, content: AsyncIterable[bytes]) -> None:
        self._content: AsyncIterable[bytes] | None = content
        self._iterator: AsyncIterator[bytes] | None = None

    def pieces(self) -> AsyncIterator[Piece]:
        if self._content is None:
            raise BadFile("an async iterator gives its pieces once: make a new File of a new one")
        self._iterator, self._content = aiter(self._content), None
        return self._iterator

    async def aclose(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()
