"""Generations of supervisors: one after the other when it dies, two at a time during an upgrade (DESIGN §4).

Only this file decides whether a dead supervisor gets a successor: always, unless it was draining, or refused its configuration
before one was ever ready. An upgrade starts the code that is on disk now beside the old one, which leaves only when the new one
serves; whatever goes wrong with the new one, the old one goes on.
"""

import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio
from structlog import get_logger

from bus.control.messages import ControlAnswer, Request
from host.children import Children, RestartBackoff
from host.code_place import Code, CodeGone, CodePlace
from host.reasons import why
from supervisor.control.keeper_link import DRAIN, READY, RELOADING, RETIRE, ReportedState
from supervisor.keeper.notify import WATCHER_VARIABLES, Notifier
from supervisor.keeper.supervisor_process import (
    ENDED,
    SpawnContext,
    SupervisorArguments,
    SupervisorCommand,
    SupervisorProcess,
    start_generation,
)

__all__ = [
    "EXIT_CONFIGURATION",
    "EXIT_FAILURE",
    "Supervision",
    "SupervisorArguments",
    "SupervisorCommand",
    "UpgradeFailed",
]

EXIT_CONFIGURATION = 78
"""EX_CONFIG of sysexits(3): starting again does not help."""

EXIT_FAILURE = 1


class UpgradeFailed(Exception):
    """Raised when an upgrade fails: the old generation goes on. The text says why and what helps."""


@dataclass
class Upgrade:
    """One upgrade, from its beginning until the old generation has left. `problem`: why the old one goes on."""

    done: trio.Event = field(default_factory=trio.Event)
    problem: str = ""

    async def wait(self) -> None:
        """Waits for its end. Raises UpgradeFailed. Cancelled, the upgrade goes on."""
        await self.done.wait()
        if self.problem:
            raise UpgradeFailed(self.problem)


class Supervision:
    """Keeps one supervisor running, and upgrades it.

    `environ` is passed on unread, without what only the keeper may answer (systemd's sockets).
    """

    def __init__(
        self,
        command: SupervisorCommand,
        environ: Mapping[str, str],
        *,
        code: Code,
        http_socket: socket.socket,
        redis_url: str | None,
        children: Children,
        notifier: Notifier,
        backoff: RestartBackoff,
        upgrade_seconds: float,
        drain_seconds: float,
        silence_seconds: float,
        on_upgrade: Callable[[], None] | None = None,
    ) -> None:
        """`upgrade_seconds`: in which a new generation has to serve; `drain_seconds`: in which an old one has to leave;
        one that was heard and then is silent for `silence_seconds` is ended. `on_upgrade`: is told when other code is in use.
        """
        handed_on = {name: value for name, value in environ.items() if name not in WATCHER_VARIABLES}
        code.way.note(handed_on)
        self._code = code
        self._shop = SpawnContext(command, handed_on, http_socket, redis_url, children, silence_seconds)
        self._notifier = notifier
        self._backoff = backoff
        self._upgrade_seconds = upgrade_seconds
        self._drain_seconds = drain_seconds
        self._on_upgrade = on_upgrade
        self._current: SupervisorProcess | None = None
        self._candidate: SupervisorProcess | None = None
        self._generations: set[SupervisorProcess] = set()
        self._nursery: trio.Nursery | None = None
        self._upgrade: Upgrade | None = None
        self._ever_ready = False
        self._starts = 0
        self._passed_over_before = 0
        self._draining = trio.Event()
        self._log = get_logger()
        self.last_upgrade = ""
        """How the last one went, for people."""

    @property
    def passed_over(self) -> int:
        """How many messages of all its supervisors this release does not know, and has passed over."""
        return self._passed_over_before + sum(generation.passed_over for generation in self._generations)

    async def run(self) -> int:
        """Runs supervisors until the drain is over. Returns the keeper's exit status, 78 when the configuration was refused."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            status = await self._keep_one()
            for generation in set(self._generations):  # an old one that still leaves
                await generation.ended.wait()
            nursery.cancel_scope.cancel()
        return status

    async def drain(self) -> None:
        """Asks all that run to drain; no other is started."""
        self._draining.set()
        for generation in set(self._generations):
            await generation.say(DRAIN)

    async def forward(self, number: signal.Signals) -> None:
        """Passes a signal on over the line: as a signal, TTIN would stop a supervisor that does not listen to it yet."""
        if self._current is not None:
            await self._current.say(f"signal {number.name}")

    async def ask(self, request: Request) -> ControlAnswer:
        """Asks the running supervisor a request of the control socket. Returns its answer."""
        return ENDED if self._current is None else await self._current.ask(request)

    async def kill(self) -> None:
        for generation in set(self._generations):
            await generation.kill()

    def begin_upgrade(self) -> "Upgrade":
        """Begins to replace the running generation by one of the code on disk. Raises UpgradeFailed where that cannot even begin."""
        if self._nursery is None or self._draining.is_set():
            raise UpgradeFailed("this agent is starting or stopping")
        if self._upgrade is not None and not self._upgrade.done.is_set():
            raise UpgradeFailed("an upgrade is under way; hashee-agent status shows how far it is")
        self._upgrade = Upgrade()
        self._nursery.start_soon(self._run_upgrade, self._upgrade)
        return self._upgrade

    async def _run_upgrade(self, upgrade: "Upgrade") -> None:
        self._tell("upgrade: the new generation starts")
        try:
            await self._replace_current()
        except UpgradeFailed as failed:
            upgrade.problem = str(failed)
            self._tell(f"upgrade failed, the old generation goes on: {failed}", bad=True)
        finally:
            self._candidate = None
            upgrade.done.set()

    async def _replace_current(self) -> None:
        try:
            place = self._code.way.look()
            new = self._start(place, beside_another=True)
        except CodeGone as gone:
            raise UpgradeFailed(str(gone)) from None
        except OSError as error:
            raise UpgradeFailed(
                f"no process could be started: {why(error)}; the limits are ulimit -u, ulimit -n and memory"
            ) from None
        self._candidate = new
        await self._wait_until_it_serves(new)
        old, self._current, self._candidate = self._current, new, None
        self._code.use(place)
        if self._on_upgrade is not None:
            self._on_upgrade()
        self._ever_ready = True
        self._notifier.status(new.last_words)
        if old is None or old is new or old.ended.is_set():
            self._tell("upgraded; the old generation had ended by itself")
            return
        self._tell("upgrade: the new generation serves, the old one leaves")
        await old.say(RETIRE)
        if await old.end_within(self._drain_seconds):
            self._tell(
                "upgraded" if old.status == 0 else f"upgraded; the old generation ended with status {old.status}"
            )
        else:
            self._tell("upgraded; the old generation took too long to leave and was killed", bad=True)

    async def _wait_until_it_serves(self, new: SupervisorProcess) -> None:
        """Waits until the new generation serves. Raises UpgradeFailed when it does not; then it is gone."""
        with trio.move_on_after(self._upgrade_seconds) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, new.ended, nursery.cancel_scope)
                nursery.start_soon(_cancel_after, self._draining, nursery.cancel_scope)
                await new.serving.wait()
                nursery.cancel_scope.cancel()
        if new.serving.is_set() and not new.ended.is_set():
            return
        if new.ended.is_set():
            raise UpgradeFailed(f"the new one ended with status {new.status}; its log says why")
        await new.kill()
        if not patience.cancelled_caught:
            raise UpgradeFailed("this agent was stopped meanwhile")
        said = f"its last word was {new.last_words!r}" if new.last_words else "it said nothing"
        raise UpgradeFailed(f"the new one did not serve within {self._upgrade_seconds:.0f} s; {said}")

    def _tell(self, text: str, *, bad: bool = False) -> None:
        self.last_upgrade = text
        self._notifier.status(text)
        (self._log.error if bad else self._log.info)(f"keeper: {text}")

    # One after the other

    async def _keep_one(self) -> int:
        while True:
            status, healthy_seconds = await self._run_current()
            if self._draining.is_set():
                return 0 if status == 0 else EXIT_FAILURE
            if status == EXIT_CONFIGURATION and not self._ever_ready:
                return EXIT_CONFIGURATION
            if self._candidate is not None and not self._candidate.ended.is_set():
                self._log.error("supervisor: died during an upgrade; the new generation goes on", status=status)
                self._current = self._candidate
                continue
            wait_seconds = self._backoff.after_death(healthy_seconds)
            self._notifier.status(f"the supervisor ended with status {status}; it is started again")
            self._log.error("supervisor: died; it is started again", status=status, in_seconds=round(wait_seconds, 2))
            with trio.move_on_after(wait_seconds):
                await self._draining.wait()
                return 0

    async def _run_current(self) -> tuple[int, float]:
        """Runs until the current generation has ended. Returns its exit status, and for how many seconds it was ready."""
        if self._current is None or self._current.ended.is_set():
            try:
                self._current = self._start(self._code.in_use(), beside_another=False)
            except OSError as problem:
                self._log.error("supervisor: cannot be started", errno=problem.errno, reason=problem.strerror)
                return EXIT_FAILURE, 0.0
        while True:
            current = self._current
            await current.ended.wait()
            if self._current is current:
                ready_at = current.ready_at
                return current.status, 0.0 if ready_at is None else trio.current_time() - ready_at

    def _start(self, place: CodePlace, *, beside_another: bool) -> SupervisorProcess:
        """Starts a generation from this place. Raises OSError."""
        assert self._nursery is not None  # noqa: S101 - `run` has opened it
        self._starts += 1
        generation = start_generation(
            self._shop, self._hear, place=place, beside_another=beside_another, number=self._starts
        )
        self._generations.add(generation)
        self._nursery.start_soon(self._accompany, generation)
        return generation

    async def _accompany(self, generation: SupervisorProcess) -> None:
        try:
            await generation.run()
        finally:
            self._passed_over_before += generation.passed_over
            self._generations.discard(generation)

    def _hear(self, generation: SupervisorProcess, state: ReportedState) -> None:
        if generation is not self._current:
            return
        if generation.ready_at is not None:
            self._ever_ready = True
        if state.state == READY:
            self._notifier.ready(generation.last_words)
        elif state.state == RELOADING:
            self._notifier.reloading(generation.last_words)
        else:
            self._notifier.status(generation.last_words)


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
