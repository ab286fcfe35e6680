"""Writes a backup to a new file, which gets its name once all of it is on the disk, and keeps the newest ones of a folder."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from host.private_files import give_name, sync_folder

SUFFIX = ".backup"
PARTIAL = ".partial"
FORGOTTEN_AFTER_SECONDS = 86_400.0  # a partial file of this age was left behind by a process that was killed


def named_in(folder: Path, agent_id: str) -> Path:
    """Returns the path for a backup that is made now in a folder of backups, to the microsecond: two within one second are two."""
    return folder / f"{agent_id}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}{SUFFIX}"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Gives a file, mode 0600, that gets its name at the end of the block, when it is complete. Raises FileExistsError, OSError."""
    if os.path.lexists(path):
        raise FileExistsError(0, "", str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        give_name(partial, path)
    except OSError as problem:
        if problem.filename is None:  # a write, as on a full disk
            problem.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def keep_newest(folder: Path, agent_id: str, keep: int, newest: str) -> list[Path]:
    """Deletes all but the newest `keep` backups of this agent in the folder; returns the deleted ones. Raises OSError.

    `newest`: the name of the one that was made just now. Names that are later than it were given while the clock was ahead, or this one
    while it is behind: they count as older, or they would stay for ever and each new one would be deleted at once.
    """
    made = sorted(folder.glob(f"{agent_id}-*{SUFFIX}"), key=lambda one: (one.name <= newest, one.name))
    gone = made[:-keep]
    now = time.time()
    left = [one for one in folder.glob(f".{agent_id}-*{PARTIAL}") if now - _changed_at(one) > FORGOTTEN_AFTER_SECONDS]
    for path in (*gone, *left):
        path.unlink(missing_ok=True)  # another one that is made at the same time deletes them too
    return gone


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf
