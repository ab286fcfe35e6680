"""What `hashee-agent status` shows of a supervisor, gathered where it is known. Names and numbers, never content.

The field names are the JSON that scripts read: they are added to, never changed. Only `last_words` may carry content: what the last
worker that died wrote in its last moment. It stands nowhere else, and only the agent's own user can open the control socket.
"""

import math
import os
from collections import deque
from importlib.metadata import version

import msgspec
import trio

from bus.records.presence import Presence
from bus.steps.last_backup import LastBackup
from bus.transport.wire import RedisFailed
from bus.views.overview import Counts, KindSize, Overview, Server
from supervisor.files.counts import FileCounts
from supervisor.observe.health import Check
from supervisor.observe.metrics import Metrics
from supervisor.pool.crash_loop import CrashLoopStatus
from supervisor.pool.places import WorkerStatus
from supervisor.run.parts import Parts

RATE_SECONDS = 60.0
SAMPLE_SECONDS = 5.0
KINDS_SECONDS = 30.0
REDIS_SECONDS = 3.0


class ConnectionStatus(msgspec.Struct, frozen=True):
    """`slot` 0: none is held. `connections`: how many were authenticated since the start."""

    state: str
    slot: int
    standby: bool
    detail: str
    refusal: str | None
    heard_seconds_ago: float | None
    connections: int


class Rates(msgspec.Struct, frozen=True):
    """Messages since the start, and a minute of late (less after a start)."""

    received: int
    sent: int
    received_per_minute: float
    sent_per_minute: float


class PoolStatus(msgspec.Struct, frozen=True):
    """`size`: "N" or "MIN:MAX". `reload_problem`: why the last reload failed."""

    size: str
    wanted: int
    ready: int
    draining: bool
    reloading: bool
    reload_problem: str
    crash_loop: CrashLoopStatus | None
    last_words: tuple[str, ...]


class RedisStatus(msgspec.Struct, frozen=True):
    """`kinds`: keys by kind, looked at twice a minute; `kinds_complete`: all of them were. `clock_ahead_ms`: of this host's."""

    server: Server
    round_trip_ms: float
    kinds: dict[str, KindSize]
    kinds_complete: bool
    clock_ahead_ms: int = 0


class SupervisorStatus(msgspec.Struct, frozen=True):
    """Everything of one supervisor process. What stands in Redis is None while that does not answer; `sessions` also when not all were counted.

    `identity_since_ms`: when other identity keys than before were first used, in ms of Unix time; None if not within 30 days.
    `signed_prekey_since_ms`: when the signed prekey was made. `has_witness`: see supervisor/recovery/witness.py; None for a Redis that is given.
    `files`: what the file gate of this state directory has passed on since it was made. `witness_noted_ms`: when the witness was last written to. `last_backup`: None also where none is known. `backup_max_age_seconds`: 0 for any age.
    """

    pid: int
    version: str
    instance: str
    uptime_seconds: float
    checks: tuple[Check, ...]
    connection: ConnectionStatus
    rates: Rates
    people: int | None
    sessions: int | None
    prekeys_left: int | None
    identity_since_ms: int | None
    signed_prekey_since_ms: int | None
    has_witness: bool | None
    witness_noted_ms: int | None
    last_backup: LastBackup | None
    backup_max_age_seconds: float
    work: Counts | None
    pool: PoolStatus
    workers: tuple[WorkerStatus, ...]
    workers_elsewhere: tuple[Presence, ...]
    redis: RedisStatus | None
    files: FileCounts | None = None


class StatusDesk:
    """Gathers it."""

    def __init__(self, parts: Parts, metrics: Metrics, instance: str) -> None:
        self._parts = parts
        self._metrics = metrics
        self._instance = instance
        self._began_at = trio.current_time()
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=int(RATE_SECONDS / SAMPLE_SECONDS))
        self._kinds: tuple[dict[str, KindSize], bool] = ({}, True)
        self._kinds_at = float("-inf")

    async def run(self) -> None:
        """Remember what was counted a minute ago. Until cancelled."""
        while True:
            self._samples.append((trio.current_time(), self._metrics.received, self._metrics.sent))
            await trio.sleep(SAMPLE_SECONDS)

    async def gather(self) -> SupervisorStatus:
        parts = self._parts
        work = redis = people = backup = None
        with trio.move_on_after(REDIS_SECONDS):
            try:
                redis = await self._redis(parts.overview)
                people, work = await parts.overview.people(), await parts.overview.counts()
                backup = await parts.overview.last_backup()
            except RedisFailed:
                pass  # Then it is None, and a check says why.
        left = self._metrics.registry.get_sample_value("hashee_one_time_prekeys_left")
        return SupervisorStatus(
            pid=os.getpid(),
            version=version("hashee-agent"),
            instance=self._instance,
            uptime_seconds=round(trio.current_time() - self._began_at, 1),
            checks=parts.checks(),
            connection=self._connection(),
            rates=self._rates(),
            people=people,
            sessions=sessions_of(redis),
            prekeys_left=int(left) if parts.core.prekeys.published.is_set() and left is not None else None,
            identity_since_ms=parts.core.prekeys.identity_since_ms,
            signed_prekey_since_ms=parts.core.prekeys.signed_since_ms,
            has_witness=parts.core.guard.has_witness,
            witness_noted_ms=parts.core.guard.witness_noted_ms,
            last_backup=backup,
            backup_max_age_seconds=parts.survey.backup_max_age_seconds,
            work=work,
            pool=self._pool(),
            workers=parts.pool.statuses(),
            workers_elsewhere=parts.all_workers.elsewhere,
            redis=redis,
            files=parts.file_counts.read(),
        )

    def _connection(self) -> ConnectionStatus:
        connection, slots = self._parts.connection, self._parts.slots
        return ConnectionStatus(
            state=connection.shown,
            slot=slots.number,
            standby=slots.is_standby,
            detail=slots.detail,
            refusal=connection.refusal,
            heard_seconds_ago=connection.heard_seconds_ago,
            connections=connection.number,
        )

    def _rates(self) -> Rates:
        now, received, sent = trio.current_time(), self._metrics.received, self._metrics.sent
        then, received_then, sent_then = self._samples[0] if self._samples else (self._began_at, 0, 0)
        minutes = max(now - then, 1.0) / 60
        return Rates(
            received, sent, round((received - received_then) / minutes, 1), round((sent - sent_then) / minutes, 1)
        )

    def _pool(self) -> PoolStatus:
        pool, reloading = self._parts.pool, self._parts.workforce.reloading
        return PoolStatus(
            size=str(pool.bounds),
            wanted=pool.target,
            ready=pool.ready,
            draining=pool.is_draining,
            reloading=reloading.is_under_way,
            reload_problem=reloading.problem,
            crash_loop=pool.crash_loop,
            last_words=pool.last_words,
        )

    async def _redis(self, overview: Overview) -> RedisStatus:
        server = await overview.server()
        now = trio.current_time()
        if now - self._kinds_at >= KINDS_SECONDS:
            self._kinds, self._kinds_at = await overview.kinds(), now
        kinds, complete = self._kinds
        trip = self._metrics.registry.get_sample_value("hashee_redis_round_trip_seconds")
        known = trip is not None and not math.isnan(trip)
        return RedisStatus(
            server,
            round(trip * 1000, 2) if known and trip else 0.0,
            kinds,
            complete,
            self._parts.redis_watch.clock_ahead_ms,
        )


def sessions_of(redis: RedisStatus | None) -> int | None:
    """A part of them is no number to show."""
    if redis is None or not redis.kinds_complete:
        return None
    sessions = redis.kinds.get("session")
    return 0 if sessions is None else sessions.keys
