"""Writes files that only their owner may read, whole or not at all: a temporary file, fsync, then its name.

Mode 0600 from the first byte on. Only `write_over` replaces a file that is there.
"""

import errno
import os
import tempfile
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600
OTHERS = 0o077
WITHOUT_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})
"""How file systems say that they have no hard links."""

WITHOUT_FOLDER_SYNC = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP})
"""How file systems (network shares, FUSE) say that they force no folder to the disk; PostgreSQL takes it so too."""


def write_new(path: Path, data: bytes) -> None:
    """Writes a new file. Raises FileExistsError if there is one, and leaves that as it is; OSError."""
    temporary = _write_beside(path, data)
    try:
        give_name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def give_name(temporary: Path, path: Path) -> None:
    """Gives a complete file its name; the temporary name may stay. Raises FileExistsError and leaves the file that is there; OSError.

    Where there are no hard links (FAT, some network shares) it checks once more and renames; another writer may come in between.
    """
    try:
        os.link(temporary, path)
    except OSError as problem:
        if problem.errno not in WITHOUT_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.rename(path)


def write_over(path: Path, data: bytes) -> None:
    """Writes a file, in place of the former one if there is one. Raises OSError."""
    temporary = _write_beside(path, data)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Makes the folder and the missing ones above it, mode 0700; an existing one stays as it is. Raises OSError."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def is_private(path: Path) -> bool:
    """Returns whether nobody but its owner can read or write it. Raises OSError."""
    return path.stat().st_mode & OTHERS == 0


def sync_folder(path: Path) -> None:
    """Forces names that were made or changed in the folder to the disk, where its file system can do that. Raises OSError, which names it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if problem.errno not in WITHOUT_FOLDER_SYNC:
            problem.filename = str(path)
            raise
    finally:
        os.close(descriptor)


def _write_beside(path: Path, data: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink()
        raise
    return temporary
