"""Files that only their owner may read, written whole or not at all: a temporary file, fsync, then its name.

Mode 0600 from the first byte on. A new file never takes the place of another unless that is what was asked for.
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


def write_new(path: Path, data: bytes) -> None:
    """Raises FileExistsError and leaves the file that is there; OSError."""
    temporary = _write_beside(path, data)
    try:
        give_name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def give_name(temporary: Path, path: Path) -> None:
    """A new name for a file that is whole; the other one may be left. Raises FileExistsError and leaves the file that is there; OSError.

    Where there are no hard links (FAT, some shares of a network) it is renamed after a second look, since nothing better is there.
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
    """In place of the former file if there is one. Raises OSError."""
    temporary = _write_beside(path, data)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """The folder, and those above it that are missing, mode 0700; one that is there stays as it is. Raises OSError."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def is_private(path: Path) -> bool:
    """Whether nobody but its owner can read or write it. Raises OSError."""
    return path.stat().st_mode & OTHERS == 0


def sync_folder(path: Path) -> None:
    """What was named or renamed in it is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
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
