"""Has messages wait at the relay while Redis is nearly full, so that work under way can end (DESIGN rule 16).

From 90 % of maxmemory on no message is taken in; until it is under 80 % again this supervisor is not ready, with the reason. Each sender's
own bounds (docs/design.md) act long before.
"""

from collections.abc import Awaitable, Callable

import structlog

from host.budgets import MIB
from supervisor.recovery.redis_check import Facts

PAUSE_FROM = 0.9
PAUSE_UNTIL = 0.8

log = structlog.get_logger()


class RedisMemory:
    """How full one supervisor finds Redis. `full`: why nothing is taken in; '' while something is."""

    def __init__(
        self,
        pause: Callable[[bool], None],
        *,
        limited: Callable[[int], None] = lambda _: None,
        own_limit_bytes: int = 0,
        kept_bytes: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        """`pause` is called with whether to stop taking messages in, `limited` with maxmemory, also when it changes.

        Of a Redis without maxmemory this agent may use `own_limit_bytes`, and `kept_bytes` measures how much it uses.
        """
        self._pause = pause
        self._limited = limited
        self._own_limit_bytes = own_limit_bytes
        self._kept_bytes = kept_bytes
        self._most_bytes = 0
        self.full = ""

    async def consider(self, facts: Facts) -> None:
        """Compares what is used with the limit. Raises RedisFailed."""
        used, most = await self._used_of(facts)
        if most != self._most_bytes:
            self._most_bytes = most
            self._limited(most)
        was_full = self.full != ""
        is_full = most > 0 and used > most * (PAUSE_UNTIL if was_full else PAUSE_FROM)
        self.full = f"nearly full, nothing is taken in: {used // MIB} of {most // MIB} MiB" if is_full else ""
        if is_full == was_full:
            return
        self._pause(is_full)
        if is_full:
            log.error("redis: nearly full, nothing is taken in", used_bytes=used, maxmemory_bytes=most)
        else:
            log.info("redis: has room again", used_bytes=used, maxmemory_bytes=most)

    async def _used_of(self, facts: Facts) -> tuple[int, int]:
        """Returns the bytes in use and their limit; without maxmemory, those of this agent alone."""
        if facts.limit_bytes or not self._own_limit_bytes or self._kept_bytes is None:
            return facts.memory_bytes, facts.limit_bytes
        return await self._kept_bytes(), self._own_limit_bytes
