"""Files as a handler reads them, and the message that it finds them in: `[file] = message.files`.

Nothing is fetched before a handler asks for it. `save` and `bytes` deliver a file only when its last chunk and its hash have been checked;
`chunks` and `texts` deliver what is authentic and in order as it comes, and raise at the end where the file is not whole.
"""

import codecs
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Final, TypeVar

import trio

from bus.records.records import InboundMessage
from workers.errors import ChatClosed, FileBroken, FileError, FileNotSaved, FileNotText, FileTooLarge, HistoryNotKept
from workers.files.files import RunFiles
from workers.files.limits import DOWNLOADED_BYTES
from workers.files.names import Kind
from workers.files.reading import PAYLOAD, Opening
from workers.files.said import FileSaid, files_said
from workers.kept.history import Turn

TEXT_CHARACTERS: Final = 40_000
"""Some 10,000 tokens: what a language model reads well at once."""

Result = TypeVar("Result")
Failure = TypeVar("Failure", bound=FileError)
_RUN: Final = "_run_files"
"""Where a message has what its files are read by; it is no field, since it goes nowhere with the message."""
_QUOTED: Final = "_quoted"
"""Where it has what it quotes, None where that is not kept."""


class FormFile:
    """What stands for a file in the struct that a form is made of: `InboundFile`, in a `def` handler `BlockingFile`."""

    @classmethod
    def of(cls, file: "InboundFile") -> "FormFile":
        """Returns a file as this class reads it."""
        raise NotImplementedError


class InboundFile(FormFile):
    """A file that somebody sent. `kind`: file, image, audio or video; `type`: its media type, as its sender says; `alt`: what it shows or says.

    `name` is safe in any folder, whatever was sent. `size`: in bytes. All four are the sender's word.
    """

    def __init__(self, said: FileSaid, files: RunFiles | None) -> None:
        self._said = said
        self._files = files
        self._delivered = 0
        self._is_whole = False

    @classmethod
    def of(cls, file: "InboundFile") -> "InboundFile":
        return file

    def __repr__(self) -> str:
        return f"InboundFile(kind={self.kind!r}, size={self.size})"

    @property
    def id(self) -> str:
        return self._said.attachment_id

    @property
    def name(self) -> str:
        return self._said.name

    @property
    def type(self) -> str:
        return self._said.type

    @property
    def size(self) -> int:
        return self._said.size

    @property
    def kind(self) -> Kind:
        return self._said.kind

    @property
    def alt(self) -> str:
        return self._said.alt

    @property
    def percent(self) -> float:
        """How much of it was read, 0 to 100; 100 only when it is whole."""
        if self._is_whole:
            return 100.0
        return min(99.0, 100.0 * self._delivered / self.size) if self.size else 0.0

    def chunks(self) -> "Chunks":
        """Returns its content in pieces of at most 1 MiB: `async for chunk in file.chunks()`. Reading raises FileError.

        Each piece is authentic, and in its place. That none is missing behind it is known when the loop has ended.
        """
        return Chunks(self._reading)

    def texts(self, *, of: int = TEXT_CHARACTERS) -> "Texts":
        """Returns its text in pieces of so many characters, decoded from UTF-8. Reading raises FileNotText, FileError, as `chunks` does."""
        if of < 1:
            raise ValueError("texts(of=…) takes 1 character or more")
        return Texts(self, of)

    async def bytes(self, *, most: int = DOWNLOADED_BYTES) -> bytes:
        """Returns its content, once all of it was checked. Raises FileTooLarge over `most` bytes, before anything is read; FileError."""
        if self.size > most:
            raise self.failed(
                FileTooLarge(self.size, most, "read it by chunks() or save(), or allow more: bytes(most=…)")
            )
        found = bytearray()
        async for chunk in self.chunks():
            found += chunk
        return bytes(found)

    async def save(self, path: str | PathLike[str]) -> Path:
        """Writes it to a path (in a folder: under its own name), once all of it was checked; returns where it stands. Raises FileNotSaved, FileError.

        What stood there before is replaced at once or not at all. The file is readable by this user alone.
        """
        target = Path(path)
        if await trio.to_thread.run_sync(target.is_dir):
            target /= self.name
        try:
            async with _written(target) as write:
                async for chunk in self.chunks():
                    await write(chunk)
        except FileNotSaved as error:
            raise self.failed(error) from None
        return target

    def _reading(self) -> "_Reading":
        if self._files is None:
            raise ChatClosed("this file is of no run: a handler reads the files of its own message")
        attachment = self._said.attachment
        if attachment is None:
            raise self.failed(FileBroken(PAYLOAD, self._said.problem))
        self._delivered, self._is_whole = 0, False
        return _Reading(self, self._files, self._files.open(attachment, self._count))

    def failed(self, error: Failure) -> Failure:
        """Counts an error that a handler is about to hear; returns it."""
        if self._files is not None:
            self._files.ended("in", error)
        return error

    def _count(self, count: int) -> None:
        self._delivered += count

    def is_whole(self) -> None:
        """Notes that all of it was read and checked."""
        self._is_whole = True


class _Reading:
    """One reading of a file."""

    def __init__(self, file: InboundFile, files: RunFiles, opening: Opening) -> None:
        self._file = file
        self._files = files
        self._opening = opening
        self._is_over = False

    async def next(self) -> bytes | None:
        """Returns the next chunk, None at the end. Raises FileError."""
        if self._is_over:
            return None
        try:
            chunk = await self._opening.next()
        except FileError as error:
            self._is_over = True
            self._files.ended("in", error)
            raise
        if chunk is None:
            self._is_over = True
            self._file.is_whole()
            self._files.ended("in")
        return chunk


class Chunks:
    """A file's content, chunk by chunk. A class and no generator: a loop that is left in the middle has nothing to close."""

    def __init__(self, begin: Callable[[], _Reading]) -> None:
        self._begin = begin
        self._reading: _Reading | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._reading is None:
            self._reading = self._begin()
        chunk = await self._reading.next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk


class Texts:
    """A file's text, piece by piece."""

    def __init__(self, file: InboundFile, of: int) -> None:
        self._file = file
        self._chunks = file.chunks()
        self._of = of
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._read = 0
        self._is_at_end = False

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while len(self._text) < self._of and not self._is_at_end:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                chunk, self._is_at_end = b"", True
            self._text += self._decoded(chunk)
            self._read += len(chunk)
        text, self._text = self._text[: self._of], self._text[self._of :]
        if not text:
            raise StopAsyncIteration
        return text

    def _decoded(self, chunk: bytes) -> str:
        try:
            text = self._decoder.decode(chunk, self._is_at_end)
        except UnicodeDecodeError as error:
            raise self._file.failed(FileNotText(self._read + error.start - (len(error.object) - len(chunk)))) from None
        if "\0" in text:
            raise self._file.failed(
                FileNotText(self._read + chunk.find(b"\0"))
            )  # no text has one, and many files that are none do
        return text


@asynccontextmanager
async def _written(target: Path) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """Gives what writes into a file beside `target`, which takes its place at the end of the block. Raises FileNotSaved."""
    part = target.with_name(f".{secrets.token_hex(8)}.part")

    async def in_disk(operation: Callable[..., Result], *arguments: object) -> Result:
        try:
            return await trio.to_thread.run_sync(operation, *arguments)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise FileNotSaved(
                f"{why} (in {target.parent})"
            ) from None  # its name may be a person's word, and this reaches the log

    descriptor = await in_disk(_create, part)
    try:
        try:

            async def write(chunk: bytes) -> None:
                await in_disk(_write_all, descriptor, chunk)

            yield write
            await in_disk(os.fsync, descriptor)
        finally:
            os.close(descriptor)
        await in_disk(_move, part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _create(part: Path) -> int:
    return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _move(part: Path, target: Path) -> None:
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True)
class QuotedWords:
    """What is known of the message that another one quotes, but for its files. `is_known`: whether it is kept; if not there is its id alone.

    `text`: what was written in it.
    """

    message_id: str
    is_known: bool = False
    sender_id: str = ""
    text: str = field(default="", repr=False)


@dataclass(frozen=True)
class Quoted(QuotedWords):
    """The message that another one quotes. `files`: those of it that are kept, of a message at most 16, to be read as those of `message.files`."""

    files: tuple[InboundFile, ...] = ()


class Message(InboundMessage, frozen=True, kw_only=True, dict=True):
    """A message as a handler is given it: with its files, and what it quotes."""

    @cached_property
    def files(self) -> tuple[InboundFile, ...]:
        """The files of the message, also of one that quotes another and of an answer to a card; what is handled together with it has its own
        (`job.messages`).
        """
        return _files_in(self, self.__dict__.get(_RUN))

    @property
    def quoted(self) -> Quoted | None:
        """The message that it quotes, with its files; None if it quotes none.

        Known is what people have said and is kept, and what is handled together with this message. Raises HistoryNotKept where nothing is kept.
        """
        if self.reply_to is None:
            return None
        if _QUOTED not in self.__dict__:
            raise ChatClosed("this message is of no run: a handler looks at what its own message quotes")
        found: Quoted | None = self.__dict__[_QUOTED]
        if found is None:
            raise HistoryNotKept
        return found


def _files_in(message: InboundMessage, files: RunFiles | None) -> tuple[InboundFile, ...]:
    return tuple(InboundFile(said, files) for said in files_said(message.payload, message.attachments))


def message_in(message: InboundMessage, files: RunFiles | None) -> Message:
    """Returns a message with its files, which are read by a run; what it quotes is not looked for."""
    found = Message(**{name: getattr(message, name) for name in message.__struct_fields__})
    found.__dict__[_RUN] = files
    return found


def messages_in(
    messages: Sequence[InboundMessage], files: RunFiles | None, turns: Iterable[Turn] | None
) -> tuple[Message, ...]:
    """Returns the messages of a run, with their files and with what they quote. `turns`: what was said before; None where it is not kept."""
    found = tuple(message_in(one, files) for one in messages)
    for message in found:
        if message.reply_to is not None:
            message.__dict__[_QUOTED] = _quoted_by(message.reply_to, found, turns, files)
    return found


def _quoted_by(
    message_id: str, beside: Sequence[Message], turns: Iterable[Turn] | None, files: RunFiles | None
) -> Quoted | None:
    for one in beside:
        if one.message_id == message_id:
            return Quoted(message_id, is_known=True, sender_id=one.sender_id, text=one.text, files=one.files)
    if turns is None:
        return None
    for turn in turns:
        if turn.message_id == message_id:
            said = files_said(turn.shows, turn.attachments)
            found = tuple(InboundFile(one, files) for one in said)
            return Quoted(message_id, is_known=True, sender_id=turn.sender_id, text=turn.text, files=found)
    return Quoted(message_id)


__all__ = ["FormFile", "InboundFile", "Message", "Quoted", "QuotedWords", "message_in", "messages_in"]
