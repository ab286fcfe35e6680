"""Measures a worker's health: the event loop writes, the thread that sends heartbeats reads.

Nothing here waits for a handler: an event loop that hangs shows as a growing lag.
"""

import os
import socket
import threading
import time
from importlib.metadata import version

import msgspec
import trio

from bus.records.control import Heartbeat, RunningJob
from bus.records.presence import Presence
from bus.records.records import Job
from host.proc import rss_bytes


class Vitals:
    """Counters and running jobs of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, RunningJob] = {}
        self._since: dict[str, float] = {}
        self._done = 0
        self._failed = 0
        self._probe = _LoopProbe()
        self._identity: Presence | None = None

    def watch_loop(self) -> None:
        """Measures the lag of the event loop that this is called in, from now on."""
        self._probe.watch(trio.lowlevel.current_trio_token())

    def introduce(self, *, consumer: str, handler: str, concurrency: int, code: str = "") -> None:
        """Sets what the worker reports of itself in Redis. `code`: see Presence."""
        self._identity = Presence(
            consumer=consumer,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("hashee-agent"),
            handler=handler,
            concurrency=concurrency,
            started_ms=time.time_ns() // 1_000_000,
            running=0,
            jobs_done=0,
            jobs_failed=0,
            rss_bytes=0,
            loop_lag_ms=0.0,
            code=code,
        )

    def presence(self, loop_lag_ms: float) -> Presence | None:
        """Returns the worker's present report for Redis; None before `introduce`."""
        if self._identity is None:
            return None
        return msgspec.structs.replace(
            self._identity,
            running=len(self._running),
            jobs_done=self._done,
            jobs_failed=self._failed,
            rss_bytes=rss_bytes(),
            loop_lag_ms=round(loop_lag_ms, 1),
        )

    def started(self, job: Job) -> None:
        with self._lock:
            self._since[job.entry_id] = time.monotonic()
            self._running[job.entry_id] = RunningJob(job.entry_id, job.job_id, time.time_ns() // 1_000_000)

    def waited(self, job: Job, seconds: float) -> None:
        """Notes seconds for which a reply had no room: they do not count as the job's own time."""
        with self._lock:
            running = self._running.get(job.entry_id)
            if running is not None:
                later = running.started_ms + int(seconds * 1000)
                self._running[job.entry_id] = msgspec.structs.replace(running, started_ms=later)

    def ended(self, job: Job) -> None:
        with self._lock:
            self._running.pop(job.entry_id, None)
            self._since.pop(job.entry_id, None)

    def longest_run_seconds(self) -> float:
        """Returns for how long the oldest running handler has run, by a monotonic clock."""
        with self._lock:
            return time.monotonic() - min(self._since.values()) if self._since else 0.0

    def count_done(self) -> None:
        self._done += 1

    def count_failed(self) -> None:
        self._failed += 1

    def heartbeat(self, observations_dropped: int, trouble: str = "") -> Heartbeat:
        """Returns a heartbeat; called by the thread that sends it."""
        with self._lock:
            running = tuple(self._running.values())
        return Heartbeat(
            loop_lag_ms=self._probe.lag_ms(),
            running=running,
            rss_bytes=rss_bytes(),
            jobs_done=self._done,
            jobs_failed=self._failed,
            observations_dropped=observations_dropped,
            trouble=trouble,
        )


class _LoopProbe:
    """Asks the event loop for a sign of life at each reading; the lag is how long the last one took, or has taken so far."""

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._asked_at = 0.0
        self._waiting = False
        self._lag_ms = 0.0

    def watch(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token

    def lag_ms(self) -> float | None:
        if self._token is None:
            return None
        now = time.monotonic()
        if self._waiting:
            return (now - self._asked_at) * 1000
        measured = self._lag_ms
        self._waiting, self._asked_at = True, now
        try:
            self._token.run_sync_soon(self._answer, idempotent=True)
        except trio.RunFinishedError:
            self._token = None
            self._waiting = False
        return measured

    def _answer(self) -> None:
        self._lag_ms = (time.monotonic() - self._asked_at) * 1000
        self._waiting = False
