"""Checks the room on the disk of the state directory: bytes, against what a rewrite of the append-only file needs, and inodes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from host.budgets import MIB
from host.embedded import LEAST_REWRITE_BYTES
from host.redis_folder import APPEND_ONLY_FOLDER, DATA_FOLDER
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, at_least, judged, unknown

SUBJECT = "disk"
FILES_IN_USE = 100  # a start, a rewrite and a backup make a dozen
MANY_FILES = 1000
REMEDY = "make room: df -h {0}; df -i {0}; du -xsh {0}/*"

Statvfs = Callable[[Path], os.statvfs_result]


def look_at_disk(case: Case, statvfs: Statvfs = os.statvfs) -> Iterator[Finding]:
    """Yields the findings on the state directory, and on the private Redis' folder if that is another file system."""
    if case.state_dir is None:
        yield unknown(SUBJECT, "state directory", "the settings do not say where it is", "hashee-agent check-settings")
        return
    places = {"state directory": _there(case.state_dir)}
    redis_dir = case.state_dir / DATA_FOLDER
    if case.redis_is_private and redis_dir.is_dir() and redis_dir.stat().st_dev != _there(case.state_dir).stat().st_dev:
        places["redis"] = redis_dir
    needed = _rewrite_bytes(redis_dir) if case.redis_is_private else LEAST_REWRITE_BYTES
    for name, path in places.items():
        yield from _room(name, path, needed, statvfs(path))


def _room(name: str, path: Path, needed: int, found: os.statvfs_result) -> Iterator[Finding]:
    free = found.f_bavail * found.f_frsize
    said = f"{path}: {free // MIB} MiB free; rewriting Redis' file needs {needed // MIB}"
    yield judged(SUBJECT, name, at_least(free, warns=2 * needed, spoils=needed), said, REMEDY.format(path))
    if found.f_files:  # some file systems have as many as there is room for
        verdict = at_least(found.f_favail, warns=MANY_FILES, spoils=FILES_IN_USE)
        said = f"{path}: {found.f_favail} inodes free"
        yield judged(SUBJECT, f"{name}'s inodes", verdict, said, REMEDY.format(path))


def _rewrite_bytes(redis_dir: Path) -> int:
    """Returns the room that a rewrite needs at the worst: a second file as large as the present one, and what is written meanwhile."""
    return LEAST_REWRITE_BYTES + sum(_size(path) for path in (redis_dir / APPEND_ONLY_FOLDER).glob("*.aof"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # a rewrite has just replaced it


def _there(path: Path) -> Path:
    """Returns the directory, or the nearest existing one above it."""
    return next(one for one in (path, *path.parents) if one.exists())
