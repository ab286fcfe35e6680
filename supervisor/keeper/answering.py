"""Answers the control socket for the keeper: it stops and upgrades by itself, and asks its supervisor for everything else.

The keeper has no keys and no Redis client: what stands in Redis only the supervisor can tell.
"""

import os
from collections.abc import Awaitable, Callable

import msgspec
import trio

from bus.control.messages import ControlAnswer, Request
from supervisor.control.answers import Stopping, raw
from supervisor.keeper.files_gate import FilesStatus
from supervisor.keeper.supervision import Upgrade, UpgradeFailed

SILENT = ControlAnswer(ok=False, error="the supervisor does not answer; its log says more")


class KeeperStatus(msgspec.Struct, frozen=True):
    """`state`: starting, running, draining. `redis`: private or given. `upgrade`: how the last one went.

    `files`: its own file gate, None where it has none. `lines_passed_over`: messages of its supervisors that this release does not know.
    """

    pid: int
    uptime_seconds: float
    state: str
    redis: str
    upgrade: str = ""
    lines_passed_over: int = 0
    files: FilesStatus | None = None


class KeeperControl:
    """Answers each request. `stop` begins a drain and returns how long it may take at most; `state` tells the keeper's own state."""

    def __init__(
        self,
        *,
        ask: Callable[[Request], Awaitable[ControlAnswer]],
        stop: Callable[[], float],
        upgrade: Callable[[], Upgrade],
        last_upgrade: Callable[[], str],
        passed_over: Callable[[], int],
        state: Callable[[], str],
        files: Callable[[], FilesStatus | None],
        redis: str,
        patience_seconds: float,
    ) -> None:
        """`patience_seconds`: how long `status` waits for the supervisor's part."""
        self._ask = ask
        self._stop = stop
        self._upgrade = upgrade
        self._last_upgrade = last_upgrade
        self._passed_over = passed_over
        self._state = state
        self._files = files
        self._redis = redis
        self._patience_seconds = patience_seconds
        self._began_at = trio.current_time()

    async def answer(self, request: Request) -> ControlAnswer:
        """Does what is asked, or has the supervisor do it. Returns the answer."""
        if request.command == "stop":
            return ControlAnswer(ok=True, result=raw(Stopping(self._stop())))
        if request.command == "upgrade":
            return await self._begin_upgrade(wait=request.wait)
        if request.command == "status":
            return await self._status(request)
        return await self._ask(request)

    async def _begin_upgrade(self, *, wait: bool) -> ControlAnswer:
        try:
            upgrade = self._upgrade()
            if wait:
                await upgrade.wait()
        except UpgradeFailed as failed:
            return ControlAnswer(ok=False, error=f"not upgraded: {failed}")
        return ControlAnswer(ok=True)

    async def _status(self, request: Request) -> ControlAnswer:
        told = SILENT
        with trio.move_on_after(self._patience_seconds):
            told = await self._ask(request)
        uptime = trio.current_time() - self._began_at
        keeper = KeeperStatus(
            os.getpid(),
            round(uptime, 1),
            self._state(),
            self._redis,
            self._last_upgrade(),
            self._passed_over(),
            self._files(),
        )
        whole = {"keeper": keeper, "supervisor": told.result if told.ok else None, "problem": told.error}
        return ControlAnswer(ok=True, result=raw(whole))
