"""A file gate and a spool in memory: what is uploaded can be read. For the tests of owners (workers/testing.py), and ours."""

import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from bus.files.calls import Announced, CallFailure
from bus.records.records import Payload
from crypto.files import Attachment, FileKey, FileOpener, FileSealer
from workers.files.gate import GateFailed, Given, Pieces
from workers.files.spool import Spool, SpoolFile

PIECE_BYTES = 64 * 1024


class MemoryGate:
    """Keeps sealed bytes like a relay. `files`: by attachment id."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._uploads: dict[str, bytes] = {}
        self._next = 0

    def keep(self, content: bytes, conversation_id: str, *, name: str, media_type: str) -> Payload:
        """Keeps a file that a person sends; returns its entry in the message's `attachments`."""
        self._next += 1
        file_id, attachment_id = f"upload-{self._next}", f"file-{self._next}"
        key = FileKey.generate(os.urandom)
        sealer = FileSealer(key, conversation_id, file_id)
        self.files[attachment_id] = b"".join([*sealer.feed(content), sealer.finish()])
        attachment = Attachment(attachment_id, file_id, key, len(content), sealer.sha256, media_type, name)
        return attachment.to_payload()

    def content_of(self, entry: Mapping[str, object], conversation_id: str) -> bytes:
        """Returns the content of a file that was uploaded, by its entry in a message's `attachments`. Raises Unreadable."""
        attachment = Attachment.from_payload(entry)
        opener = FileOpener(attachment, conversation_id)
        return b"".join([*opener.feed(self.files[attachment.attachment_id]), opener.finish()])

    async def announce(self, conversation_id: str, size: int) -> Announced:  # noqa: ARG002 - as Gate
        """As GateClient.announce."""
        await trio.lowlevel.checkpoint()
        self._next += 1
        return Announced(f"upload-{self._next}", f"ticket-{self._next}")

    async def put(self, announced: Announced, size: int, pieces: Pieces) -> None:
        """As GateClient.put."""
        found = bytearray()
        async for piece in pieces():
            found += piece
        if len(found) != size:
            raise GateFailed(CallFailure.WRONG_LENGTH)
        self._uploads[announced.upload_id] = bytes(found)

    async def confirm(self, upload_id: str, sha256: str) -> str:
        """As GateClient.confirm."""
        await trio.lowlevel.checkpoint()
        sealed = self._uploads.get(upload_id)
        if sealed is None:
            raise GateFailed(CallFailure.UPLOAD_GONE, retry=False)
        if hashlib.sha256(sealed).hexdigest() != sha256:
            raise GateFailed(CallFailure.SHA256_MISMATCH, retry=False)
        attachment_id = upload_id.replace("upload", "file")
        self.files[attachment_id] = sealed
        return attachment_id

    @asynccontextmanager
    async def get(self, attachment_id: str, size: int, first_byte: int) -> AsyncIterator[Given]:
        """As GateClient.get."""
        await trio.lowlevel.checkpoint()
        sealed = self.files.get(attachment_id)
        if sealed is None:
            raise GateFailed(CallFailure.NO_SUCH_FILE, retry=False)
        if len(sealed) != size:
            raise GateFailed(CallFailure.WRONG_SIZE, retry=False)
        yield Given(first_byte, takes_ranges=True, pieces=_Slices(sealed, first_byte))


class _Slices:
    def __init__(self, sealed: bytes, at: int) -> None:
        self._sealed = sealed
        self._at = at

    def __aiter__(self) -> "_Slices":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._sealed[self._at : self._at + PIECE_BYTES]
        if not piece:
            raise StopAsyncIteration
        self._at += len(piece)
        return piece


class MemorySpool(Spool):
    """A spool whose files have no place on the disk."""

    def __init__(self) -> None:
        super().__init__(Path("(memory)"))
        self._descriptors: dict[str, int] = {}

    @contextmanager
    def new(self, conversation_id: str, entry: str, size: int) -> Iterator[SpoolFile]:  # noqa: ARG002 - as Spool
        """As Spool.new."""
        name = f"{entry}-{len(self._descriptors)}"
        self._descriptors[name] = descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        file = SpoolFile(self, name, os.dup(descriptor))
        try:
            yield file
        finally:
            file.close()

    @contextmanager
    def again(self, name: str) -> Iterator[SpoolFile]:
        """As Spool.again."""
        file = SpoolFile(self, name, os.dup(self._descriptors[name]))
        try:
            yield file
        finally:
            file.close()

    def has(self, name: str) -> bool:
        """As Spool.has."""
        return name in self._descriptors

    def remove(self, name: str) -> None:
        """As Spool.remove."""
        if name in self._descriptors:
            os.close(self._descriptors.pop(name))

    def reserve(self, size: int, day: str) -> None:
        """Counts nothing."""

    def release(self, size: int, day: str) -> None:
        """Counts nothing."""
