"""Waits before an operation that Redis did not do is tried again."""

import random

import trio

FIRST_SECONDS = 0.1
# So that work goes on within two seconds after Redis can do it again.
LAST_SECONDS = 1.5


class Backoff:
    """Waits that double up to a cap, each cut by a random share so that not all come back at once."""

    def __init__(self, first: float = FIRST_SECONDS, last: float = LAST_SECONDS) -> None:
        self._first = first
        self._last = last
        self._failures = 0

    @property
    def is_fresh(self) -> bool:
        """Returns True if nothing has failed since the start or the last reset: log a failure only then."""
        return self._failures == 0

    def reset(self) -> None:
        """Starts over with the shortest wait, after a success."""
        self._failures = 0

    async def wait(self) -> None:
        """Waits for the next, longer time."""
        longest = min(self._last, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        await trio.sleep(longest * random.uniform(0.5, 1))  # noqa: S311 - spreads load, guards nothing
