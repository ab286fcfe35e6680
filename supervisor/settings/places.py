"""Where what must be found again in memory stands for these settings."""

from collections.abc import Mapping
from pathlib import Path

from host.socket_place import SHORT_DIR

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only a folder in it that nobody else can enter


def memory_places_of(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a file in memory may stand that has to be found again at the next start, whoever starts us; which of them are in memory shows later.

    systemd's RuntimeDirectory= first, which it keeps for us (RuntimeDirectoryPreserve=). /dev/shm before XDG_RUNTIME_DIR, which a login by
    another way does not have.
    """
    systemd = environ.get("RUNTIME_DIRECTORY", "").split(":", maxsplit=1)[0]
    named = (systemd, str(SHARED_MEMORY), environ.get("XDG_RUNTIME_DIR", ""), environ.get("TMPDIR", ""), str(SHORT_DIR))
    return tuple(dict.fromkeys(Path(one) for one in named if Path(one).is_absolute()))
