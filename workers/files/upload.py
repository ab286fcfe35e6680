"""Sends one file: announced, sealed while it is read, spooled as ciphertext, put, confirmed. What is done is noted in the thread's journal.

    nothing noted  → announce, seal into the spool and put what is sealed at once, note
    sealed         → put the spooled bytes, note             (without them, or where they are others: announce anew, under a fresh key)
    put            → confirm, note the attachment id         (the relay answers a repeat with the same id)
    confirmed      → nothing: a later run uploads nothing

Nothing waits for the disk: bytes of the spool that a power cut has spoiled have another hash than was noted, and are not sent.
A key and nonce prefix seal one content once: whatever is sealed again is sealed under fresh ones, and what is sent again are the same bytes.
"""

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec
import trio

from bus.files.calls import Announced
from crypto.files import MAX_FILE_BYTES, Attachment, FileKey, FileOpener, FileSealer, sealed_size
from workers.errors import BadFile, FileRefused, FileTooLarge, SpoolFull, SpoolUnusable
from workers.files.gate import Gate, GateFailed, Piece
from workers.files.outgoing import File
from workers.files.patience import ANEW, Patience
from workers.files.said import FileSaid
from workers.files.sources import Source
from workers.files.spool import Spool, SpoolFile

CLOSE_SECONDS: Final = 5.0
"""For the end of an iterator of the owner's, whatever ends the upload."""
TIMES_ANEW: Final = 3
"""An upload that the relay forgets, or has other bytes of, is begun anew so often."""
DRAFT: Final = "0" * 16
"""The entry of what is sealed before its size is known: no job goes on with it."""

Answer = TypeVar("Answer")


class Noted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the journal has of an upload. `ticket`: the gate's, until it is confirmed; `attachment_id`: once it is."""

    upload_id: str
    key: bytes
    nonce_prefix: bytes
    size: int
    sha256: str
    ticket: str = ""
    spool: str = ""
    is_put: bool = False
    attachment_id: str = ""

    def __repr__(self) -> str:
        return "Noted(…)"


Note = Callable[[Noted], Awaitable[None]]


def nothing() -> None:
    """Hears something, and does nothing."""


def entry_of(conversation_id: str, place: str, number: int) -> str:
    """Returns what stands for a file of a place in the names of its journal entry and of its spooled bytes."""
    return hashlib.sha256(f"{conversation_id}\0{place}\0{number}".encode()).hexdigest()[:16]


def name_of(entry: str) -> str:
    """Returns the name of the journal entry."""
    return f"file:{entry}"


def attachment_of(noted: Noted, file: File) -> Attachment:
    """Returns what a payload says of an upload, by which it is opened."""
    return Attachment(
        noted.attachment_id,
        noted.upload_id,
        FileKey(noted.key, noted.nonce_prefix),
        noted.size,
        noted.sha256,
        file.type,
        file.name,
    )


def said_of(noted: Noted, file: File) -> FileSaid:
    """Returns a file that was sent as its payload says it."""
    return FileSaid(
        attachment_id=noted.attachment_id,
        name=file.name,
        type=file.type,
        size=noted.size,
        kind=file.kind,
        alt=file.words or "",
        attachment=attachment_of(noted, file),
    )


@dataclass(frozen=True)
class Upload:
    """One upload into a conversation. `note` writes what is done into the journal; `spoiled` hears that the spool has other bytes than it noted."""

    gate: Gate
    spool: Spool
    conversation_id: str
    entry: str
    file: File
    note: Note
    spoiled: Callable[[], None] = nothing

    async def to_its_end(self, noted: Noted | None) -> Noted:
        """Returns what is noted of it once it is confirmed. `noted`: by an earlier run. Raises FileError."""
        if noted is not None and noted.attachment_id:
            return noted
        source = self.file.source()
        try:
            return await self._sent(source, noted)
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await source.aclose()

    async def _sent(self, source: Source, noted: Noted | None) -> Noted:
        with ExitStack() as opened:
            content = _Content(self, source, opened)
            failed: GateFailed | None = None
            for _ in range(TIMES_ANEW):
                spooled, early = None, None
                if noted is not None and not noted.is_put:
                    spooled = await self._left_by_an_earlier_run(noted, opened)
                if noted is None or not (noted.is_put or spooled):
                    noted, spooled, early = await self._seal(content, opened)
                    await self.note(noted)
                try:
                    return await self._deliver(noted, spooled, early)
                except GateFailed as error:
                    failed = error
                    self._forget(noted)
                    noted = None
            raise FileRefused(failed.reason if failed else "", "it was begun anew each time, in vain")

    async def _left_by_an_earlier_run(self, noted: Noted, opened: ExitStack) -> SpoolFile | None:
        """Returns the spooled bytes that an earlier run has noted; None where they are gone, or others."""
        if not self.spool.has(noted.spool):
            return None
        try:
            spooled = opened.enter_context(self.spool.again(noted.spool))
            if await trio.to_thread.run_sync(spooled.is_as_noted, sealed_size(noted.size), noted.sha256):
                return spooled
        except SpoolUnusable:
            pass  # nor can it be read: it is spoiled all the same
        self.spoiled()
        self._forget(noted)
        return None

    def _forget(self, noted: Noted) -> None:
        """Removes what is spooled of an upload that comes to nothing."""
        if noted.spool:
            self.spool.remove(noted.spool)

    async def _seal(self, content: "_Content", opened: ExitStack) -> tuple[Noted, SpoolFile, GateFailed | None]:
        """Announces it and seals its content into the spool, under a fresh key. Returns with it why it could not be put meanwhile."""
        size, day = await content.size(), datetime.now(UTC).date().isoformat()
        await trio.to_thread.run_sync(self.spool.reserve, size, day)
        try:
            return await self._seal_reserved(content, size, opened)
        except BaseException:
            with contextlib.suppress(
                SpoolFull, SpoolUnusable
            ):  # then it counts for that day; what ended it is what is told
                self.spool.release(size, day)
            raise

    async def _seal_reserved(
        self, content: "_Content", size: int, opened: ExitStack
    ) -> tuple[Noted, SpoolFile, GateFailed | None]:
        announced = await _patiently(lambda: self.gate.announce(self.conversation_id, sealed_size(size)))
        key = FileKey.generate(os.urandom)
        spooled = opened.enter_context(self.spool.new(self.conversation_id, self.entry, sealed_size(size)))
        sealer = FileSealer(key, self.conversation_id, announced.upload_id)
        try:
            failed = await self._seal_and_put(announced, spooled, sealer, content.pieces(), size)
        except BaseException:
            self.spool.remove(spooled.name)
            raise
        noted = Noted(
            upload_id=announced.upload_id,
            key=key.key,
            nonce_prefix=key.nonce_prefix,
            size=size,
            sha256=sealer.sha256,
            ticket=announced.ticket,
            spool=spooled.name,
            is_put=failed is None,
        )
        return noted, spooled, failed

    async def _seal_and_put(
        self, announced: Announced, spooled: SpoolFile, sealer: FileSealer, pieces: AsyncIterator[Piece], size: int
    ) -> GateFailed | None:
        """Seals the content and puts it as it is sealed. Returns why the gate has not all of it; None if it has."""
        failures = list[Exception]()
        failed: GateFailed | None = None

        async def put() -> None:
            nonlocal failed
            try:
                await self.gate.put(announced, sealed_size(size), spooled.pieces)
            except GateFailed as error:
                failed = error

        async with trio.open_nursery() as nursery:
            with spooled.growing():
                nursery.start_soon(put)
                try:
                    await _seal_into(spooled, sealer, pieces, size)
                except Exception as error:  # noqa: BLE001 - raised again outside of the nursery, not in a group
                    failures.append(error)
                    nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return failed

    async def _deliver(self, noted: Noted, spooled: SpoolFile | None, failed: GateFailed | None) -> Noted:
        """Puts what is not put yet, since that has `failed` or died, and confirms. Raises GateFailed where it is to be begun anew."""
        if spooled is not None and not noted.is_put:
            announced = Announced(noted.upload_id, noted.ticket)
            await _patiently(lambda: self.gate.put(announced, sealed_size(noted.size), spooled.pieces), failed)
            noted = msgspec.structs.replace(noted, is_put=True)
            await self.note(noted)
        attachment_id = await _patiently(lambda: self.gate.confirm(noted.upload_id, noted.sha256))
        done = msgspec.structs.replace(noted, attachment_id=attachment_id, ticket="", spool="")
        await self.note(done)
        self.spool.remove(noted.spool)
        return done


class _Content:
    """The content of one upload, which may be read again where it is begun anew.

    What comes in pieces is sealed as it comes, under a key that is kept in memory only, since its size is to be known before it is sealed for others.
    """

    def __init__(self, upload: Upload, source: Source, opened: ExitStack) -> None:
        self._upload = upload
        self._source = source
        self._opened = opened
        self._draft: tuple[SpoolFile, Attachment] | None = None

    async def size(self) -> int:
        """Returns its size in bytes. Raises BadFile, FileTooLarge, SpoolFull."""
        if self._source.size is not None:
            return self._source.size
        if self._draft is None:
            self._draft = await self._drafted()
        return self._draft[1].size

    def pieces(self) -> AsyncIterator[Piece]:
        """Returns it from its beginning."""
        if self._draft is None:
            return self._source.pieces()
        return _Opened(*self._draft, self._upload.conversation_id)

    async def _drafted(self) -> tuple[SpoolFile, Attachment]:
        upload, key = self._upload, FileKey.generate(os.urandom)
        file = self._opened.enter_context(upload.spool.new(upload.conversation_id, DRAFT, sealed_size(MAX_FILE_BYTES)))
        upload.spool.remove(file.name)  # its descriptor has it: nothing is left of it, however this ends
        sealer = FileSealer(key, upload.conversation_id, DRAFT)
        await _seal_into(file, sealer, self._source.pieces(), None)
        return file, Attachment(DRAFT, DRAFT, key, sealer.size, sealer.sha256, "", "")


class _Opened:
    """The content of a draft, opened again piece by piece."""

    def __init__(self, file: SpoolFile, attachment: Attachment, conversation_id: str) -> None:
        self._sealed = file.pieces()
        self._opener = FileOpener(attachment, conversation_id)
        self._ready = deque[bytes]()
        self._is_at_end = False

    def __aiter__(self) -> "_Opened":
        return self

    async def __anext__(self) -> bytes:
        while not self._ready and not self._is_at_end:
            try:
                self._ready.extend(self._opener.feed(await anext(self._sealed)))
            except StopAsyncIteration:
                self._is_at_end = True
                self._ready.append(self._opener.finish())
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()


async def _seal_into(file: SpoolFile, sealer: FileSealer, pieces: AsyncIterator[Piece], size: int | None) -> None:
    """Seals pieces into a file. `size`: so many bytes they are to have. Raises BadFile, FileTooLarge, SpoolFull."""
    async for piece in pieces:
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise BadFile(f"the pieces of a file are bytes, not {type(piece).__name__}")
        if sealer.size + len(piece) > MAX_FILE_BYTES:
            raise FileTooLarge(sealer.size + len(piece), MAX_FILE_BYTES, "send it in parts, or a link to it")
        if size is not None and sealer.size + len(piece) > size:
            raise BadFile("the file has grown while it was read: send it when it is written")
        await file.write_each(sealer.feed(piece))
    if size is not None and sealer.size != size:
        raise BadFile("the file has shrunk while it was read: send it when it is written")
    await file.write_each([sealer.finish()])


async def _patiently(call: Callable[[], Awaitable[Answer]], failed: GateFailed | None = None) -> Answer:
    """Makes a call until it succeeds; `failed`: how it has ended before. Raises FileError; GateFailed where the upload is to be begun anew."""
    patience = Patience()
    while True:
        if failed is not None:
            if failed.reason in ANEW:
                raise failed
            await patience.after(failed)
        try:
            return await call()
        except GateFailed as error:
            failed = error
