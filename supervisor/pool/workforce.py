"""The workers of a supervisor, put together from its settings: the pool, its reload, and what health and metrics see of it."""

import os
from collections.abc import Mapping

import structlog

from bus.records.sealing import BusKey
from bus.transport.wire import RedisFailed
from bus.views.overview import Overview
from host.code_place import CodePlace, way_of_this_process
from host.instance import Instance
from supervisor.observe.metrics import Metrics
from supervisor.pool.pool import Pool
from supervisor.pool.pool_settings import OnDeath, PoolSettings, WorkerEvents
from supervisor.pool.process import Stage
from supervisor.pool.reloading import Reloading, Wanted
from supervisor.pool.worker_order import WorkerOrder, WorkerTimes
from supervisor.settings.env_files import environ_anew
from supervisor.settings.supervisor import SupervisorSettings

log = structlog.get_logger()


class Workforce:
    """The pool of one supervisor, its reload and its metrics. `on_death` is told of every end of a worker, at once."""

    def __init__(
        self,
        settings: SupervisorSettings,
        *,
        redis_url: str,
        bus_key: BusKey,
        overview: Overview,
        instance: Instance,
        metrics: Metrics,
        on_death: OnDeath,
    ) -> None:
        self._way = way_of_this_process(os.environ)
        self._bounds = settings.workers
        self._redis_url = redis_url
        self._has_own_redis = settings.redis_url is None
        self._bus_key = bus_key
        self._overview = overview
        self._metrics = metrics
        self.pool = Pool(
            PoolSettings(
                bounds=settings.workers,
                order=self._order(settings, os.environ, CodePlace.of_this_process()),
                drain_seconds=settings.drain_seconds,
                recycle=settings.recycle,
                waits_for_code=settings.reload_on_change,
            ),
            consumer_of=instance.worker_name,
            events=WorkerEvents(metrics, on_death),
            log=log,
            waiting=self._waiting_jobs,
        )
        self.reloading = Reloading(self.pool, self._wanted, log, settings.workers)

    async def wait_until_ready(self) -> None:
        """Waits until a worker takes jobs; returns at once where none is to run here."""
        await self.pool.wait_until_ready(min(1, self._bounds.least))

    def measure(self) -> None:
        """Sets the metrics to what the pool is now."""
        pool, metrics, statuses = self.pool, self._metrics, self.pool.statuses()
        metrics.workers_ready.set(pool.ready)
        metrics.workers_wanted.set(pool.target)
        metrics.worker_slots.set(sum(one.concurrency for one in statuses if one.stage is Stage.READY))
        metrics.worker_crash_loop.set(pool.crash_loop is not None)
        metrics.workers([(one.number, one.rss_bytes or 0, (one.loop_lag_ms or 0) / 1000) for one in statuses])

    def _order(self, settings: SupervisorSettings, environ: Mapping[str, str], place: CodePlace) -> WorkerOrder:
        return WorkerOrder(
            agent_id=settings.agent_id,
            redis_url=self._redis_url,
            has_own_redis=self._has_own_redis,
            bus_key=self._bus_key,
            handler=settings.handler,
            concurrency=settings.concurrency,
            environ=environ,
            directory=place.directory,
            python=str(place.python),
            way=self._way,
            report_files=settings.reload_on_change,
            spool_dir=settings.spool.folder,
            times=WorkerTimes(job_seconds=settings.job_seconds),
        )

    def _wanted(self) -> Wanted:
        environ = environ_anew(os.environ)
        settings = SupervisorSettings.from_environ(environ)
        return Wanted(self._order(settings, environ, self._way.look()), settings.workers)

    async def _waiting_jobs(self) -> int:
        try:
            return await self._overview.jobs_not_taken()
        except RedisFailed:
            return 0
