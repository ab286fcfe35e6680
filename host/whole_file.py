"""Reads the small files that we keep ourselves, whatever stands under their names: opening a FIFO would wait for a writer that never comes.

Files that an operator names are not meant (secrets, settings): those may be a FIFO (`--env-file <(…)`).
"""

import errno
import os
import stat
from pathlib import Path

NO_FILE = frozenset({errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO})
"""What `read_whole` raises where something else than a file stands."""


def read_whole(path: Path, most_bytes: int) -> bytes:
    """Returns what is in a file, the first `most_bytes` of it, and waits for nobody. Raises OSError, also where something else stands there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "is no file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most_bytes)
    finally:
        os.close(descriptor)


def is_regular(path: Path) -> bool:
    """Returns whether a file stands there, or a link to one."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
