"""A folder whose path is short wherever pytest's own is: a socket's path has at most 107 bytes.

`from tests.short_folder import tmp_path` gives all tests of a file such a one.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="h-", dir="/tmp") as folder:
        yield Path(folder)
