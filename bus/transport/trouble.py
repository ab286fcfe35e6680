"""Tracks why a loop or a thread cannot do its work in Redis: reports each change once, and gives the pause before the next try.

The pause grows, and stays short enough that the loop goes on within two seconds after all is well again.
"""

from collections.abc import Callable

from bus.transport.wire import RedisFailed

FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 1.0

Tell = Callable[[str, str], None]
"""Called with the name of the loop and the reason (RedisFailed.reason), '' when it is over."""


class Trouble:
    """The trouble of one loop or thread. `reason`: why it cannot do its work now, '' while it can."""

    def __init__(self, who: str, tell: Tell) -> None:
        self._who = who
        self._tell = tell
        self._failures = 0
        self.reason = ""

    def met(self, error: RedisFailed) -> float:
        """Notes a failure; returns how many seconds to wait before the next try."""
        pause_seconds = min(LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self._become(error.reason)
        return pause_seconds

    def over(self) -> None:
        """Notes that it has done its work."""
        self._failures = 0
        self._become("")

    def _become(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            self._tell(self._who, reason)
