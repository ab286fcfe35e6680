"""Keeps replies in the order in which they came while they wait for the platform's rate of sends (PROTOCOL §1).

What counts is when a reply came, not when it was told to wait: one that comes now goes behind those that wait. One whose session changed
meanwhile is encrypted again in its turn, and does not begin behind all others.
"""

from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

import trio

from bus.steps.outbox import Commit
from supervisor.observe.metrics import Metrics
from supervisor.outbound.decisions import NextStep, next_step
from supervisor.relay.turnstile import Turnstile

Made = TypeVar("Made")
Attempt = Callable[[], Awaitable[tuple[Made, Commit]]]
"""Encrypts a reply and tries to commit it. Returns what was encrypted, and the commit's outcome. It is called as often as is needed."""


class RateLine:
    """The line of one supervisor. Each of several has its own, and Redis gives each send to one of those that stand first."""

    def __init__(self, metrics: Metrics, per_second: float = 0) -> None:
        """`per_second`: messages that the platform takes of the agent in a second; 0 for any number."""
        self.per_second = per_second
        self._line = Turnstile()
        self._places = count()
        self._metrics = metrics

    def place(self) -> int:
        """Returns a place behind all that were given out. It need not be used."""
        return next(self._places)

    async def commit(self, place: int, attempt: Attempt[Made]) -> tuple[Made, Commit, NextStep]:
        """Makes attempts until one is not told to wait, and returns that one's result and what follows from it: at once if nobody waits, else in this place's turn."""
        wait_ms = 0
        if not self._line.is_taken:
            made, commit = await attempt()
            if (step := next_step(commit)) is not NextStep.WAIT_FOR_RATE:
                return made, commit, step
            wait_ms = commit.wait_ms
        self._metrics.send_rate_waits.inc()
        async with self._line.turn(place):
            while True:
                await trio.sleep(wait_ms / 1000)
                made, commit = await attempt()
                if (step := next_step(commit)) is not NextStep.WAIT_FOR_RATE:
                    return made, commit, step
                wait_ms = commit.wait_ms
