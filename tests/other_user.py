"""What a test as root needs to try something as another user: a number, and a directory that this user can reach.

Not pytest's own temporary directory: each run of pytest closes that of all runs to others.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

USER = 10001
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of other owners")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory in /tmp that others can pass through; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="reachable-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)
