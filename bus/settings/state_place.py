"""Where the state stands in the directory that was given for it: right in it, or, where that is only lent, in a folder of ours.

Platforms lend directories: an emptyDir under fsGroup is root's with mode 2777, a tmpfs root's with 1777. Such a one may be used and cannot be
made private, so the state gets a folder in it that is ours alone. State that stands somewhere already stays there.
"""

import os
import stat
from pathlib import Path

from host.redis_folder import DATA_FOLDER

OWN_FOLDER = "hashee-agent"
MARKS = ("lock", DATA_FOLDER, "store.secret", "grants.head", "redis-seen.json", "control.sock")
"""Of a directory that has been in use, at least one stands in it."""


def state_place(given: Path) -> Path:
    """The state directory: `given`, or the folder of ours in it. Every process of an agent finds the same one; nothing is made."""
    own = given / OWN_FOLDER
    if _may_be_made_private(given):  # now; it may have been lent before, or root looks at what is lent to another
        return own if _is_in_use(own) and not _is_in_use(given) else given
    return own if os.access(given, os.W_OK | os.X_OK) else given


def _is_in_use(directory: Path) -> bool:
    return any(os.path.lexists(directory / mark) for mark in MARKS)


def _may_be_made_private(directory: Path) -> bool:
    try:
        found = directory.stat()
    except OSError:
        return True  # it is not there yet; or nobody can use it, which whoever wants to says
    if found.st_uid == os.geteuid():
        return True
    try:
        directory.chmod(stat.S_IMODE(found.st_mode))  # changes nothing; root may, unless that was taken from it too
    except OSError:
        return False
    return True
