"""Makes timers that are due jobs of their conversations, once each time. One of several supervisors does it at a time.

If two do, one of them fires each timer: a timer is moved and its job placed by one script. Redis' clock counts, as for everything that is due
there: a timer waits longer if that was put back, and nothing is due twice. Whatever was missed, while everything was down, is due at once, and
of a daily one only once.
"""

import contextlib
import math
from collections.abc import Callable

import structlog
import trio

from bus.records.daily import NoSuchTime
from bus.records.records import BadRecord, NewerRecord
from bus.records.timers import EVERY
from bus.steps.policies import PolicyStore
from bus.steps.timers import AGAIN_MS, Alarm, Fired, Timers
from bus.steps.work_lease import WorkLease
from bus.transport.wire import RedisDenied, RedisFailed, RedisRefused
from host.budgets import StoreBudgets
from supervisor.observe.metrics import Metrics
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.settings.pauses import PAUSES, Pauses

MOST_AT_A_LOOK = 1000
"""Timers that are fired before the lease is renewed: a second's work."""

DECLARED_SECONDS = 10.0
"""Between two looks at what handlers declare to run by itself."""

log = structlog.get_logger()


class TimerMover:
    """Fires timers on behalf of one supervisor."""

    def __init__(
        self,
        timers: Timers,
        lease: WorkLease,
        metrics: Metrics,
        *,
        policies: PolicyStore,
        budgets: Callable[[], StoreBudgets] | None = None,
        pauses: Pauses = PAUSES,
    ) -> None:
        """`budgets`: returns the present ones."""
        self._timers = timers
        self._lease = lease
        self._metrics = metrics
        self._policies = policies
        self._declared_at = -math.inf
        self._budgets = budgets
        self._pauses = pauses

    async def run(self) -> None:
        """Fires what is due, until cancelled."""
        trouble = said_trouble("timers")
        while True:
            try:
                if await self._has_work() and await self._lease.hold():
                    await self.look()
                trouble.over()
            except RedisFailed as error:
                trouble.met(error)
            await trio.sleep(self._pauses.timers_look)

    async def _has_work(self) -> bool:
        if trio.current_time() - self._declared_at >= DECLARED_SECONDS:
            await self.declare()
        return bool(await self._timers.due(await self._timers.now_ms(), 1))

    async def declare(self) -> None:
        """Sets the timers of functions that run by themselves, as the handlers declare them now. Two that do this set the same."""
        for name, seconds in (await self._policies.every()).items():
            with contextlib.suppress(NewerRecord):  # a program of that version looks after it
                await self._timers.declare(name, seconds, await self._timers.now_ms())
        self._declared_at = trio.current_time()

    async def look(self) -> int:
        """Fires what is due now, page by page; returns how many. What cannot be fired is looked at again later, so that each look goes on."""
        if self._budgets is not None:
            self._timers.budgets = self._budgets()
        fired = seen = 0
        while seen < MOST_AT_A_LOOK:
            now_ms = await self._timers.now_ms()
            page = await self._timers.due(now_ms)
            for alarm in page:
                fired += await self._one(alarm, now_ms)
            seen += len(page)
            if not page:
                break
        return fired

    async def _one(self, alarm: Alarm, now_ms: int) -> bool:
        try:
            return await self._fire(alarm, now_ms)
        except RedisDenied:
            raise
        except RedisRefused as error:  # this one alone, such as a key of a wrong type
            log.error("timer: cannot be fired now", conversation=alarm.conversation_id, reason=str(error))
            await self._timers.postpone(alarm, now_ms + AGAIN_MS)
            return False

    async def _fire(self, alarm: Alarm, now_ms: int) -> bool:
        packed = await self._timers.read(alarm)
        if packed is None:
            await self._timers.forget(None, alarm)
            return False
        try:
            timer = self._timers.opened(packed, alarm)
            if timer.every_ms and timer.name.removeprefix(EVERY) not in await self._policies.every():
                await self._timers.forget(packed, alarm)  # no handler declares it any more
                return False
            outcome = await self._timers.fire(packed, timer, now_ms)
        except (NewerRecord, NoSuchTime) as error:
            # A program of that version, or a machine that knows the time zone, may do it.
            log.warning("timer: cannot be fired here", conversation=alarm.conversation_id, reason=str(error))
            await self._timers.postpone(alarm, now_ms + AGAIN_MS)
            return False
        except BadRecord as error:
            log.error("timer: unreadable, given up", conversation=alarm.conversation_id, reason=str(error))
            await self._timers.forget(packed, alarm)
            return False
        if outcome is Fired.FULL:
            await self._timers.postpone(alarm, now_ms + AGAIN_MS)
        if outcome is not Fired.FIRED:
            return False
        self._metrics.timer_fired(timer.kind, max(0, now_ms - timer.due_ms) / 1000)
        return True
