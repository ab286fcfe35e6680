"""The supervisor put together: what it is made of, in which order it starts, how it drains.

Nothing is decided here about messages; each part's rules stand in its own file. A part that fails unexpectedly ends the process,
and the keeper starts another: state is in Redis, so that nothing is lost by it.
"""

import os
import signal
import socket

import structlog
import trio

from bus.control.messages import ControlAnswer, Request
from bus.files.proofs import FilesKey
from bus.records.keys import Keys
from bus.records.sealing import StoreKeys
from bus.steps.seal import StoreSeal, StoreSealed
from bus.transport.client import RedisClient, open_redis
from bus.transport.lua import Rights, Scripts
from bus.transport.wire import RedisFailed
from bus.views.conversations import Conversations
from crypto.identity import IdentityKeys, LocalDevice
from host.instance import Instance
from host.log_stream import drain_streams
from host.name_lookups import look_names_up_apart
from host.strays import reap_strays
from supervisor.control.answers import Stopping, raw
from supervisor.control.keeper_link import CONNECTED, STANDBY, KeeperLink
from supervisor.files.key_file import write_files_key
from supervisor.observe.health import Health
from supervisor.observe.http import HttpServer, start_http
from supervisor.observe.metrics import Metrics
from supervisor.observe.tracing import open_traces
from supervisor.pool.pool_settings import HandlerUnusable
from supervisor.recovery.redis_check import RedisUnfit, check_redis
from supervisor.relay.connection import RelayAddress
from supervisor.relay.rest import open_rest
from supervisor.run.bulletin import Bulletin
from supervisor.run.drain import drain
from supervisor.run.operator import OBEYED, Operator
from supervisor.run.parts import Parts
from supervisor.run.programs import Programs
from supervisor.run.starting import Patience, answered_while_starting
from supervisor.run.status import StatusDesk
from supervisor.run.supervisor_control import SupervisorControl
from supervisor.settings.secrets import Secret, StoreSecretMissing, load_or_make_store_secret, load_store_secret
from supervisor.settings.supervisor import SupervisorSettings

EXIT_CONFIGURATION = 78
AT_ONCE_SECONDS = 0.2

log = structlog.get_logger()


async def run_supervisor(settings: SupervisorSettings, keeper: KeeperLink | None) -> int:
    """From settings to the exit code. Without a keeper it listens and obeys signals by itself."""
    look_names_up_apart()
    url = _redis_url(settings, keeper)
    store_secret = settings.store_key or load_store_secret(settings.state_dir)
    metrics, health, instance = Metrics(), Health(), Instance.of_this_process()
    http = _Http(_listener(settings, keeper), health, metrics)
    if keeper is None or not keeper.beside_another:
        http.start()
    identity = IdentityKeys.from_private(settings.x25519_private.reveal(), settings.ed25519_seed.reveal())
    device = LocalDevice(settings.agent_id, settings.agent_id, identity)
    address = RelayAddress(settings.base_url, settings.agent_id, settings.agent_token, settings.way)
    log.info("relay: its address", url=settings.base_url, way=settings.way.shown)
    with open_traces(settings.telemetry, metrics, instance.name) as traces:
        async with (
            open_redis(url, Scripts.load(_rights(settings))) as client,
            open_rest(settings.base_url, settings.agent_id, settings.agent_token, settings.way) as rest,
            answered_while_starting(health, keeper, settings, http.dead_threads) as starting,
        ):
            try:
                await _wait_for_redis(client, settings, starting.failed)
                keys = await open_store(client, settings, store_secret, starting.failed)
            except RedisUnfit as error:
                log.error("redis: not fit", reason=str(error))
                return EXIT_CONFIGURATION
            except (StoreSealed, StoreSecretMissing) as error:
                log.error("store: does not open", reason=str(error))
                return EXIT_CONFIGURATION
            _tell_gate(settings, keys)
            parts = Parts(
                settings=settings,
                client=client,
                rest=rest,
                device=device,
                address=address,
                keys=keys,
                instance=instance,
                metrics=metrics,
            )
            async with parts.open(starting.failed):
                parts.core.trace_with(traces)
                await starting.over()
                desk = StatusDesk(parts, metrics, instance.name)
                return await _Run(settings, keeper, parts, health=health, desk=desk, http=http).run()
    return 0  # stopped while it started


class _Http:
    """Status page and probes: beside an older generation, which answers meanwhile, only from when this one serves."""

    def __init__(self, listener: socket.socket, health: Health, metrics: Metrics) -> None:
        self._listener = listener
        self._health = health
        self._metrics = metrics
        self._server: HttpServer | None = None

    def start(self) -> None:
        """Once is enough."""
        if self._server is None:
            self._server = start_http(self._listener, self._health, self._metrics)

    def dead_threads(self) -> list[str]:
        """Its own, if it has ended."""
        return [] if self._server is None else self._server.dead_threads

    def stop(self) -> None:
        """Accept nothing more."""
        if self._server is not None:
            self._server.stop()


class _Run:
    """One life: start everything, wait for the order to drain, drain."""

    def __init__(
        self,
        settings: SupervisorSettings,
        keeper: KeeperLink | None,
        parts: Parts,
        *,
        health: Health,
        desk: StatusDesk,
        http: "_Http",
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._parts = parts
        self._health = health
        self._desk = desk
        core = parts.core
        self._operator = Operator(parts.pool, parts.workforce.reloading, core.from_outside)
        conversations = Conversations(core.client, core.store.keys)
        self._programs = Programs(core.from_outside, conversations, settings.mcp_conversations)
        self._http = http
        self._asked_to_stop = trio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        parts = self._parts
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._health.run, parts.checks, self._dead_threads, parts.metrics.show_checks)
            nursery.start_soon(self._run_pool, nursery.cancel_scope)
            nursery.start_soon(self._announce)
            nursery.start_soon(self._serve_control)
            nursery.start_soon(self._obey_signals)
            nursery.start_soon(self._desk.run)
            nursery.start_soon(self._reap_orphans)
            if self._keeper is not None:
                nursery.start_soon(Bulletin(self._keeper, parts, self._health).run)
            if self._settings.reload_on_change:
                nursery.start_soon(parts.workforce.reloading.watch_files)
            for part in parts.tasks():
                nursery.start_soon(part)
            await self._wait_for_drain(nursery)
            await drain(parts, self._settings.drain_seconds)
            nursery.cancel_scope.cancel()
        return self._exit_code

    def _dead_threads(self) -> list[str]:
        return [*self._parts.core.dead_threads(), *self._http.dead_threads()]

    async def _run_pool(self, everything: trio.CancelScope) -> None:
        try:
            await self._parts.pool.run()
        except HandlerUnusable:  # the pool has said which and why
            self._exit_code = EXIT_CONFIGURATION
            everything.cancel()

    async def _announce(self) -> None:
        parts, keeper = self._parts, self._keeper
        await parts.workforce.wait_until_ready()
        if keeper is not None:
            await keeper.ready()
        async with trio.open_nursery() as either:
            either.start_soon(self._announce_standby)
            await parts.connection.wait_connected()
            either.cancel_scope.cancel()
        self._http.start()
        if keeper is not None:
            await keeper.report(CONNECTED)
        log.info("up; waiting for messages...")

    async def _announce_standby(self) -> None:
        await self._parts.slots.wait_standby()
        self._http.start()
        if self._keeper is not None:
            await self._keeper.report(STANDBY, self._parts.slots.detail)
        log.info("standby; waiting for a slot...")

    async def _wait_for_drain(self, nursery: trio.Nursery) -> None:
        if self._keeper is not None:
            await self._keeper.wait_for_drain()
            if self._keeper.retired:
                self._http.stop()  # the new generation answers
            return
        async with trio.open_nursery() as waiting:
            waiting.start_soon(self._hear_stop_signal)
            await self._asked_to_stop.wait()
            waiting.cancel_scope.cancel()
        nursery.start_soon(_leave_at_the_second_signal)

    async def _hear_stop_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self._asked_to_stop.set()

    # The control socket

    async def _serve_control(self) -> None:
        commands = {"status": self._status, **self._operator.commands, **self._programs.commands}
        if self._keeper is not None:
            await SupervisorControl(commands).answer_keeper(self._keeper)
        else:
            await SupervisorControl({**commands, "stop": self._stop}).serve_alone(self._settings)

    async def _obey_signals(self) -> None:
        async with trio.open_nursery() as nursery:
            if self._keeper is not None:
                while True:
                    nursery.start_soon(self._operator.obey, await self._keeper.next_signal())
            with trio.open_signal_receiver(*OBEYED) as signals:
                async for number in signals:
                    nursery.start_soon(self._operator.obey, signal.Signals(number))

    async def _reap_orphans(self) -> None:
        """What handlers left behind comes to us when its parent ends, and to pid 1 of a container in any case."""
        with trio.open_signal_receiver(signal.SIGCHLD) as arrivals:
            async for _ in arrivals:
                reap_strays(self._parts.pool.is_worker)

    async def _status(self, _request: Request) -> ControlAnswer:
        return ControlAnswer(ok=True, result=raw(await self._desk.gather()))

    async def _stop(self, _request: Request) -> ControlAnswer:
        self._asked_to_stop.set()
        await trio.lowlevel.checkpoint()
        return ControlAnswer(ok=True, result=raw(Stopping(self._settings.drain_seconds * 1.4)))


async def _leave_at_the_second_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            drain_streams(AT_ONCE_SECONDS)
            os._exit(1)


async def _wait_for_redis(client: RedisClient, settings: SupervisorSettings, failed: Patience) -> None:
    while True:
        try:
            version = await check_redis(client, settings.redis_trust)
        except RedisFailed as error:
            await failed(error)
        else:
            log.info("redis: connected", server=version)
            return


async def open_store(
    client: RedisClient, settings: SupervisorSettings, found: Secret[bytes] | None, failed: Patience
) -> StoreKeys:
    """The keys of what Redis holds; a store secret is made for a store that none has opened. Waits for Redis.

    `found`: the store secret, None where there was none when this process began.
    Raises StoreSealed, StoreSecretMissing, StoreSecretDamaged, RotationUnfinished.
    """
    seal = StoreSeal(client, Keys(settings.agent_id))
    while True:
        try:
            if found is None:
                found = load_or_make_store_secret(settings.state_dir, is_sealed=await seal.is_there())
            return await seal.adopt(found.reveal())
        except RedisFailed as error:
            await failed(error)


def _tell_gate(settings: SupervisorSettings, keys: StoreKeys) -> None:
    """Writes down by which key this agent's workers prove themselves to the file gate that reads it in this state directory."""
    try:
        write_files_key(settings.state_dir, FilesKey.of_bus_key(keys.bus.export()))
    except OSError as problem:  # everything but files goes on, and the gate says what it lacks
        log.error("files: the gate's key cannot be written", errno=problem.errno, reason=problem.strerror)


def _redis_url(settings: SupervisorSettings, keeper: KeeperLink | None) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.reveal()
    if keeper is None or keeper.redis_url is None:
        raise RuntimeError("without a keeper the settings name a Redis")
    return keeper.redis_url


def _rights(settings: SupervisorSettings) -> Rights:
    return Rights.STAND if settings.redis_url is None else Rights.MAY_CHANGE


def _listener(settings: SupervisorSettings, keeper: KeeperLink | None) -> socket.socket:
    if keeper is not None and keeper.http_socket is not None:
        return keeper.http_socket
    return socket.create_server((settings.http_host, settings.http_port), reuse_port=False)
