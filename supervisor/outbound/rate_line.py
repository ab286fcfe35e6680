"""Replies that wait for the platform's rate of sends (PROTOCOL §1): the one that came first goes next.

What counts is when a reply came, not when it was told to wait. One that comes now takes no turn of those that wait; one that was made with what
has changed meanwhile is made again in its turn, and does not begin behind all others.
"""

from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

import trio

from bus.steps.outbox import Commit, Committed
from supervisor.observe.metrics import Metrics
from supervisor.relay.turnstile import Turnstile

Made = TypeVar("Made")
Attempt = Callable[[], Awaitable[tuple[Made, Commit]]]
"""Makes it and tries to commit it; what was made, and what came of it. It may be made often."""


class RateLine:
    """Of one supervisor; each of several has its own, and Redis gives each send to one of those that stand first."""

    def __init__(self, metrics: Metrics) -> None:
        self._line = Turnstile()
        self._places = count()
        self._metrics = metrics

    def place(self) -> int:
        """A place behind all that were given out; it need not be used."""
        return next(self._places)

    async def commit(self, place: int, attempt: Attempt[Made]) -> tuple[Made, Commit]:
        """The first attempt that is not told to wait: at once where nobody waits, else when it is this place's turn."""
        wait_ms = 0
        if not self._line.is_taken:
            made, commit = await attempt()
            if commit.outcome is not Committed.WAIT:
                return made, commit
            wait_ms = commit.wait_ms
        self._metrics.send_rate_waits.inc()
        async with self._line.turn(place):
            while True:
                await trio.sleep(wait_ms / 1000)
                made, commit = await attempt()
                if commit.outcome is not Committed.WAIT:
                    return made, commit
                wait_ms = commit.wait_ms
