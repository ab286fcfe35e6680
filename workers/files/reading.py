"""Reads a file that somebody sent: asks the gate for its ciphertext, goes on after a cut where it broke off, and opens it chunk by chunk.

What comes out is authentic and in order at each chunk; that nothing is missing behind it is known at the end, when the last chunk and the hash
have been checked. Whoever must not see a part delivers nothing before.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from crypto.files import Attachment, FileOpener, Unreadable, sealed_size
from workers.errors import FileBroken, FileError
from workers.files.gate import UNANSWERED, Gate, GateFailed, Piece
from workers.files.patience import Patience

CHANGED: Final = "changed"
SIZE: Final = "size"
PAYLOAD: Final = "payload"
"""Why a file is no such file: see FileBroken."""


class Fetch:
    """The ciphertext of a file, read by a task of its own, so that a reader that stops leaves no connection that nobody closes."""

    def __init__(self, gate: Gate, attachment: Attachment) -> None:
        self._gate = gate
        self._attachment = attachment
        self._size = sealed_size(attachment.size)
        self._send, self._receive = trio.open_memory_channel[Piece](0)
        self._failure: Exception | None = None
        self._received = 0

    async def run(self) -> None:
        """Reads it to its end, or until it is of no use."""
        with self._send:
            try:
                await self._read()
            except (FileError, trio.BrokenResourceError) as error:
                self._failure = error

    async def next(self) -> Piece | None:
        """Returns the next piece, None at the end; it holds until the next is asked for. Raises FileError."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from None
            return None

    def close(self) -> None:
        """Ends it; its task ends with the next piece."""
        self._receive.close()

    async def _read(self) -> None:
        patience = Patience()
        takes_ranges = False
        while self._received < self._size:
            before = self._received
            try:
                first_byte = self._received if takes_ranges else 0
                async with self._gate.get(self._attachment.attachment_id, self._size, first_byte) as given:
                    takes_ranges = given.takes_ranges
                    at = given.first_byte
                    async for piece in given.pieces:
                        at += len(piece)
                        await self._pass_on(piece, at)
                failed = GateFailed(UNANSWERED, "cut")  # unless it is whole
            except GateFailed as error:
                failed = error
            if self._received > before:
                patience.got_on()
            if self._received < self._size:
                await patience.after(failed)

    async def _pass_on(self, piece: Piece, at: int) -> None:
        """Passes on what of a piece, which ends at byte `at`, is new. What comes again after a cut is left out: its hash tells if it differs."""
        if at > self._size:
            raise FileBroken(SIZE, "more bytes than the message says")
        new = at - self._received
        if new > 0:
            self._received = at
            await self._send.send(piece[-new:] if new < len(piece) else piece)


class Opening:
    """A file as it is opened: `next` gives its content in pieces of at most 1 MiB, the last one when everything fits, then None."""

    def __init__(
        self, fetch: Fetch, attachment: Attachment, conversation_id: str, delivered: Callable[[int], None]
    ) -> None:
        """`delivered` is called with the number of bytes of each piece."""
        self._fetch = fetch
        self._opener = FileOpener(attachment, conversation_id)
        self._ready = deque[bytes]()
        self._is_at_end = False
        self._delivered = delivered

    async def next(self) -> bytes | None:
        """Returns the next piece. Raises FileError; FileBroken where it is not the file."""
        while not self._ready and not self._is_at_end:
            sealed = await self._fetch.next()
            try:
                if sealed is None:
                    self._is_at_end = True
                    self._ready.append(self._opener.finish())
                else:
                    self._ready.extend(self._opener.feed(sealed))
            except Unreadable as unreadable:
                self._fetch.close()
                raise FileBroken(CHANGED, unreadable.detail.removeprefix("file: ")) from None
        piece = self._ready.popleft() if self._ready else b""
        if not piece:  # the only piece of an empty file is empty too
            await trio.lowlevel.checkpoint()
            return None
        self._delivered(len(piece))
        return piece
