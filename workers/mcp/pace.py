"""How many messages of a server are taken in: one that sends without end waits for us, and not our jobs for it."""

from typing import Final

import trio

MOST_PER_SECOND: Final = 500.0
"""Of lines or events. A thousand take a tenth of a second of CPU; a server that tells of its progress sends some tens."""

MOST_AT_ONCE: Final = 2_000.0


class Pace:
    """Of one connection: a bucket of so many messages, which fills with time."""

    def __init__(self) -> None:
        self._left = MOST_AT_ONCE
        self._counted_at = trio.current_time()

    async def took(self, count: int) -> None:
        """Counts messages that have come, and waits where they are too many."""
        now = trio.current_time()
        self._left = min(MOST_AT_ONCE, self._left + (now - self._counted_at) * MOST_PER_SECOND) - count
        self._counted_at = now
        if self._left < 0:
            await trio.sleep(-self._left / MOST_PER_SECOND)
