"""Has this machine stood still, or been put back with its memory? Then the relay's clock has gone on and this one has not (DESIGN rule 17).

Each connection begins with an answer that has the relay's date. How far that is ahead of the time since this host was started changes by
nothing but the clocks' drift for as long as the host runs, also while it sleeps and when its clock is set. A virtual machine that was put back
with its memory counts that time on from where it was. What was noted of it goes back as well and is as right as before: it is one number at all times.
A machine that merely stood still looks the same. That costs one small message for each conversation, as whatever cannot be proven does.
"""

from collections import deque
from email.utils import parsedate_to_datetime

import msgspec

from supervisor.relay.relay_date import RelayDate

SLACK_SECONDS = 5.0
"""So far apart may be the clocks of two of the relay's machines."""

DRIFT = 200e-6
"""Of two clocks that nobody corrects; good ones have a tenth of it."""

MOST_PER_DAY = 10
"""It is the relay's word: one that says another time at each connection costs no more than this."""

DATE_SECONDS = 1.0
DAY_SECONDS = 86_400.0


class Pace(msgspec.Struct, frozen=True):
    """The relay's clock was at most so far ahead of the time since the start of this host, at that time of it."""

    ahead: float
    at: float


class Standstill:
    """What the connections of one supervisor have shown. `pace`: of the last one, also of an earlier process on the same boot."""

    def __init__(self) -> None:
        self.pace: Pace | None = None
        self._told = deque[float](maxlen=MOST_PER_DAY)

    def heard(self, date: RelayDate) -> float:
        """How long the relay's clock went on while this machine did not, in seconds; 0 where that need not be so, or was said often today."""
        written = _seconds_of(date.text)
        if written is None:
            return 0.0
        before, self.pace = self.pace, Pace(written + DATE_SECONDS - date.asked, date.heard)
        if before is None:
            return 0.0
        lost = written - date.heard - before.ahead
        if lost <= SLACK_SECONDS + DRIFT * abs(date.heard - before.at):
            return 0.0
        if len(self._told) == MOST_PER_DAY and date.heard - self._told[0] < DAY_SECONDS:
            return 0.0
        self._told.append(date.heard)
        return lost


def _seconds_of(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
