"""Keeps quarantine and dead letters within their bounds, in number and in bytes: beyond them the oldest are given up.

The ledger says `given_up overflow` of each, the metric counts them, the log warns. Whoever writes there never waits for it.
"""

from collections.abc import Awaitable, Callable

import structlog
import trio

from bus.steps.letters import DeadLetters, Quarantine
from bus.steps.store import InboundStore
from bus.transport.wire import RedisFailed
from supervisor.inbound.evidence import evidence_of, kept_frame
from supervisor.observe.metrics import Metrics
from supervisor.peers.retry_triggers import MENDABLE_REASONS
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.settings.pauses import PAUSES, Pauses

AT_ONCE = 100
"""Given up between two looks at the count, so that one look reads no more ids than this."""

log = structlog.get_logger()


class Overflow:
    """Gives up the oldest on behalf of one supervisor. Several of them find the same ones, each of which goes once."""

    def __init__(
        self,
        store: InboundStore,
        quarantine: Quarantine,
        dead: DeadLetters,
        metrics: Metrics,
        pauses: Pauses = PAUSES,
    ) -> None:
        self._store = store
        self._quarantine = quarantine
        self._dead = dead
        self._metrics = metrics
        self._pauses = pauses
        self._troubles = {
            kind: said_trouble(f"overflow: {kind}") for kind in ("bounds", "former", "quarantine", "dead")
        }

    async def run(self) -> None:
        """Publishes the bounds and keeps to them, until cancelled."""
        published, has_charged = 0, False
        while True:
            if self._store.budgets.out_bytes != published:
                published = await self._publish_bounds()
            has_charged = has_charged or await self._charge_former()
            for kind, relieve in (("quarantine", self._relieve_quarantine), ("dead", self._relieve_dead)):
                await self._relieve(kind, relieve)
            await trio.sleep(self._pauses.overflow_look)

    async def _publish_bounds(self) -> int:
        """Writes the bounds into Redis for the scripts. Returns the bound that was written; 0 if Redis was away."""
        bound = self._store.budgets.out_bytes
        try:
            await self._store.publish_bounds()
        except RedisFailed as error:
            self._troubles["bounds"].met(error)
            return 0
        self._troubles["bounds"].over()
        return bound

    async def _charge_former(self) -> bool:
        """Counts what a former version has kept whole, the newest first, and cuts what has no room. False if Redis was away."""
        cut = 0
        try:
            for name in reversed(await self._quarantine.names()):
                if not await self._quarantine.is_charged(name):
                    cut += await self._charge(name)
        except RedisFailed as error:
            self._troubles["former"].met(error)
            return False
        self._troubles["former"].over()
        if cut:
            log.warning("quarantine: what a former version kept was cut to what an operator can use", count=cut)
        return True

    async def _charge(self, name: str) -> bool:
        message = await self._quarantine.find(name)
        if message is None:
            return False
        frame = kept_frame(message)
        evidence = message.evidence if frame is None else evidence_of(frame, message.frame)
        may_be_read = message.reason in MENDABLE_REASONS
        return await self._quarantine.charge(name, evidence, self._store.budgets, may_be_read=may_be_read)

    async def _relieve(self, kind: str, relieve: Callable[[], Awaitable[int]]) -> None:
        gone = 0
        try:
            while left := await relieve():
                gone += left
        except RedisFailed as error:
            self._troubles[kind].met(error)
        else:
            self._troubles[kind].over()
        if gone:
            self._metrics.overflowed.labels(kind).inc(gone)
            log.warning("overflow: the oldest were given up, since there are too many", kind=kind, count=gone)

    async def _relieve_quarantine(self) -> int:
        """Gives up the oldest of the quarantine. Returns how many were given up."""
        over = await self._quarantine.count() - self._store.budgets.most_quarantined
        if over <= 0:
            return 0
        oldest = await self._quarantine.oldest(min(over, AT_ONCE))
        return sum([await self._quarantine.drop(message_id, "overflow") for message_id in oldest])

    async def _relieve_dead(self) -> int:
        """Gives up the oldest dead letters. Returns how many were given up."""
        count = await self._dead.count()
        if count == 0:
            return 0
        over = count - self._store.budgets.most_dead
        if over <= 0 and await self._dead.size_bytes() > self._store.budgets.dead_bytes:
            over = 1
        if over <= 0:
            return 0
        oldest = await self._dead.first(min(over, 10))
        return sum([await self._dead.drop(letter, "overflow") for letter in oldest])
