"""Checks the spool, in which sealed files wait on their way out: that it is this user's alone, and that its disk has the room of its quota."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bus.settings.spool_place import SEALED_ENDING
from crypto.files import MAX_FILE_BYTES
from host.budgets import MIB
from host.proc import file_system_of
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, at_least, bad, judged, ok, unknown, warn

SUBJECT = "spool"
OTHERS = 0o077
OLD_SECONDS = 86_400.0  # a file is sent, or given up, within the tries of its message
ROOM = "make room: df -h {0}; or a smaller HASHEE_SPOOL_MB, or another disk: HASHEE_SPOOL_DIR (docs/settings.md)"

IN_MEMORY = ("tmpfs", "ramfs")
ON_DISK = "HASHEE_SPOOL_DIR on a disk (docs/deploy/docker.md), or a HASHEE_SPOOL_MB that memory has room for"

Statvfs = Callable[[Path], os.statvfs_result]


def look_at_spool(
    case: Case, statvfs: Statvfs = os.statvfs, file_system: Callable[[int], str] = file_system_of
) -> Iterator[Finding]:
    """Yields the findings on the folder and on its disk; nothing where there are no files."""
    if not case.has_files:
        return
    if case.spool is None:
        yield unknown(SUBJECT, "folder", "the settings do not say where it is", "hashee-agent check-settings")
        return
    folder = case.spool.folder
    used, oldest = 0, time.time()
    try:
        found = folder.stat()
        for path in folder.glob(f"*{SEALED_ENDING}"):
            size, at = _one(path)
            used, oldest = used + size, min(oldest, at)
    except FileNotFoundError:
        yield ok(SUBJECT, "folder", f"{folder} is not there yet: it is made when the first file is sent")
    except OSError as problem:
        yield bad(
            SUBJECT, "folder", f"{folder}: {problem.strerror}", f"chown {os.geteuid()} {folder}; HASHEE_SPOOL_DIR"
        )
        return
    else:
        yield _folder(folder, found)
        yield _waiting(folder, used, time.time() - oldest)
    there = next(one for one in (folder, *folder.parents) if one.exists())
    yield _room(folder, statvfs(there), case.spool.most_bytes, used)
    if file_system(there.stat().st_dev) in IN_MEMORY:
        yield warn(SUBJECT, "disk", f"{folder} is in memory: what waits there counts against its limit", ON_DISK)


def _one(path: Path) -> tuple[int, float]:
    """Returns size and time of a file; of one that was sent meanwhile nothing."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, time.time()
    return found.st_size, found.st_mtime


def _folder(folder: Path, found: os.stat_result) -> Finding:
    if not stat.S_ISDIR(found.st_mode):
        return bad(SUBJECT, "folder", f"{folder} is no folder", "move it away, or set HASHEE_SPOOL_DIR")
    if found.st_uid != os.geteuid():
        said = f"{folder} belongs to uid {found.st_uid}, and this is uid {os.geteuid()}: workers use none but their own"
        return bad(SUBJECT, "folder", said, f"run this as the agent's user, or: chown {os.geteuid()} {folder}")
    if found.st_mode & OTHERS:
        said = f"{folder} has mode {stat.S_IMODE(found.st_mode):04o}: others than its owner can open it"
        return bad(SUBJECT, "folder", said, f"chmod 700 {folder}")
    return ok(SUBJECT, "folder", f"{folder}: mode {stat.S_IMODE(found.st_mode):04o}")


def _waiting(folder: Path, used: int, oldest_seconds: float) -> Finding:
    if not used:
        return ok(SUBJECT, "files", "no file waits")
    said = f"{used / MIB:.1f} MiB wait, the oldest for {oldest_seconds / 60:.0f} minutes"
    remedy = f"what no open message sends goes at a worker's next start: hashee-agent reload; ls -l {folder}; docs/runbooks/files.md"
    return judged(SUBJECT, "files", at_least(OLD_SECONDS - oldest_seconds, warns=0, spoils=-1e12), said, remedy)


def _room(folder: Path, found: os.statvfs_result, quota: int, used: int) -> Finding:
    free = found.f_bavail * found.f_frsize
    wanted = max(0, quota - used)
    said = (
        f"{folder}: {free // MIB} MiB free on its disk; {used // MIB} of {quota // MIB} may be used (HASHEE_SPOOL_MB)"
    )
    least = min(wanted, 2 * MAX_FILE_BYTES)
    return judged(SUBJECT, "room", at_least(free, warns=wanted, spoils=least), said, ROOM.format(folder))
