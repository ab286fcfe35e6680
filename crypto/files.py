"""Files (PROTOCOL §5.9): sealed in chunks of 1 MiB, so that 100 MB pass in bounded memory both ways.

A chunk's nonce holds its number and whether it is the last, so that chunks cannot be reordered, repeated,
left out or cut off. `FileSealer` and `FileOpener` are fed pieces of any size and belong to one caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from crypto import msgpack, strict_base64
from crypto.errors import Reason, Unreadable
from crypto.primitives import KEY_BYTES, TAG_BYTES, Random, aead_open_into, aead_seal

__all__ = [
    "CHUNK_BYTES",
    "MAX_FILE_BYTES",
    "Attachment",
    "FileKey",
    "FileOpener",
    "FileSealer",
    "Reason",
    "Unreadable",
    "file_aad",
    "sealed_size",
]

CHUNK_BYTES: Final = 1024 * 1024
"""One chunk in memory at a time, twice (plain and sealed): 4 MiB is never reached."""

NONCE_PREFIX_BYTES: Final = 7
MAX_FILE_BYTES: Final = 100 * 1024 * 1024

OPENED_BYTES: Final = 256 * 1024
"""What is opened comes in pieces of this size at most: a chunk is opened into memory that is used again, and a new block of 1 MiB for each
would cost more page faults than opening it costs time."""

_SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + TAG_BYTES
_LABEL: Final = "hashee-file-v1"


@dataclass(frozen=True, slots=True)
class FileKey:
    """The key and nonce prefix of one sealing pass; a second pass has others. The repr shows neither."""

    key: bytes = field(repr=False)
    nonce_prefix: bytes = field(repr=False)

    @classmethod
    def generate(cls, random: Random) -> FileKey:
        """Fresh ones."""
        return cls(random(KEY_BYTES), random(NONCE_PREFIX_BYTES))


class Attachment(msgspec.Struct, frozen=True):
    """What a payload says of a file: where it is, how to open it, what it is. The repr shows no key."""

    attachment_id: str
    file_id: str
    file_key: FileKey
    size: int
    sha256: str
    mime: str
    filename: str

    def to_payload(self) -> dict[str, object]:
        """One element of the payload's `attachments`."""
        return {
            "attachment_id": self.attachment_id,
            "file_id": self.file_id,
            "key": strict_base64.encode(self.file_key.key),
            "nonce_prefix": strict_base64.encode(self.file_key.nonce_prefix),
            "size": self.size,
            "sha256": self.sha256,
            "mime": self.mime,
            "filename": self.filename,
        }

    @classmethod
    def from_payload(cls, entry: Mapping[str, object]) -> Attachment:
        """Raises Unreadable `bad_payload`."""
        try:
            told = msgspec.convert(entry, AttachmentEntry)
            key = strict_base64.decode(told.key, KEY_BYTES)
            prefix = strict_base64.decode(told.nonce_prefix, NONCE_PREFIX_BYTES)
        except (msgspec.ValidationError, Unreadable, RecursionError, UnicodeError):
            raise Unreadable(Reason.BAD_PAYLOAD, "attachment") from None
        is_hex = len(told.sha256) == 64 and not set(told.sha256) - set("0123456789abcdef")
        if not is_hex or not 0 <= told.size <= MAX_FILE_BYTES:
            raise Unreadable(Reason.BAD_PAYLOAD, "attachment: size or sha256")
        return cls(
            told.attachment_id,
            told.file_id,
            FileKey(key, prefix),
            told.size,
            told.sha256,
            told.mime,
            told.filename,
        )


class AttachmentEntry(msgspec.Struct):
    attachment_id: str
    file_id: str
    key: str
    nonce_prefix: str
    size: int
    sha256: str
    mime: str
    filename: str


def sealed_size(size: int) -> int:
    """The ciphertext's size of a file of `size` bytes: what the upload announces."""
    chunks = max(1, -(-size // CHUNK_BYTES))
    return size + chunks * TAG_BYTES


def file_aad(conversation_id: str, file_id: str) -> bytes:
    """The associated data of every chunk."""
    return msgpack.encode([conversation_id, file_id, _LABEL])


class FileSealer:
    """Seals one file: `feed` pieces, then `finish`; each gives sealed chunks to send in order."""

    def __init__(self, file_key: FileKey, conversation_id: str, file_id: str) -> None:
        self._key = file_key
        self._aad = file_aad(conversation_id, file_id)
        self._waiting = _Chunk(CHUNK_BYTES)
        self._index = 0
        self._hash = hashlib.sha256()
        self.size = 0

    def feed(self, piece: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Sealed chunks that are complete now, to be iterated to the end; a full one may wait to be the last.

        Raises ValueError over 100 MB.
        """
        self.size += len(piece)
        if self.size > MAX_FILE_BYTES:
            raise ValueError("a file has at most 100 MB")
        rest = memoryview(piece)
        while rest:
            if self._waiting.is_full:
                yield self._seal(self._waiting.content, last=False)
                self._waiting.length = 0
            rest = rest[self._waiting.take(rest) :]

    def finish(self) -> bytes:
        """The last sealed chunk."""
        return self._seal(self._waiting.content, last=True)

    @property
    def sha256(self) -> str:
        """Of the ciphertext so far, lower-case hex."""
        return self._hash.hexdigest()

    def _seal(self, chunk: memoryview, *, last: bool) -> bytes:
        nonce = _nonce(self._key, self._index, last=last)
        sealed = aead_seal(self._key.key, nonce, chunk, self._aad)
        self._index += 1
        self._hash.update(sealed)
        return sealed


class FileOpener:
    """Opens one file: `feed` ciphertext as it comes, then `finish`, which is what makes the rest count.

    A reader that must not see a cut-off file delivers nothing before `finish` has returned.
    """

    def __init__(self, attachment: Attachment, conversation_id: str) -> None:
        self._attachment = attachment
        self._aad = file_aad(conversation_id, attachment.file_id)
        self._waiting = _Chunk(_SEALED_CHUNK_BYTES)
        self._opened = memoryview(bytearray(CHUNK_BYTES))
        self._index = 0
        self._hash = hashlib.sha256()
        self._size = 0

    def feed(self, piece: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Opened chunks that are not the last, in pieces, to be iterated to the end. Raises Unreadable `bad_ciphertext`."""
        rest = memoryview(piece)
        self._hash.update(rest)
        while rest:
            if self._waiting.is_full:
                opened = self._open(self._waiting.content, last=False)
                for at in range(0, len(opened), OPENED_BYTES):
                    yield bytes(opened[at : at + OPENED_BYTES])
                self._waiting.length = 0
            rest = rest[self._waiting.take(rest) :]

    def finish(self) -> bytes:
        """The last chunk, once everything fits. Raises Unreadable `bad_ciphertext` at a cut or a change."""
        chunk = self._open(self._waiting.content, last=True)
        if not chunk and self._index > 1:
            raise Unreadable(Reason.BAD_CIPHERTEXT, "file: an empty last chunk after others")
        if self._hash.hexdigest() != self._attachment.sha256 or self._size != self._attachment.size:
            raise Unreadable(Reason.BAD_CIPHERTEXT, "file: another hash or size than the payload says")
        return bytes(chunk)

    def _open(self, sealed: memoryview, *, last: bool) -> memoryview:
        """Opens a chunk into the memory of the one before."""
        nonce = _nonce(self._attachment.file_key, self._index, last=last)
        chunk = self._opened[: max(0, len(sealed) - TAG_BYTES)]
        try:
            aead_open_into(self._attachment.file_key.key, nonce, sealed, self._aad, chunk)
        except Unreadable:
            raise Unreadable(Reason.BAD_CIPHERTEXT, f"file: chunk {self._index} does not fit") from None
        self._index += 1
        self._size += len(chunk)
        return chunk


class _Chunk:
    """One chunk as it fills: its memory is taken once, since growing would hold it twice for a moment."""

    def __init__(self, size: int) -> None:
        self._bytes = memoryview(bytearray(size))
        self.length = 0

    @property
    def is_full(self) -> bool:
        return self.length == len(self._bytes)

    @property
    def content(self) -> memoryview:
        return self._bytes[: self.length]

    def take(self, piece: memoryview) -> int:
        """Fill up from the piece; how many bytes fitted."""
        count = min(len(piece), len(self._bytes) - self.length)
        self._bytes[self.length : self.length + count] = piece[:count]
        self.length += count
        return count


def _nonce(file_key: FileKey, index: int, *, last: bool) -> bytes:
    return file_key.nonce_prefix + index.to_bytes(4, "big") + (b"\x01" if last else b"\x00")
