"""A fresh ULID: what a stream is called, and ids in the test harness."""

import os
import time

from bus import ulid


def new_ulid() -> str:
    """26 upper-case characters."""
    return ulid.make(time.time_ns() // 1_000_000, os.urandom(ulid.RANDOM_BYTES))
