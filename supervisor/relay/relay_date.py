"""The date that the relay's answer to the upgrade carries, and the clock of this host with which it is compared."""

import time
from email.utils import parsedate_to_datetime

import msgspec


class RelayDate(msgspec.Struct, frozen=True):
    """The date of an answer (RFC 9110 §5.6.7, whole seconds). It was written between `asked` and `heard`, both by `boot_seconds`."""

    text: str
    asked: float
    heard: float

    @property
    def seconds(self) -> float | None:
        """Returns it as Unix time; None for a text that is no date."""
        try:
            return parsedate_to_datetime(self.text).timestamp()
        except (ValueError, OverflowError):
            return None


def boot_seconds() -> float:
    """Returns the seconds since this host was started, its sleep included. Nobody can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
