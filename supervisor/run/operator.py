"""What a person can ask of a running supervisor, by signal or over the control socket: reload, more or fewer workers, its stacks, a message."""

import signal
from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from bus.control.messages import ControlAnswer, Request
from bus.records.outside import OutsideMessage, OutsideShow
from host import stacks
from supervisor.control.answers import raw
from supervisor.outbound.from_outside import FromOutside
from supervisor.pool.pool import Pool
from supervisor.pool.reloading import Reloading
from supervisor.run.requests import answered
from supervisor.settings.bounds import Bounds

OBEYED = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGQUIT)

log = structlog.get_logger()


class Scaled(msgspec.Struct, frozen=True):
    """`workers`: "N" or "MIN:MAX", as it holds now."""

    workers: str


class Operator:
    """Of one supervisor."""

    def __init__(self, pool: Pool, reloading: Reloading, outside: FromOutside) -> None:
        self._pool = pool
        self._reloading = reloading
        self._outside = outside

    @property
    def commands(self) -> dict[str, Callable[[Request], Awaitable[ControlAnswer]]]:
        """Of the control socket."""
        return {"reload": self._reload, "scale": self._scale, "send": self._send, "show": self._show}

    async def obey(self, number: signal.Signals) -> None:
        """A signal."""
        await trio.lowlevel.checkpoint()
        match number:
            case signal.SIGHUP:
                await self._reloading.reload()
            case signal.SIGTTIN:
                self._pool.scale(self._pool.bounds.moved(1))
            case signal.SIGTTOU:
                self._pool.scale(self._pool.bounds.moved(-1))
            case signal.SIGQUIT:
                log.warning("supervisor: stacks", stacks=stacks.dump(trio.lowlevel.current_root_task()))
                self._pool.dump_stacks()

    async def _reload(self, _request: Request) -> ControlAnswer:
        problem = await self._reloading.reload()
        return ControlAnswer(ok=not problem, error=problem and f"the old workers stay: {problem}")

    async def _scale(self, request: Request) -> ControlAnswer:
        await trio.lowlevel.checkpoint()
        try:
            self._pool.scale(Bounds.parse(request.workers))
        except ValueError:
            return ControlAnswer(ok=False, error="the number of workers is N or MIN:MAX, from 0 to 256")
        return ControlAnswer(ok=True, result=raw(Scaled(str(self._pool.bounds))))

    async def _send(self, request: Request) -> ControlAnswer:
        """Queues a message from a program of the owner's own. `result`: its receipt, or the reason."""
        return await answered(request, OutsideMessage, self._outside.send)

    async def _show(self, request: Request) -> ControlAnswer:
        """Shows what is worth nothing later. `result`: as `_send`."""
        return await answered(request, OutsideShow, self._outside.show)
