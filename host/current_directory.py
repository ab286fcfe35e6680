"""Where a process stands, also when that was deleted under it: an agent whose handler is installed needs no such place."""

from pathlib import Path

DELETED = Path("/proc/self/cwd")
"""An absolute path in which nothing is found once the directory is gone."""


def current_directory() -> Path:
    """The current directory. Never raises."""
    try:
        return Path.cwd()
    except OSError:
        return DELETED
