"""What a process may use and see of the machine: raised at the start where this user may raise it, and refused where it is not enough.

Later it would be an error in the midst of the work: a connection that cannot be opened, a file of Redis that does not grow any more.
"""

import resource

from bus.settings.reader import SettingsError
from host.proc import BOOT_ID, boot_id, pid_namespace

LEAST_OPEN_FILES = 256
"""Of one process: the private Redis keeps 32 for itself and gives the others to who connects; a worker holds a few for each job."""

OPEN_FILES = "The limit of open files (ulimit -n)"
FILE_BYTES = "The limit of a file's size (ulimit -f)"
HOW_OPEN_FILES = "LimitNOFILE=, docker run --ulimit nofile="
HOW_FILE_BYTES = "LimitFSIZE=infinity, ulimit -f unlimited"
MIB = 1 << 20


def ready_limits(file_bytes: int = 0) -> None:
    """Raises the limits of this process and of what it starts as far as is needed. Raises SettingsError where they stay too low.

    `file_bytes`: how large a file has to become; 0 where that is told when it happens.
    """
    _ready(resource.RLIMIT_NOFILE, LEAST_OPEN_FILES, OPEN_FILES, f"{LEAST_OPEN_FILES} or more: {HOW_OPEN_FILES}")
    needed = f"{file_bytes // MIB} MiB or more, for the private Redis: {HOW_FILE_BYTES}"
    _ready(resource.RLIMIT_FSIZE, file_bytes, FILE_BYTES, needed)


def refuse_hidden_proc() -> None:
    """Raises SettingsError where the kernel does not say which boot of which host this is: by it a store that went back is noticed, and who is dead."""
    try:
        boot_id(), pid_namespace()
    except OSError as problem:
        how = f"{problem.strerror}): ProcSubset=all, or a /proc of its own where there is none"
        raise SettingsError(str(BOOT_ID), f"a file that this process can read ({how}") from None


def _ready(which: int, needed: int, name: str, expectation: str) -> None:
    soft, hard = resource.getrlimit(which)
    if _allows(soft, needed):
        return
    if not _allows(hard, needed):
        raise SettingsError(name, expectation)
    resource.setrlimit(which, (needed, hard))


def _allows(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
