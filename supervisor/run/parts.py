"""A whole supervisor, put together: the message core, the connection that feeds it, the workers, and what watches over them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from bus.records.keys import Keys
from bus.records.sealing import StoreKeys
from bus.steps.slots import SlotStore
from bus.steps.write_count import WriteCount
from bus.transport.client import RedisClient
from bus.transport.wire import RedisFailed
from bus.views.backlog import Backlog
from bus.views.overview import Overview
from bus.views.shared_keys import SharedKeys
from crypto.identity import LocalDevice
from host.budgets import UNLIMITED_REDIS_BYTES, StoreBudgets
from host.instance import Instance
from supervisor.files.counts import CountsFile, FileMetrics
from supervisor.observe.health import Check
from supervisor.observe.metrics import Metrics
from supervisor.peers.twins import TwinWatch
from supervisor.pool.process import WorkerExit
from supervisor.pool.workforce import Workforce
from supervisor.recovery.redis_memory import RedisMemory
from supervisor.recovery.redis_watch import RedisWatch
from supervisor.recovery.time_guard import open_guard
from supervisor.relay.connection import Connection, RelayAddress
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.rest import Rest
from supervisor.relay.slots import ConnectionSlot
from supervisor.run.all_workers import AllWorkers
from supervisor.run.announcing import announce
from supervisor.run.core import CoreSettings, MessageCore
from supervisor.run.fullness import Fullness
from supervisor.run.readiness import bus_check, prekeys_check, relay_check
from supervisor.run.starting import Patience
from supervisor.run.survey import Survey
from supervisor.settings.supervisor import SupervisorSettings


class Parts:
    """The parts of one supervisor; they work within `open`."""

    def __init__(
        self,
        *,
        settings: SupervisorSettings,
        client: RedisClient,
        rest: Rest,
        device: LocalDevice,
        address: RelayAddress,
        keys: StoreKeys,
        instance: Instance,
        metrics: Metrics,
    ) -> None:
        names, polls = Keys(settings.agent_id), PollWish()
        self.metrics = metrics
        self.file_counts = CountsFile(settings.state_dir)
        metrics.registry.register(FileMetrics(self.file_counts.read))
        self.slots = ConnectionSlot(SlotStore(client, names, settings.max_connections), instance, polls=polls)
        self.connection = Connection(address, metrics, self.slots)
        self.core = MessageCore(
            CoreSettings.of(settings),
            client,
            rest,
            self.connection,
            open_guard(settings, client, names, WriteCount(), metrics=metrics, store_keys=keys),
            device=device,
            keys=keys,
            instance=instance,
            metrics=metrics,
            polls=polls,
            speaks=lambda: self.slots.speaks,
        )
        self._rest, self._manifest = rest, settings.manifest
        core = self.core
        self.twins = TwinWatch(core.prekeys, rest, device=device, metrics=metrics, speaks=lambda: self.slots.speaks)
        self.overview = Overview(client, names)
        self.redis_watch = RedisWatch(
            client,
            metrics,
            RedisMemory(
                core.inbound.pause,
                limited=self._on_redis_limit,
                own_limit_bytes=settings.redis_memory_bytes or UNLIMITED_REDIS_BYTES,
                kept_bytes=self.overview.kept_bytes,
            ),
            SharedKeys(client, names),
            settings.redis_trust,
            probe=names.probe(instance.name),
        )
        self.workforce = Workforce(
            settings,
            redis_url=client.url,
            bus_key=keys.bus,
            overview=self.overview,
            instance=instance,
            metrics=metrics,
            on_death=self._on_worker_death,
        )
        self.pool = self.workforce.pool
        backlog = Backlog(client, names)
        self.all_workers = AllWorkers(self.workforce, backlog, metrics, instance.name)
        self.survey = Survey(
            backlog=backlog,
            overview=self.overview,
            workers=self.all_workers,
            redis_watch=self.redis_watch,
            slots=self.slots,
            fullness=Fullness(core.store),
            metrics=metrics,
            relay_clock=core.relay_clock,
            on_clock_set=core.triggers.clock_was_set,
            backup_max_age_seconds=settings.backup_max_age_seconds,
        )

    @asynccontextmanager
    async def open(self, failed: Patience) -> AsyncIterator[None]:
        """Waits until Redis has what the parts need, then runs their threads within the block. `failed` waits after each failure."""
        while True:
            try:
                await self.core.prepare()
            except RedisFailed as error:
                await failed(error)
            else:
                break
        async with self.core.threads():
            yield

    def tasks(self) -> list[Callable[[], Awaitable[None]]]:
        """What runs from start to end."""
        return [
            *self.core.tasks(),
            self.twins.run,
            self.redis_watch.run,
            self.slots.run,
            self._keep_connected,
            self._announce,
            self.survey.run,
        ]

    def checks(self) -> tuple[Check, ...]:
        """What must hold for readiness, each with its reason."""
        core = self.core
        return (
            relay_check(self.connection, self.slots, core.relay_clock),
            prekeys_check(core.prekeys),
            self.twins.check(),
            core.catchup.check(),
            self.redis_watch.check(),
            bus_check(core.leases, core.reader, core.live),
            *self.survey.checks(),
        )

    async def _announce(self) -> None:
        """Registers the capability manifest, if there is one, once the relay lets us in."""
        if self._manifest is not None:
            await self.connection.wait_connected()
            await announce(self._rest, self._manifest)

    async def _keep_connected(self) -> None:
        await self.slots.wait_until_fit(self.workforce.wait_until_ready)
        await self.connection.run(self.core.heard, self.core.connected)

    def _on_redis_limit(self, most_bytes: int) -> None:
        if most_bytes > 0:
            self.core.store.budgets = StoreBudgets.of(most_bytes)

    async def _on_worker_death(self, exited: WorkerExit) -> None:
        overran = frozenset(job.entry_id for job in exited.overdue)
        await self.core.reclaimer.worker_died(exited.consumer, by_itself=exited.is_strike, overran=overran)
