"""Finds out by the relay's clock whether this machine stood still, or was put back together with its memory (DESIGN rule 17).

Each connection begins with an answer that has the relay's date. Its difference to the time since this host was started changes only by
the clocks' drift while the host runs, also while it sleeps and when its clock is set. A virtual machine that was put back with its memory
goes on counting from where it was, so the difference grows. The noted difference is put back too and stays right, since it is constant.
A machine that merely stood still looks the same; then sessions are started anew without need, for one small message each.
"""

from collections import deque

import msgspec

from supervisor.relay.relay_date import RelayDate

SLACK_SECONDS = 5.0
"""The clocks of two of the relay's machines may differ by so much."""

DRIFT = 200e-6
"""Relative drift of two clocks that nobody corrects; good ones have a tenth of it."""

MOST_PER_DAY = 10
"""At most so many findings a day count: a relay that gives another time at each connection can cost us no more."""

DATE_SECONDS = 1.0
DAY_SECONDS = 86_400.0


class Pace(msgspec.Struct, frozen=True):
    """How far at most the relay's clock was ahead of the time since this host's start, and when that was measured."""

    ahead: float
    at: float


class Standstill:
    """Compares the relay's dates of one supervisor's connections. `pace`: of the last one, also by an earlier process since the same boot."""

    def __init__(self) -> None:
        self.pace: Pace | None = None
        self._told = deque[float](maxlen=MOST_PER_DAY)

    def heard(self, date: RelayDate) -> float:
        """Takes a connection's date; returns for how many seconds this machine certainly stood still, 0 for none or too often today."""
        written = date.seconds
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
