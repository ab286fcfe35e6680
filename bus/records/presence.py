"""The report that a worker writes of itself into Redis every few seconds, so that workers on other hosts are seen too."""

import msgspec

from host.unreadable import UNREADABLE

PRESENCE_SECONDS = 12
"""A worker reports every 5 s: two reports may be missing."""


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's report: names, counts and times, no content. `started_ms`: Unix time, by the worker's own clock."""

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
    """How far Redis' clock is ahead of this worker's, ms."""
    code: str = ""
    """Tells one version of the handlers' code from another; '' from a former version of this program."""

    def is_of_another_version(self, other: "Presence") -> bool:
        """Returns whether the other worker is of another version of this program, or runs another version of the handlers."""
        return (self.version, self.handler, self.code) != (other.version, other.handler, other.code)


def presence_of(text: bytes | None) -> Presence | None:
    """Decodes a worker's report; None if there is none, or this version cannot read it."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Presence)
    except UNREADABLE:
        return None  # a report of another version
