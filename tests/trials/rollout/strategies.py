"""How each platform changes versions, acted out by its own rules with real processes.

Kubernetes: `replicas: 3, maxSurge: 1, maxUnavailable: 0`: start one, wait for its readiness, TERM one old, wait at most the grace
period, and again. systemd: the other of two slots (blue, green) is started, and the former one stopped when it is ready. upgrade:
`hashee-agent upgrade --wait` at the one keeper.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import trio

from sandbox.children import running
from tests.trials.rollout.scene import Program, Scene
from tests.waiting import waiting_for

REPLICAS = 3
SLOTS = {"HASHEE_WORKERS": "2", "HASHEE_CONCURRENCY": "64"}
SLOTS_A_REPLICA = {"HASHEE_WORKERS": "1", "HASHEE_CONCURRENCY": "43"}
BROKEN_SECONDS = 15.0
"""How long a platform waits before its owner calls a rollout off."""

REDIS_AWAY_SECONDS = 0.2
UPGRADE_SECONDS = 120.0


class RolloutFailed(Exception):
    """It should have gone through, and did not."""


class Strategy(Protocol):
    """`begin` brings up the first version; `roll` replaces it by what is on disk and says whether that went through."""

    given_redis: bool

    async def begin(self, scene: Scene) -> None: ...

    async def roll(self, scene: Scene) -> bool: ...

    def leaving(self) -> list[int]:
        """Pids of supervisors that drain now."""


class Kubernetes:
    """A Deployment of three pods."""

    given_redis = True

    def __init__(self) -> None:
        self._pods: list[Program] = []
        self._leaving: Program | None = None

    async def begin(self, scene: Scene) -> None:
        for _ in range(REPLICAS):
            pod = await self._start(scene)
            if not await pod.until_ready():
                raise RolloutFailed(f"{pod.name} does not become ready\n{pod.child.last_lines()}")
            self._pods.append(pod)

    async def roll(self, scene: Scene) -> bool:
        for old in list(self._pods):
            new = await self._start(scene)
            if not await new.until_ready(BROKEN_SECONDS):
                await new.stop()
                return False
            self._pods.append(new)
            self._pods.remove(old)
            self._leaving = old
            await old.stop()
            self._leaving = None
        return True

    def leaving(self) -> list[int]:
        return [] if self._leaving is None else [self._leaving.child.pid]

    async def _start(self, scene: Scene) -> Program:
        assert scene.redis is not None
        return await scene.start(
            "supervisor", f"pod-{scene.started}", HASHEE_REDIS_URL=scene.redis.url, **SLOTS_A_REPLICA
        )


class Systemd:
    """`hashee-agent@blue` and `hashee-agent@green`, one of them at a time, on a Redis that is given."""

    given_redis = True

    def __init__(self) -> None:
        self._running: Program | None = None
        self._leaving: Program | None = None

    async def begin(self, scene: Scene) -> None:
        self._running = await self._start(scene)
        if not await self._running.until_ready():
            raise RolloutFailed(f"it does not become ready\n{self._running.child.last_lines()}")

    async def roll(self, scene: Scene) -> bool:
        assert self._running is not None
        new = await self._start(scene)
        if not await new.until_ready(BROKEN_SECONDS):
            await new.stop()
            return False
        self._running, self._leaving = new, self._running
        await self._leaving.stop()
        self._leaving = None
        return True

    def leaving(self) -> list[int]:
        return [] if self._leaving is None else supervisors_of(self._leaving.child.pid)

    async def _start(self, scene: Scene) -> Program:
        assert scene.redis is not None
        colour = "green" if scene.started % 2 else "blue"
        return await scene.start("up", colour, HASHEE_REDIS_URL=scene.redis.url, **SLOTS)


class Upgrade:
    """One host: generations under one keeper, Redis its own."""

    given_redis = False

    def __init__(self) -> None:
        self._up: Program | None = None
        self._old: list[int] = []

    async def begin(self, scene: Scene) -> None:
        self._up = await scene.start("up", "host", **SLOTS)
        if not await self._up.until_ready():
            raise RolloutFailed(f"it does not become ready\n{self._up.child.last_lines()}")

    async def roll(self, scene: Scene) -> bool:
        assert self._up is not None
        self._old = supervisors_of(self._up.child.pid)
        async with running(
            "upgrade",
            [sys.executable, "-m", "supervisor", "upgrade", "--wait"],
            log_path=scene.directory / "upgrade.log",
            environment=self._up.environment,
        ) as command:
            with waiting_for("the upgrade to end", UPGRADE_SECONDS):
                status = await command.wait()
        self._old = []
        return status == 0

    def leaving(self) -> list[int]:
        """The old one, once it was told to."""
        log = "" if self._up is None else self._up.child.log_path.read_text(encoding="utf-8")
        told = log.count("the old one leaves") > log.count("keeper: upgraded")
        return self._old if told else []

    def redis_pid(self) -> int:
        assert self._up is not None
        [pid] = children_of(self._up.child.pid, b"redis-server", b"valkey-server")
        return pid


STRATEGIES: dict[str, Callable[[], Kubernetes | Systemd | Upgrade]] = {
    "kubernetes": Kubernetes,
    "systemd": Systemd,
    "upgrade": Upgrade,
}


async def kill_the_one_that_leaves(strategy: Strategy, scene: Scene) -> None:
    """SIGKILL, in the middle of the first drain."""
    while not (pids := strategy.leaving()):
        await trio.sleep(0.01)
    await trio.sleep(0.3)  # in the middle of it, not before it has begun
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


async def restart_redis(strategy: Strategy, scene: Scene) -> None:
    """SIGKILL while the versions change hands; it comes back with what the kernel had."""
    while scene.started < 2 and not strategy.leaving():
        await trio.sleep(0.01)
    if isinstance(strategy, Upgrade):
        os.kill(strategy.redis_pid(), signal.SIGKILL)  # its keeper starts it again
        return
    assert scene.redis is not None
    scene.redis.kill()
    await trio.sleep(REDIS_AWAY_SECONDS)
    scene.redis.start()


TROUBLES: dict[str, Callable[[Strategy, Scene], Awaitable[None]]] = {
    "kill-old": kill_the_one_that_leaves,
    "restart-redis": restart_redis,
}


def supervisors_of(keeper: int) -> list[int]:
    return children_of(keeper, b"supervisor")


def children_of(parent: int, *titles: bytes) -> list[int]:
    try:
        pids = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()]
        return [pid for pid in pids if any(title in Path(f"/proc/{pid}/cmdline").read_bytes() for title in titles)]
    except (FileNotFoundError, ProcessLookupError):
        return []
