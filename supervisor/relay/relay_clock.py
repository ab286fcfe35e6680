"""Compares this host's clock with the relay's, which the answer to each connection told; in between by the time since the host's start.

A private Redis has the same clock as we: that one is wrong nobody else on this host can see. Nothing is decided by it.
"""

import time

from supervisor.relay.relay_date import RelayDate, boot_seconds

WRONG_SECONDS = 60.0
"""From here on it is reported, as `doctor` does: more than a slow answer or hosts that keep time can cause."""

DATE_SECONDS = 1.0
"""The relay tells whole seconds."""


class RelayClock:
    """The relay's clock as one supervisor knows it."""

    def __init__(self) -> None:
        self._date: RelayDate | None = None

    def heard(self, date: RelayDate) -> None:
        """Called with what each connection told; a text that is no date is passed over."""
        if date.seconds is not None:
            self._date = date

    def ahead_seconds(self) -> float:
        """Returns how far it is certainly ahead of ours, negative where it is behind; 0 while both may agree, or nothing is known."""
        if self._date is None or self._date.seconds is None:
            return 0.0
        ours, since_start = time.time(), boot_seconds()
        least = self._date.seconds + since_start - self._date.heard
        most = self._date.seconds + DATE_SECONDS + since_start - self._date.asked
        return max(0.0, least - ours) + min(0.0, most - ours)

    def fault(self) -> str:
        """Returns a text for people about a difference; '' while there is none to speak of."""
        ahead = self.ahead_seconds()
        if abs(ahead) < WRONG_SECONDS:
            return ""
        return f"this host's clock is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the relay's"
