"""Checks once a second that Redis answers, does what we ask, has room (redis_memory.py), and still has the settings and keys that it must have.

Readiness is red at once if Redis refuses, with its text; if it is away, after five seconds. Reading proves little: a replica, a full
server and one that cannot persist all answer. So a key is written too. Every few seconds a new connection is made, as a restart would make it:
a changed password or certificate refuses that while old connections go on. And any refused command counts until it succeeds
(bus/transport/refusals.py).
"""

from collections.abc import Mapping, Sequence

import structlog
import trio

from bus.settings.redis_url import parse_redis_url
from bus.transport.client import RedisClient
from bus.transport.clock import clock_fault, clock_of
from bus.transport.lua import Scripts
from bus.transport.route import Route
from bus.transport.wire import RedisFailed, RedisUnavailable, Wire
from bus.views.shared_keys import SharedKeys
from supervisor.observe.health import Check
from supervisor.observe.metrics import Metrics
from supervisor.recovery.redis_check import Facts, look
from supervisor.recovery.redis_memory import RedisMemory

ASK_SECONDS = 1.0
LATE_SECONDS = 5.0
KNOCK_SECONDS = 3.0
KNOCK_ANSWER_SECONDS = 3.0
PROBE_KEPT_MS = 60_000
RUNBOOK = "docs/runbooks/redis.md"

log = structlog.get_logger()


class RedisWatch:
    """The watch of one supervisor."""

    def __init__(
        self,
        client: RedisClient,
        metrics: Metrics,
        memory: RedisMemory,
        shared_keys: SharedKeys,
        trust: frozenset[str] = frozenset(),
        *,
        probe: str = "probe",
        ask_seconds: float = ASK_SECONDS,
        knock_seconds: float = KNOCK_SECONDS,
    ) -> None:
        """`trust`: settings of Redis that its provider hides and the owner vouches for. `probe`: the key that is written as a test.

        `ask_seconds`, `knock_seconds`: between two checks, and between two new connections.
        """
        self._client = client
        self._route = Route(parse_redis_url(client.url))
        self._metrics = metrics
        self._memory = memory
        self._answered_at = trio.current_time()
        self._shared_keys = shared_keys
        self._trust = trust
        self._probe = probe
        self._ask_seconds = ask_seconds
        self._knock_seconds = knock_seconds
        self._failed: RedisFailed | None = None
        self._locked_out: RedisFailed | None = None
        self.clock_ahead_ms = 0
        """How far Redis' clock is ahead of ours, ms."""
        self.faults: Mapping[str, str] = {}
        """For each checked setting, why messages can be lost by it; '' if they cannot."""
        self._damage: Sequence[str] = ()
        """Which keys that all conversations share are not as they must be."""

    async def run(self) -> None:
        """Checks once a second until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._knock)
            await self._look()

    async def _look(self) -> None:
        while True:
            try:
                facts = await look(self._client)
                await self._memory.consider(facts)
                self._consider(facts, await self._shared_keys.faults())
                await self._client.command("SET", self._probe, "1", "PX", PROBE_KEPT_MS)
                _, self.clock_ahead_ms = await clock_of(self._client)
            except RedisFailed as error:
                self._failed = error
                self._metrics.redis_round_trip.set(float("nan"))
            else:
                self._failed = None
                self._answered_at = trio.current_time()
                self._metrics.redis_round_trip.set(self._client.round_trip_seconds)
            await trio.sleep(self._ask_seconds)

    async def _knock(self) -> None:
        """Makes a new connection, and notes whether Redis lets it in."""
        at_once = trio.CapacityLimiter(1)
        while True:
            try:
                await trio.to_thread.run_sync(self._let_in, abandon_on_cancel=True, limiter=at_once)
            except RedisFailed as error:
                self._locked_out = error
            else:
                self._locked_out = None
            await trio.sleep(self._knock_seconds)

    def _let_in(self) -> None:
        door = Wire(self._route, Scripts({}), answer_timeout_seconds=KNOCK_ANSWER_SECONDS)
        try:
            door.call([("PING",)])
        finally:
            door.close()

    def check(self) -> Check:
        """Returns the check for readiness."""
        ago = trio.current_time() - self._answered_at
        wrong = [fault for fault in (self._refusal(), self._memory.full, self._why_unfit()) if fault]
        late = ago >= LATE_SECONDS
        if late and not wrong and self._failed is not None:
            wrong = [f"away: {self._failed}"]
        skew = clock_fault(self.clock_ahead_ms)  # shown only: a skewed clock is allowed for everywhere
        detail = "; ".join([f"answered {ago:.1f} s ago", *wrong, *([skew] if skew else [])])
        return Check("redis", ok=not late and not wrong, detail=detail)

    def _refusal(self) -> str:
        """Returns what Redis refuses; '' if it refuses nothing, or is away."""
        said = [
            f"{prefix}{error.reason}: {error}"
            for prefix, error in (("refuses: ", self._failed), ("refuses new connections: ", self._locked_out))
            if error is not None and error.reason != RedisUnavailable.reason
        ]
        refused = self._client.refusals.now()
        return "; ".join([*said, f"refused: {refused}"] if refused else said)

    def _why_unfit(self) -> str:
        return "; ".join(fault for fault in (*self.faults.values(), *self._damage) if fault)

    def _consider(self, facts: Facts, damage: Sequence[str]) -> None:
        before = self._why_unfit()
        self.faults, self._damage = facts.faults(self._trust), damage
        unfit = self._why_unfit()
        if unfit and unfit != before:
            log.error("redis: not fit any more", reason=unfit, remedy=RUNBOOK)
        elif before and not unfit:
            log.info("redis: fit again")
