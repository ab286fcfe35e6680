"""While a supervisor waits for Redis at its start: answers probes and `status`, tells the keeper that it lives, and obeys a stop.

A Redis that is away, loads its file or refuses us is waited for; nothing else of ours can be begun without it. Liveness is green
meanwhile, since our loop turns, and readiness says what is waited for.
"""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
import trio

from bus.control.messages import ControlAnswer, Request
from bus.transport.trouble import Trouble
from bus.transport.wire import RedisFailed
from supervisor.control.answers import Stopping, raw
from supervisor.control.keeper_link import PULSE, PULSE_SECONDS, KeeperLink
from supervisor.observe.health import Check, Health
from supervisor.run.supervisor_control import SupervisorControl
from supervisor.settings.supervisor import SupervisorSettings

WAITING = "starting: waiting for Redis"
LEAVE_AFTER_SECONDS = 0.1
"""So that whoever asked for a stop over the control socket has its answer."""

Patience = Callable[[RedisFailed], Awaitable[None]]
"""Told what Redis did not do; returns when it is time for the next try."""

log = structlog.get_logger()


class Starting:
    """Of one supervisor, until its parts are put together. `everything`: what a stop meanwhile ends."""

    def __init__(
        self, health: Health, keeper: KeeperLink | None, settings: SupervisorSettings, everything: trio.CancelScope
    ) -> None:
        self._health = health
        self._keeper = keeper
        self._settings = settings
        self._everything = everything
        self._answering = trio.CancelScope()
        self._silent = trio.Event()
        self._asked_to_stop = trio.Event()
        self._trouble = Trouble("start", _said_by_failed)
        self._detail = WAITING

    async def failed(self, error: RedisFailed) -> None:
        """Redis did not do what the start needs; returns when it is time for the next try."""
        if error.reason != self._trouble.reason:
            log.warning("redis: not there yet", reason=str(error))
        pause_seconds = self._trouble.met(error)
        self._detail = f"{WAITING}: {error.reason} ({error})"
        await trio.sleep(pause_seconds)

    async def over(self) -> None:
        """The parts answer from here on; returns when nothing of this does."""
        self._answering.cancel()
        await self._silent.wait()

    async def answer(self, dead_threads: Callable[[], list[str]]) -> None:
        """Until `over`."""
        with self._answering:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._health.run, self._checks, dead_threads)
                nursery.start_soon(self._serve_control)
                nursery.start_soon(self._leave_when, self._hear_a_stop)
                nursery.start_soon(self._leave_when, self._asked_to_stop.wait)
                if self._keeper is not None:
                    nursery.start_soon(self._pulse, self._keeper)
        self._silent.set()

    def _checks(self) -> tuple[Check, ...]:
        return (Check("redis", ok=False, detail=self._detail),)

    async def _pulse(self, keeper: KeeperLink) -> None:
        while True:
            if self._health.liveness().ok:
                await keeper.report(PULSE, self._detail)
            await trio.sleep(PULSE_SECONDS)

    async def _serve_control(self) -> None:
        if self._keeper is not None:
            await SupervisorControl({"status": self._status}).answer_keeper(self._keeper)
        else:
            await SupervisorControl({"status": self._status, "stop": self._stop}).serve_alone(self._settings)

    async def _status(self, _request: Request) -> ControlAnswer:
        await trio.lowlevel.checkpoint()
        return ControlAnswer(ok=False, error=self._detail)

    async def _stop(self, _request: Request) -> ControlAnswer:
        await trio.lowlevel.checkpoint()
        self._asked_to_stop.set()
        return ControlAnswer(ok=True, result=raw(Stopping(LEAVE_AFTER_SECONDS)))

    async def _hear_a_stop(self) -> None:
        if self._keeper is not None:
            await self._keeper.wait_for_drain()
            return
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                return

    async def _leave_when(self, asked: Callable[[], Awaitable[None]]) -> None:
        """Nothing was begun, so there is nothing to drain."""
        await asked()
        log.info("stopped before Redis was there")
        await trio.sleep(LEAVE_AFTER_SECONDS)
        self._everything.cancel()


def _said_by_failed(_who: str, _reason: str) -> None:
    """With the address in it."""


@asynccontextmanager
async def answered_while_starting(
    health: Health, keeper: KeeperLink | None, settings: SupervisorSettings, dead_threads: Callable[[], list[str]]
) -> AsyncIterator[Starting]:
    """For a block that waits for Redis; `over` ends the answering within it. A stop meanwhile ends the block."""
    async with trio.open_nursery() as nursery:
        starting = Starting(health, keeper, settings, nursery.cancel_scope)
        nursery.start_soon(starting.answer, dead_threads)
        yield starting
        nursery.cancel_scope.cancel()
