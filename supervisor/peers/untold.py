"""Remembers what the relay does not tell now (a relation, devices, a member's keys, a group's key), and when it is asked again.

Messages that need it wait at the relay meanwhile, in their order; after WAIT_AT_RELAY_SECONDS they stand in quarantine, where an operator
sees them.
"""

import math
from typing import Final

import msgspec
import trio

from supervisor.relay.rest import RestFailed

LONGEST_PAUSE_SECONDS: Final = 60.0

IN_VAIN_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_PAUSE_SECONDS)
"""The pauses after the relay did not tell: what needs the answer waits there meanwhile, and nobody else."""

WAIT_AT_RELAY_SECONDS: Final = 600.0
"""So long messages wait at the relay for what it does not tell."""

MOST_UNTOLD: Final = 10_000
"""So many people and groups are remembered, of some hundred bytes each; what needs another one goes to quarantine at once."""


class NotTold(RestFailed):
    """Raised where the relay does not tell now what a message needs, and is asked again soon."""

    def __init__(self, about: str) -> None:
        super().__init__(about, 0, "not told by the relay now")


class _InVain(msgspec.Struct, frozen=True):
    """Since when the relay does not tell, how often it was asked, and when it is asked again."""

    since: float
    tries: int
    again_at: float


class Untold:
    """What one supervisor waits for, by the id of a person or a group."""

    def __init__(self, most: int = MOST_UNTOLD) -> None:
        self._most = most
        self._in_vain: dict[str, _InVain] = {}
        self._group_of: dict[str, str] = {}
        self._cleared_at = -math.inf

    def is_paused(self, thing: str) -> bool:
        """Returns whether it was asked for in vain, and is not asked for again yet."""
        noted = self._in_vain.get(thing)
        return noted is not None and trio.current_time() < noted.again_at

    def is_long(self, thing: str) -> bool:
        """Returns whether it was asked for in vain for so long that messages wait for it no longer."""
        noted = self._in_vain.get(thing)
        return noted is None or trio.current_time() - noted.since >= WAIT_AT_RELAY_SECONDS

    def note(self, thing: str) -> float:
        """Called when the relay was asked in vain. Returns the seconds until it may be asked again."""
        now = trio.current_time()
        self._forget_what_nobody_asks_for(now)
        before = self._in_vain.get(thing, _InVain(now, 0, now))
        pause_seconds = IN_VAIN_SECONDS[min(before.tries, len(IN_VAIN_SECONDS) - 1)]
        if before.tries or len(self._in_vain) < self._most:
            self._in_vain[thing] = _InVain(before.since, before.tries + 1, now + pause_seconds)
        return pause_seconds

    def _forget_what_nobody_asks_for(self, now: float) -> None:
        if now < self._cleared_at + IN_VAIN_SECONDS[0]:
            return
        self._cleared_at = now
        self._in_vain = {one: it for one, it in self._in_vain.items() if now < it.again_at + WAIT_AT_RELAY_SECONDS}
        self._group_of = {person: group for person, group in self._group_of.items() if group in self._in_vain}

    def told(self, thing: str) -> None:
        """Called when the relay has told it."""
        self._in_vain.pop(thing, None)

    def needs_group(self, person: str, group: str) -> None:
        """Called when a message of a person waits for what is not told of a group."""
        self._group_of[person] = group

    def holds_up(self, person: str) -> bool:
        """Returns whether what waits of a person could not be read now, so that it need not be fetched yet."""
        return self.is_paused(person) or self.is_paused(self._group_of.get(person, person))
