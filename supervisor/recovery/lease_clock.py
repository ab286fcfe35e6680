"""Tells whether a lease that was not renewed means that its holder is gone, or that nobody could renew.

Silence counts after one lease of unbroken Redis connection and of an even clock, so that after an outage or a suspend living processes
renew their leases first.
"""

import math

import structlog
import trio

from bus.steps.store import InboundStore
from bus.transport.client import RedisClient
from bus.transport.leases import LEASE_SECONDS

JUMP_SECONDS = 2.0

log = structlog.get_logger()


class LeaseClock:
    """Redis' clock as one supervisor sees it. `lease_seconds`: the length of the leases of jobs and replies."""

    def __init__(self, client: RedisClient, store: InboundStore, lease_seconds: float = LEASE_SECONDS) -> None:
        self._client = client
        self._store = store
        self.lease_seconds = lease_seconds
        self._lead_seconds = (math.inf, math.inf)
        """By how much Redis' clock is ahead of our monotonic one, which only counts the time that this host was awake: at least, at most."""
        self._jumped_at = -math.inf
        self.back_seconds = 0.0
        """How far Redis' clock was put back, until that is allowed for."""

    async def read(self) -> int:
        """Returns Redis' time (ms), and notes a jump of its clock. Raises RedisFailed.

        After a suspend, or if the clock was put forward, all leases look expired although nobody could renew. An answer that was long under
        way, or lay unread while we were stopped, says no more than that its clock was there meanwhile: it is taken for no jump.
        """
        asked_at = trio.current_time()
        now_ms = await self._store.now_ms()
        heard_at = trio.current_time()
        (least_before, most_before), now = self._lead_seconds, now_ms / 1000
        least, most = self._lead_seconds = now - heard_at, now - asked_at
        if least - most_before > JUMP_SECONDS:
            log.warning("reclaimer: Redis' clock has jumped, leases are given time", seconds=round(least - most_before))
            self._jumped_at = heard_at
        if JUMP_SECONDS < least_before - most < math.inf:
            self.back_seconds = least_before - most
        return now_ms

    def may_judge(self) -> bool:
        """Returns whether every holder has had time to renew: for one lease we are connected and Redis' clock has not jumped."""
        since, now = self._client.connected_since, trio.current_time()
        return since is not None and now - max(since, self._jumped_at) >= self.lease_seconds
