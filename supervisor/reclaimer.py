"""Once a second: what the dead and the silent held goes on, failed jobs whose time has come start (DESIGN rules 6 and 7).

A death that is known (a process of this host that is gone) is acted on at once; silence only after one lease of unbroken Redis
connection, so that after an outage the living renew first.
"""

import structlog
import trio

from bus.client import RedisClient
from bus.leases import LEASE_SECONDS
from bus.records import BadRecord
from bus.recovery import Held, Pending, Recovery
from bus.store import Store
from bus.wire import RedisFailed
from supervisor.instance import Instance
from supervisor.metrics import Metrics

INTERVAL_SECONDS = 1.0
OFFICE_SECONDS = 5.0
FORGET_EVERY = 60

log = structlog.get_logger()


class Reclaimer:
    """The office of one supervisor; idle while another holds it."""

    def __init__(
        self, client: RedisClient, store: Store, recovery: Recovery, instance: Instance, metrics: Metrics
    ) -> None:
        self._client = client
        self._store = store
        self._recovery = recovery
        self._instance = instance
        self._metrics = metrics

    async def run(self) -> None:
        """Until cancelled."""
        turn = 0
        connects = self._client.connects
        while True:
            try:
                if self._client.connects != connects and await self._recovery.make_groups():
                    log.warning("redis: a consumer group was gone and is made again")
                connects = self._client.connects
                if await self._recovery.hold_office(int(OFFICE_SECONDS * 1000)):
                    await self._work(turn)
                turn += 1
            except RedisFailed as error:
                log.warning("reclaimer: Redis failed", reason=str(error))
                connects = -1  # whatever it was, the groups may be gone
            await trio.sleep(INTERVAL_SECONDS)

    async def worker_died(self, consumer: str) -> None:
        """The pool saw a worker end: its jobs go on at once."""
        try:
            await self._release_all(self._recovery.jobs, consumer)
        except RedisFailed:
            return  # its leases run out

    async def _work(self, turn: int) -> None:
        await self._recovery.start_due(await self._store.now_ms())
        for held in (self._recovery.jobs, self._recovery.replies):
            for consumer in await self._recovery.holders(held):
                if self._instance.knows_dead(consumer):
                    await self._release_all(held, consumer)
            if self._connected_for_a_lease():
                await self._release_silent(held)
        if turn % FORGET_EVERY == 0:
            await self._recovery.forget_idle_consumers()

    def _connected_for_a_lease(self) -> bool:
        since = self._client.connected_since
        return since is not None and trio.current_time() - since >= LEASE_SECONDS

    async def _release_all(self, held: Held, consumer: str) -> None:
        for pending in await self._recovery.pending(held, consumer=consumer):
            await self._release(held, pending, 0)

    async def _release_silent(self, held: Held) -> None:
        lease_ms = int(LEASE_SECONDS * 1000)
        for pending in await self._recovery.pending(held, idle_ms=lease_ms):
            await self._release(held, pending, lease_ms)

    async def _release(self, held: Held, pending: Pending, idle_ms: int) -> None:
        try:
            outcome = await self._recovery.reclaim(held, pending, idle_ms=idle_ms)
        except BadRecord as error:  # it stays pending, visibly, and holds up nothing else
            log.error("lease: record not readable", entry=pending.entry_id, reason=str(error))
            return
        self._count(held, outcome, pending.consumer)

    def _count(self, held: Held, outcome: str, consumer: str) -> None:
        kind = "job" if held is self._recovery.jobs else "reply"
        if outcome == "restarted":
            self._metrics.reclaimed.labels(kind).inc()
            log.info("lease: reclaimed", kind=kind, holder=consumer)
        elif outcome == "dead":
            self._metrics.dead_letters.labels(kind).inc()
            log.error("job: dead letter", reason="deliveries", holder=consumer)
