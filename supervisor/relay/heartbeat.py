"""Is the relay still there? It is asked when it has been silent, and counts as gone when it does not answer (PROTOCOL §2).

With company (another supervisor of this agent that is connected, or waits for a slot) it is asked sooner, and an answer that is late is
a *doubt* first: the others then do what this connection should have done, which costs them a poll and some bytes twice. What ends the
connection is the same patience with an answer as without company, so that a slow relay loses nobody.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from supervisor.relay.websocket import ConnectionLost

SILENCE_SECONDS = 10.0
COMPANY_SILENCE_SECONDS = 2.0
UNANSWERED_SECONDS = 1.0
"""A message that the relay has not acknowledged for so long, while it said nothing else either, is a reason to ask."""

DOUBT_SECONDS = 1.5
PING_ANSWER_SECONDS = 5.0
SLOWEST_BYTES_PER_SECOND = 64 * 1024
"""Our question goes behind what we have sent: on a slow line that takes its time, up to the patience of one without company."""

LOOK_SECONDS = 0.25
"""While an answer is waited for."""


class Line(Protocol):
    """What is asked (supervisor/relay/websocket.py)."""

    @property
    def heard_at(self) -> float:
        """When anything came last."""

    async def ping(self) -> None:
        """Returns with the answer; raises ConnectionLost."""


class Heartbeat:
    """Of one authenticated connection. `has_company` is asked again and again; `doubt` is told when there is one, and when it is over."""

    def __init__(self, line: Line, *, has_company: Callable[[], bool], doubt: Callable[[bool], None]) -> None:
        self._line = line
        self._has_company = has_company
        self._doubt = doubt
        self._sent_at = -math.inf
        self._sent_bytes = 0
        self._unanswered_since = math.inf

    def sent(self, size_bytes: int, *, is_acknowledged: bool) -> None:
        """Something went out. `is_acknowledged`: the relay owes an answer to it."""
        now = trio.current_time()
        if self._line.heard_at >= self._sent_at:
            self._sent_bytes, self._unanswered_since = 0, math.inf
        self._sent_at = now
        self._sent_bytes += size_bytes
        if is_acknowledged:
            self._unanswered_since = min(self._unanswered_since, now)

    async def run(self) -> None:
        """Returns when the relay counts as gone."""
        is_there = True
        while is_there:
            await self._until_silent()
            is_there = await self._answers()

    async def _until_silent(self) -> None:
        while True:
            asks_at = self._asks_at()
            if trio.current_time() >= asks_at:
                return
            look_seconds = UNANSWERED_SECONDS / 2 if self._has_company() else COMPANY_SILENCE_SECONDS
            await trio.sleep_until(min(asks_at, trio.current_time() + look_seconds))

    def _asks_at(self) -> float:
        heard = self._line.heard_at
        if not self._has_company():
            return heard + SILENCE_SECONDS
        unanswered = self._unanswered_since if self._sent_at > heard else math.inf
        return min(heard + COMPANY_SILENCE_SECONDS, unanswered + UNANSWERED_SECONDS)

    async def _answers(self) -> bool:
        """Ask, and wait for any sign of it: part of a long message that goes before the answer on a slow line is one."""
        asked_at = trio.current_time()
        is_doubted = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask)
            while not (is_heard := self._line.heard_at >= asked_at) and trio.current_time() < self._gone_at(asked_at):
                is_late = trio.current_time() >= asked_at + DOUBT_SECONDS
                if is_late and not is_doubted and self._has_company():
                    is_doubted = True
                    self._doubt(True)
                await trio.sleep(LOOK_SECONDS)
            nursery.cancel_scope.cancel()
        if is_heard and is_doubted:
            self._doubt(False)
        return is_heard

    async def _ask(self) -> None:
        with suppress(ConnectionLost):  # whoever reads hears of it
            await self._line.ping()

    def _gone_at(self, asked_at: float) -> float:
        """Never sooner than so long after it was asked; with company no later than alone."""
        heard = self._line.heard_at
        gone_at = heard + SILENCE_SECONDS + PING_ANSWER_SECONDS
        if self._has_company():
            under_way = self._sent_bytes / SLOWEST_BYTES_PER_SECOND if self._sent_at > heard else 0.0
            gone_at = min(gone_at, asked_at + PING_ANSWER_SECONDS + under_way)
        return max(gone_at, asked_at + PING_ANSWER_SECONDS)
