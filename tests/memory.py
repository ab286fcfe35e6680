"""A place in memory that is gone when the tests are: where agents that they start keep what outlives a process (supervisor/recovery/witness.py)."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own


@contextmanager
def own_memory() -> Iterator[Path]:
    """Whoever is started within the block with this process's environment uses the place that it is given."""
    with tempfile.TemporaryDirectory(prefix="hashee-tests-", dir=MEMORY) as place:
        before = os.environ.get("RUNTIME_DIRECTORY")
        os.environ["RUNTIME_DIRECTORY"] = place
        try:
            yield Path(place)
        finally:
            if before is None:
                del os.environ["RUNTIME_DIRECTORY"]
            else:
                os.environ["RUNTIME_DIRECTORY"] = before
