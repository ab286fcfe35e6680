"""A folder whose path is short wherever pytest's own is: a socket's path has at most 107 bytes.

`from tests.short_folder import tmp_path` gives all tests of a file such a one.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

STILL_WRITTEN_SECONDS = 10.0


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="h-", dir="/tmp"))
    yield folder
    _remove(folder)


def _remove(folder: Path) -> None:
    """Removes it; a child of a Redis server that rewrites its file may outlive the server for a moment, and writes there."""
    deadline = time.monotonic() + STILL_WRITTEN_SECONDS
    while True:
        try:
            return shutil.rmtree(folder)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
