"""The relay's own date in the answer that a connection begins with, and the clock of this host that it is compared with."""

import time

import msgspec


class RelayDate(msgspec.Struct, frozen=True):
    """The date of an answer (RFC 9110, whole seconds), and between which times it was written, as `boot_seconds` counts."""

    text: str
    asked: float
    heard: float


def boot_seconds() -> float:
    """Since this host was started, also while it slept; nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
