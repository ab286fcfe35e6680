"""The folder in which sealed files wait until the relay has them: ciphertext alone, for this user alone, within a quota.

Nothing here waits for the disk. A killed process loses nothing of what it wrote; a power cut may leave less of a file, or other bytes. So a later
run sends what an earlier one has left only where it `is_as_noted`: else the file is read and sealed anew, which costs what waiting for each would.

A file's name says of which conversation and journal entry it is, so that a later start keeps what an open job will send and removes the rest.
Whoever writes or sends one holds a lock on it, which ends with its process. No name and no text of a person is in a file's name.
"""

import base64
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import trio

from bus.settings.spool_place import SEALED_ENDING
from host.unreadable import UNREADABLE
from workers.errors import SpoolFull, SpoolUnusable
from workers.files.limits import Sent, with_another, without

QUOTA_BYTES: Final = 2 * 1024 * 1024 * 1024
"""Five files of 100 MB at once, each twice while one that came in pieces is sealed, of two workers."""
DAY_FILE: Final = "sent-today.json"
_NAME: Final = re.compile(r"([A-Za-z0-9_-]{2,172})\.([0-9a-f]{16})\.[0-9a-f]{16}" + re.escape(SEALED_ENDING))
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, the user's share of it, or a file has reached the limit of its process (`ulimit -f`)."""

IsOpen = Callable[[str, str], Awaitable[bool]]
"""Whether the job that runs in a conversation, or that is to run there again, has noted an entry of this name."""


@dataclass(frozen=True)
class Spooled:
    """A file in the spool."""

    name: str
    conversation_id: str
    entry: str


class Spool:
    """The spool of one host's workers of an agent. Nothing is made before something is spooled."""

    def __init__(self, folder: Path, quota_bytes: int = QUOTA_BYTES) -> None:
        self.folder = folder
        self._quota_bytes = quota_bytes

    def path_of(self, name: str) -> Path:
        """Returns where a spooled file stands."""
        if not _NAME.fullmatch(name):
            raise ValueError("no name of a spooled file")
        return self.folder / name

    def has(self, name: str) -> bool:
        """Returns whether there is a spooled file of this name."""
        return _NAME.fullmatch(name) is not None and os.path.lexists(self.path_of(name))

    @contextmanager
    def new(self, conversation_id: str, entry: str, size: int) -> Iterator["SpoolFile"]:
        """Makes a file for `size` bytes, locked as long as the block runs. Raises SpoolFull, SpoolUnusable."""
        with self._named_errors():
            self._make_folder()
            used = sum(map(_size_of, self.folder.glob(f"*{SEALED_ENDING}")))
            if used + size > self._quota_bytes:
                raise SpoolFull(
                    str(self.folder),
                    f"{used} of {self._quota_bytes} bytes are used, and {size} more are needed (HASHEE_SPOOL_MB): "
                    "what is left of jobs that have ended goes at a worker's next start",
                )
            name = f"{_encoded(conversation_id)}.{entry}.{secrets.token_hex(8)}{SEALED_ENDING}"
            descriptor = os.open(
                self.folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        file = SpoolFile(self, name, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
        finally:
            file.close()

    @contextmanager
    def again(self, name: str) -> Iterator["SpoolFile"]:
        """Opens one that an earlier run has left, locked as long as the block runs. Raises SpoolUnusable."""
        with self._named_errors():
            descriptor = os.open(self.path_of(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        file = SpoolFile(self, name, descriptor)
        try:
            with contextlib.suppress(
                BlockingIOError
            ):  # another run of the job, which has lost it, still sends the same bytes
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield file
        finally:
            file.close()

    def remove(self, name: str) -> None:
        """Removes a file; it may be gone."""
        with contextlib.suppress(OSError):
            self.path_of(name).unlink()

    async def sweep(self, is_open: IsOpen) -> int:
        """Removes what nobody sends any more; returns how many files. What is locked is in use, what an open job has noted will be sent."""
        removed = 0
        for found in await trio.to_thread.run_sync(self._all):
            if not await is_open(found.conversation_id, found.entry):
                removed += await trio.to_thread.run_sync(self._remove_unless_locked, found.name)
        return removed

    def _all(self) -> list[Spooled]:
        try:
            names = sorted(one.name for one in self.folder.iterdir())
        except OSError:
            return []
        found = []
        for name in names:
            if (parts := _NAME.fullmatch(name)) and (conversation_id := _decoded(parts[1])) is not None:
                found.append(Spooled(name, conversation_id, parts[2]))
        return found

    def _remove_unless_locked(self, name: str) -> bool:
        try:
            descriptor = os.open(self.path_of(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.path_of(name).unlink()
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def reserve(self, size: int, day: str) -> None:
        """Counts a file against what may be sent on a day. Raises FileDailyLimit, SpoolFull, SpoolUnusable."""
        self._count(lambda sent: with_another(sent, size, day))

    def release(self, size: int, day: str) -> None:
        """Takes a file back that was counted on a day, and is not sent. Raises SpoolFull, SpoolUnusable."""
        self._count(lambda sent: without(sent, size, day))

    def _count(self, counted: Callable[[Sent], Sent]) -> None:
        with self._named_errors():
            self._make_folder()
            descriptor = os.open(self.folder / DAY_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                sent = msgspec.json.encode(counted(_sent_in(os.pread(descriptor, 4096, 0))))
                os.ftruncate(
                    descriptor, os.pwrite(descriptor, sent, 0)
                )  # in this order: a full disk takes no count away
            finally:
                os.close(descriptor)

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise SpoolUnusable(str(self.folder), "it is no folder of this user's own")
        if stat.S_IMODE(found.st_mode) & 0o077:
            self.folder.chmod(0o700)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.named(error) from None

    def named(self, error: OSError) -> SpoolFull | SpoolUnusable:
        """Returns what to raise for an error of the disk."""
        why = error.strerror or type(error).__name__
        return SpoolFull(str(self.folder), why) if error.errno in _NO_ROOM else SpoolUnusable(str(self.folder), why)


class SpoolFile:
    """A spooled file that is open. Its bytes are ciphertext."""

    def __init__(self, spool: Spool, name: str, descriptor: int) -> None:
        self._spool = spool
        self.name = name
        self._descriptor = descriptor
        self._is_growing = False
        self._has_grown = trio.Event()

    async def write_each(self, sealed: Iterable[bytes]) -> None:
        """Adds bytes, which a thread makes and writes. Raises SpoolFull, SpoolUnusable, and what making them raises."""
        await trio.to_thread.run_sync(self._write_each, sealed)
        self._wake()

    @contextmanager
    def growing(self) -> Iterator[None]:
        """Has whoever reads it wait for more at its end, until the end of the block."""
        self._is_growing = True
        try:
            yield
        finally:
            self._is_growing = False
            self._wake()

    def _wake(self) -> None:
        self._has_grown.set()
        self._has_grown = trio.Event()

    async def more(self) -> bool:
        """Waits until more of it was written; False if it is whole."""
        if self._is_growing:
            await self._has_grown.wait()
            return True
        return False

    def _write_each(self, sealed: Iterable[bytes]) -> None:
        for each in sealed:
            rest = memoryview(each)
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                raise self.named(error) from None

    def is_as_noted(self, size: int, sha256: str) -> bool:
        """Returns whether it has so many bytes, and these. It reads all of them. Raises SpoolUnusable."""
        try:
            if os.fstat(self._descriptor).st_size != size:
                return False
            with os.fdopen(self._descriptor, "rb", buffering=0, closefd=False) as file:
                file.seek(0)
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError as error:
            raise self.named(error) from None

    def pieces(self) -> "SpooledPieces":
        """Returns its bytes from their beginning, also where it was removed meanwhile. Reading them raises SpoolUnusable."""
        return SpooledPieces(self, self._descriptor)

    def named(self, error: OSError) -> SpoolFull | SpoolUnusable:
        """Returns what to raise for an error of the disk."""
        return self._spool.named(error)

    def close(self) -> None:
        """Ends the lock."""
        os.close(self._descriptor)


class SpooledPieces:
    """The bytes of a spooled file, also while it grows. The page cache has them, so that no thread is asked.

    Each piece holds until the next one is asked for: its memory is used again.
    """

    BYTES: Final = 512 * 1024

    def __init__(self, file: SpoolFile, descriptor: int) -> None:
        self._file = file
        self._descriptor = descriptor
        self._at = 0
        self._buffer = memoryview(bytearray(self.BYTES))

    def __aiter__(self) -> "SpooledPieces":
        return self

    async def __anext__(self) -> memoryview:
        await trio.lowlevel.checkpoint()
        count = self._read()
        while not count:
            is_whole = not await self._file.more()
            count = self._read()
            if is_whole and not count:
                raise StopAsyncIteration
        self._at += count
        return self._buffer[:count]

    def _read(self) -> int:
        try:
            return os.preadv(self._descriptor, [self._buffer], self._at)
        except OSError as error:
            raise self._file.named(error) from None


def _size_of(path: Path) -> int:
    """Returns how large a file is; 0 for one that was sent meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _encoded(conversation_id: str) -> str:
    return base64.urlsafe_b64encode(conversation_id.encode()).decode().rstrip("=")


def _decoded(said: str) -> str | None:
    try:
        return base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)).decode()
    except ValueError:
        return None


def _sent_in(found: bytes) -> Sent:
    try:
        return msgspec.json.decode(found, type=Sent)
    except UNREADABLE:
        return Sent()  # new, or cut by a power loss: the platform counts too
