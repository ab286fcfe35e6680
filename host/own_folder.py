"""Whether a folder can be this user's alone, said before anything is made: at the start, where it is still told to whom it helps."""

import os
import stat
from pathlib import Path


def fault_of_own_folder(path: Path) -> str | None:
    """Returns why this user certainly can not make or use `path`, and what helps; None where nothing speaks against it. Changes nothing."""
    there = next((one for one in (path, *path.parents) if os.path.lexists(one)), path)
    try:
        found, link = there.stat(), there.lstat()
        is_read_only = bool(os.statvfs(there).f_flag & os.ST_RDONLY)
    except OSError as problem:
        return f"{there}: {problem.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{there} is no directory"
    us = os.geteuid()
    if link.st_uid not in (found.st_uid, us, 0):
        return f"{there} is a link that another user (uid {link.st_uid}) has made; remove it"
    if is_read_only:
        return f"{there} is on a file system that is read-only: name one on a volume that can be written"
    whose = (
        f"{there} belongs to uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}, and this process is uid {us}"
    )
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = (
            f"chown it to {us}, a mounted one on its host" if there == path else f"make {path} and chown it to {us}"
        )
        return f"{whose}: {remedy}, or name another"
    if there == path and us not in (found.st_uid, 0):
        return f"{whose}: remove it, or name another"
    return None
