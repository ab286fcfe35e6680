"""Encodes and decodes the inside of a backup: a sequence of frames with a signature at the end. No file is touched here.

    magic and version ‖ frame … ‖ trailer        a frame: 'F' ‖ u32 length ‖ body

age proves no author, since anybody can seal to a public key. So the trailer holds the agent's public pair and its Ed25519 signature over
that pair and SHA-256 of everything before it ('E' ‖ u32 length ‖ X25519 32 ‖ Ed25519 32 ‖ signature 64), and nothing follows. Frames
are proven only when `finish` has returned.
"""

import hashlib
from collections.abc import Iterator

from crypto.errors import Unreadable
from crypto.identity import IdentityKeys, PublicIdentity
from crypto.primitives import KEY_BYTES, SIGNATURE_BYTES
from supervisor.backup.errors import BackupDamaged, NewerBackup, NoBackup

FORMAT_VERSION = 1
MAGIC = b"hashee-agent-backup\n"
HEAD = MAGIC + FORMAT_VERSION.to_bytes(2, "big")
SIGNED_PREFIX = b"hashee-agent-backup-v1\x00"
FRAME, TRAILER = b"F", b"E"
BEFORE_BODY_BYTES = 1 + 4
TRAILER_BYTES = 2 * KEY_BYTES + SIGNATURE_BYTES
MOST_FRAME_BYTES = 32 << 20
"""A reader holds one frame in memory, whoever wrote it. Ours are a few mebibytes (bus/whole/snapshot.py)."""


class FrameTooLarge(Exception):
    """A value does not fit into the largest frame that a reader takes."""

    def __init__(self) -> None:
        super().__init__(
            f"one value in the store has more than {MOST_FRAME_BYTES >> 20} MiB, which no restore would take: the backup was not made"
        )


class FrameWriter:
    """Makes the bytes of a backup, to be written in the order of the calls."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def head(self) -> bytes:
        """Returns the bytes at the beginning."""
        return self._counted(HEAD)

    def frame(self, body: bytes) -> bytes:
        """Returns the bytes of a frame. Raises FrameTooLarge."""
        if len(body) > MOST_FRAME_BYTES:
            raise FrameTooLarge
        return self._counted(_framed(FRAME, body))

    def trailer(self, author: IdentityKeys) -> bytes:
        """Returns the bytes at the end, with the signature."""
        signature = author.sign(SIGNED_PREFIX + author.public.pair + self._hash.digest())
        return _framed(TRAILER, author.public.pair + signature)

    def _counted(self, data: bytes) -> bytes:
        self._hash.update(data)
        return data


class BackupDecoder:
    """Decodes the bytes of a backup, which come in pieces of any size."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._unread = bytearray()
        self._has_head = False
        self._trailer: bytes | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the frames that `data` completes. Raises NoBackup, NewerBackup, BackupDamaged."""
        self._unread += data
        if not self._has_head:
            if len(self._unread) < len(HEAD):
                return
            _check_head(self._take(len(HEAD)))
            self._has_head = True
        while (frame := self._next_frame()) is not None:
            yield frame

    def finish(self) -> PublicIdentity:
        """Checks the signature after the last byte; returns the public pair that made it. Raises BackupDamaged."""
        if self._trailer is None or self._unread:
            raise BackupDamaged("the backup is cut short, or something stands behind its end")
        keys, signature = self._trailer[: 2 * KEY_BYTES], self._trailer[2 * KEY_BYTES :]
        try:
            author = PublicIdentity.checked(keys[:KEY_BYTES], keys[KEY_BYTES:])
        except Unreadable:
            raise BackupDamaged("what stands at the end of the backup are no public keys") from None
        if not author.has_signed(SIGNED_PREFIX + author.pair + self._hash.digest(), signature):
            raise BackupDamaged("the backup's signature does not fit: it was changed after it was made")
        return author

    @property
    def digest(self) -> bytes:
        """Returns SHA-256 of the signed bytes read so far."""
        return self._hash.digest()

    def _next_frame(self) -> bytes | None:
        if len(self._unread) < BEFORE_BODY_BYTES:
            return None
        kind, size = bytes(self._unread[:1]), int.from_bytes(self._unread[1:BEFORE_BODY_BYTES], "big")
        is_last = kind == TRAILER and size == TRAILER_BYTES
        if self._trailer is not None or not (is_last or (kind == FRAME and size <= MOST_FRAME_BYTES)):
            raise BackupDamaged("what stands in the backup is no frame of this format")
        if len(self._unread) < BEFORE_BODY_BYTES + size:
            return None
        if not is_last:
            return self._take(BEFORE_BODY_BYTES + size)[BEFORE_BODY_BYTES:]
        self._trailer = bytes(self._unread[BEFORE_BODY_BYTES:])[:size]
        del self._unread[: BEFORE_BODY_BYTES + size]
        return None

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        self._hash.update(taken)
        return taken


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "big") + body


def _check_head(head: bytes) -> None:
    if not head.startswith(MAGIC):
        raise NoBackup("this opens, but holds something else than `hashee-agent backup` writes")
    version = int.from_bytes(head[len(MAGIC) :], "big")
    if version > FORMAT_VERSION:
        raise NewerBackup(
            f"the backup has format {version}, and this version of hashee-agent reads up to {FORMAT_VERSION}: "
            "restore it with the version that made it, or a later one"
        )
