"""Pings a relay that has been silent, and tells when it counts as gone since it does not answer (PROTOCOL §2).

With company (another supervisor of this agent that is connected, or waits for a slot) it is pinged sooner, and an answer that is late is
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
"""After so much silence the relay is pinged (PROTOCOL §2)."""

COMPANY_SILENCE_SECONDS = 2.0
"""The same with company, where an early doubt is cheap and a message that waits for a dead connection is not."""

UNANSWERED_SECONDS = 1.0
"""A message that the relay has not acknowledged for so long, while it said nothing else either, is a reason to ask."""

DOUBT_SECONDS = 1.5
"""With company, an answer that is later than this is a doubt, which costs the others a poll."""

PING_ANSWER_SECONDS = 5.0
"""Without an answer for so long the relay counts as gone (PROTOCOL §2)."""

SLOWEST_BYTES_PER_SECOND = 64 * 1024
"""The slowest line that we are patient with: our ping goes behind what we have sent, and may take as long as that does."""

LOOK_SECONDS = 0.25
"""How often we look whether anything was heard, while we wait for an answer."""


class Line(Protocol):
    """The connection that is pinged (supervisor/relay/websocket.py)."""

    @property
    def heard_at(self) -> float:
        """When anything came last, as trio counts time."""

    async def ping(self) -> None:
        """Pings, and returns with the answer. Raises ConnectionLost."""


class RelayHeartbeat:
    """The heartbeat of one authenticated connection.

    `has_company` is asked again and again. `doubt` is called with True when a doubt begins, with False when it is over.
    """

    def __init__(self, line: Line, *, has_company: Callable[[], bool], doubt: Callable[[bool], None]) -> None:
        self._line = line
        self._has_company = has_company
        self._doubt = doubt
        self._sent_at = -math.inf
        self._sent_bytes = 0
        self._unanswered_since = math.inf

    def sent(self, size_bytes: int, now: float, *, is_acknowledged: bool) -> None:
        """Notes that so many bytes go out. `is_acknowledged`: the relay owes an answer to them."""
        if self._line.heard_at >= self._sent_at:
            self._sent_bytes, self._unanswered_since = 0, math.inf
        self._sent_at = now
        self._sent_bytes += size_bytes
        if is_acknowledged:
            self._unanswered_since = min(self._unanswered_since, now)

    async def run(self) -> None:
        """Pings whenever the relay is silent; returns when it counts as gone."""
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
        """Pings and waits. Returns whether anything was heard: also part of a long message, which goes before the answer."""
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
        """Returns when the relay counts as gone: PING_ANSWER_SECONDS after the ping at least, with company no later than alone."""
        heard = self._line.heard_at
        gone_at = heard + SILENCE_SECONDS + PING_ANSWER_SECONDS
        if self._has_company():
            under_way = self._sent_bytes / SLOWEST_BYTES_PER_SECOND if self._sent_at > heard else 0.0
            gone_at = min(gone_at, asked_at + PING_ANSWER_SECONDS + under_way)
        return max(gone_at, asked_at + PING_ANSWER_SECONDS)
