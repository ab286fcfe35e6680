"""The children of the keeper: waits for each, ends it in steps, and reaps it.

The keeper may be pid 1 of a container and then also inherits orphans of other programs. They are reaped here too, without ever taking
the exit status of a child that someone waits for.
"""

import os
import random
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from host.instance import Instance
from host.process_end import ProcessEnd
from host.strays import become_subreaper, end_strays

BACKOFF_BASE_SECONDS = 0.5  # a passing fault costs no more than that
BACKOFF_CAP_SECONDS = 30.0  # what was mended is noticed within it
HEALTHY_AFTER_SECONDS = 60.0  # who lived so long failed by something new: the next wait is the base again


@dataclass
class Child:
    """A child process. `ended` is set when it has been reaped; `returncode` is then its exit status, or -N for signal N."""

    process: subprocess.Popen[bytes]
    started_at: float
    identity: str = ""
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.returncode

    async def wait(self) -> int:
        """Waits for its end and returns its exit status. Cancelling stops the waiting, not the child."""
        await self.ended.wait()
        assert self.process.returncode is not None  # noqa: S101  # reaped
        return self.process.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if not self.ended.is_set():
            self.process.send_signal(number)

    async def end(self, within_seconds: float) -> None:
        """Sends TERM, and KILL when the time is over; returns when the child is reaped, even if cancelled meanwhile."""
        self.send_signal(signal.SIGTERM)
        with trio.move_on_after(within_seconds):
            await self.ended.wait()
        await self.kill()

    async def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await self.ended.wait()


class Children:
    """All children of this process. `adopt` a child right after its start, before a SIGCHLD can have it reaped as an orphan."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._running: dict[int, Child] = {}
        self._gone: set[str] = set()
        become_subreaper()

    def adopt(self, process: subprocess.Popen[bytes]) -> Child:
        child = Child(process, trio.current_time(), Instance.identity_of(process.pid))
        self._running[process.pid] = child
        self._nursery.start_soon(self._wait, child)
        return child

    async def reap_strangers_on_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGCHLD) as arrivals:
            async for _ in arrivals:
                self._reap_strangers()

    def kill_all_now(self) -> None:
        """Sends KILL to all, without waiting or reaping: the last resort when the keeper itself has failed."""
        for child in list(self._running.values()):
            with suppress(ProcessLookupError):
                child.process.kill()

    async def _wait(self, child: Child) -> None:
        end = ProcessEnd(child.pid)
        try:
            await end.wait()
        finally:
            end.close()
        child.process.wait()
        del self._running[child.pid]
        self._gone.add(child.identity)
        child.ended.set()
        self._reap_strangers()

    def _reap_strangers(self) -> None:
        # Workers of a dead supervisor, and what their handlers started, have become our children.
        end_strays(lambda name: Instance.identity_in(name) in self._gone)
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self._running:
                return  # its own waiter reaps it, and comes back here
            os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)


@dataclass
class RestartBackoff:
    """How long to wait before the next start: a random part of a ceiling that doubles with each failure until the child was healthy."""

    base_seconds: float = BACKOFF_BASE_SECONDS
    cap_seconds: float = BACKOFF_CAP_SECONDS
    healthy_after_seconds: float = HEALTHY_AFTER_SECONDS
    uniform: Callable[[float, float], float] = random.uniform
    failures: int = 0

    def after_death(self, lived_seconds: float) -> float:
        """Returns the seconds to wait. `lived_seconds`: how long the child was healthy; 0 if it never was."""
        if lived_seconds >= self.healthy_after_seconds:
            self.failures = 0
        ceiling = min(self.cap_seconds, self.base_seconds * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return self.uniform(0.0, ceiling)
