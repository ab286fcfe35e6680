"""What a worker says of itself in Redis every few seconds, so that those elsewhere are seen too."""

import msgspec

PRESENCE_SECONDS = 12
"""A worker says every 5 s that it lives."""


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """A worker by its own word, every few seconds. Names, counts and times, no content. `started_ms`: Unix time, by its own clock."""

    consumer: str
    host: str
    pid: int
    version: str
    handler: str
    concurrency: int
    started_ms: int
    running: int
    jobs_done: int
    jobs_failed: int
    rss_bytes: int
    loop_lag_ms: float
    redis_clock_ahead_ms: int = 0
    """How far Redis' clock is ahead of this worker's."""
