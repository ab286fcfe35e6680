"""The current directory, also when it was deleted under the process: an agent whose handler is installed does not need it."""

from pathlib import Path

from host.proc import PROC

DELETED = PROC / "self/cwd"
"""An absolute path in which nothing is found once the directory is gone."""


def current_directory() -> Path:
    """Returns the current directory, or DELETED if it is gone. Never raises."""
    try:
        return Path.cwd()
    except OSError:
        return DELETED
