"""Files in chunks: whole or not at all, in bounded memory (PROTOCOL §5.9)."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from crypto.errors import Reason, Unreadable
from crypto.files import (
    CHUNK_BYTES,
    MAX_FILE_BYTES,
    Attachment,
    FileKey,
    FileOpener,
    FileSealer,
    file_aad,
    sealed_size,
)
from crypto.primitives import aead_seal
from tests.crypto.builders import CONVERSATION, reason_of, stream

pytestmark = pytest.mark.pure

SEALED = CHUNK_BYTES + 16


def _seal(content: bytes, piece_bytes: int = 300_000) -> tuple[Attachment, bytes]:
    key = FileKey.generate(stream(1))
    sealer = FileSealer(key, CONVERSATION, "upload-1")
    sealed = b"".join(
        chunk
        for start in range(0, len(content), piece_bytes)
        for chunk in sealer.feed(content[start : start + piece_bytes])
    )
    sealed += sealer.finish()
    attachment = Attachment("file-1", "upload-1", key, sealer.size, sealer.sha256, "text/plain", "a.txt")
    return attachment, sealed


def _open(attachment: Attachment, sealed: bytes, piece_bytes: int = 700_000) -> bytes:
    opener = FileOpener(attachment, CONVERSATION)
    opened = b"".join(
        chunk
        for start in range(0, len(sealed), piece_bytes)
        for chunk in opener.feed(sealed[start : start + piece_bytes])
    )
    return opened + opener.finish()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_file_comes_back_as_it_was(size: int) -> None:
    content = stream(2)(size)
    attachment, sealed = _seal(content)
    assert len(sealed) == sealed_size(size)
    assert attachment.sha256 == hashlib.sha256(sealed).hexdigest()
    assert _open(attachment, sealed) == content
    assert _open(attachment, sealed, piece_bytes=10 * CHUNK_BYTES) == content


def _refused(attachment: Attachment, sealed: bytes) -> None:
    """Refused even where the payload's hash would fit: the chunks themselves must not."""
    told = msgspec.structs.replace(attachment, sha256=hashlib.sha256(sealed).hexdigest())
    assert reason_of(lambda: _open(told, sealed)) is Reason.BAD_CIPHERTEXT


def test_chunks_cannot_be_cut_off_reordered_repeated_or_left_out() -> None:
    attachment, sealed = _seal(stream(3)(3 * CHUNK_BYTES + 100))
    one, two, three, last = (
        sealed[:SEALED],
        sealed[SEALED : 2 * SEALED],
        sealed[2 * SEALED : 3 * SEALED],
        sealed[3 * SEALED :],
    )
    for changed in (
        one + two + three,
        one + two,
        b"",
        sealed[:-1],
        two + one + three + last,
        one + three + last,
        one + one + two + three + last,
        sealed + last,
        sealed + b"x",
    ):
        _refused(attachment, changed)


def test_a_file_of_another_conversation_upload_hash_or_size_is_refused() -> None:
    attachment, sealed = _seal(b"content")
    opener = FileOpener(attachment, "another conversation")
    assert list(opener.feed(sealed)) == []
    assert reason_of(opener.finish) is Reason.BAD_CIPHERTEXT
    for changes in ({"file_id": "upload-2"}, {"sha256": "0" * 64}, {"size": 8}):
        changed = msgspec.structs.replace(attachment, **changes)
        assert reason_of(lambda changed=changed: _open(changed, sealed)) is Reason.BAD_CIPHERTEXT  # type: ignore[misc]


def test_an_empty_last_chunk_after_others_is_refused() -> None:
    attachment, _ = _seal(b"")
    content = bytes(CHUNK_BYTES)
    key = attachment.file_key
    aad = file_aad(CONVERSATION, attachment.file_id)
    first = aead_seal(key.key, key.nonce_prefix + bytes(5), content, aad)
    last = aead_seal(key.key, key.nonce_prefix + b"\0\0\0\x01\x01", b"", aad)
    told = msgspec.structs.replace(attachment, size=CHUNK_BYTES)
    _refused(told, first + last)


PIECE_BYTES = 64 * 1024
LARGEST_PIECES = 100 * 1024 * 1024 // PIECE_BYTES


def _peak_bytes(pieces: Iterator[bytes], feed: Callable[[bytes], Iterator[bytes]]) -> int:
    """The most memory that feeding the pieces takes, what comes out dropped at once, as when it goes to a socket."""
    tracemalloc.start()
    try:
        for piece in pieces:
            for _part in feed(piece):
                pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _sealed_pieces(key: FileKey) -> Iterator[bytes]:
    """100 MB of zeros, sealed, a chunk at a time."""
    sealer = FileSealer(key, CONVERSATION, "upload-1")
    for _ in range(LARGEST_PIECES):
        yield from sealer.feed(bytes(PIECE_BYTES))


def test_100_mb_are_sealed_in_4_mib() -> None:
    sealer = FileSealer(FileKey.generate(stream(4)), CONVERSATION, "upload-1")
    piece = bytes(PIECE_BYTES)
    assert _peak_bytes((piece for _ in range(LARGEST_PIECES)), sealer.feed) <= 4 * 1024 * 1024
    assert sealer.size == 100 * 1024 * 1024


def test_100_mb_are_opened_in_4_mib(tmp_path: Path) -> None:
    key = FileKey.generate(stream(4))
    sealed = tmp_path / "sealed"
    with sealed.open("wb") as file:
        for chunk in _sealed_pieces(key):
            file.write(chunk)
    opener = FileOpener(Attachment("f", "upload-1", key, 0, "", "", ""), CONVERSATION)
    with sealed.open("rb") as file:
        assert _peak_bytes(iter(lambda: file.read(PIECE_BYTES), b""), opener.feed) <= 4 * 1024 * 1024


def test_a_file_over_100_mb_is_refused_before_it_is_sealed() -> None:
    sealer = FileSealer(FileKey.generate(stream(5)), CONVERSATION, "upload-1")
    sealer.size = MAX_FILE_BYTES
    with pytest.raises(ValueError, match="100 MB"):
        list(sealer.feed(b"x"))


def test_an_attachment_round_trips_through_the_payload() -> None:
    attachment, _ = _seal(b"content")
    entry = attachment.to_payload()
    assert Attachment.from_payload(entry) == attachment
    assert repr(attachment.file_key.key)[2:-1] not in repr(attachment)
    for key, value in (
        ("key", "AAAA"),
        ("nonce_prefix", "x"),
        ("sha256", "A" * 64),
        ("size", -1),
        ("size", "1"),
        ("filename", None),
    ):
        changed = entry | {key: value}
        with pytest.raises(Unreadable) as refused:
            Attachment.from_payload(changed)
        assert refused.value.reason is Reason.BAD_PAYLOAD
