"""Fresh ULIDs, as people make them for `client_message_id` (PROTOCOL §1)."""

import os
import time

from bus.records import ulid


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def new_ulid() -> str:
    return ulid.make(now_ms(), os.urandom(ulid.RANDOM_BYTES))
