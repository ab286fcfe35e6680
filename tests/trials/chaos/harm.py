"""What goes wrong on purpose, and when: kills, stops, bad links, a relay that misbehaves. All of it from the seed.

What is done is written to chaos.log with the wall clock's time, to be read beside the logs of what it was done to.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx2
import msgspec
import trio

from sandbox.api import ApiRefused
from tests.trials.chaos.house import House
from tests.trials.drills.scene import copied_whole, put_back

KINDS = ("supervisor", "worker", "redis", "link", "stop", "relay")
ROLLBACK = "rollback"
"""Redis comes back 1 to 30 s older. Asked for by name: what people say on what was lost with it stands in quarantine, as it must."""

COPIED_BACK = "copied-back"
"""The state directory is copied while the agent runs, and put back 1 to 30 s later on the same boot, as a container's volume may be."""

COMES_BACK = frozenset({ROLLBACK, COPIED_BACK})
ROLLBACK_SECONDS = (1.0, 30.0)
TARGET_SECONDS = 20.0
"""A process that was killed just now is waited for, with its backoff, for so long."""

LONGER_THAN_A_LEASE = (16.0, 19.0)
FILES = Path("redis", "appendonlydir")
FAULTS = (
    "duplicate",
    "reorder",
    "lose_pushes",
    "lose_acks",
    "delay_acks",
    "429",
    "500",
    "disconnect",
    "connection_limit",
)


class Harm(msgspec.Struct, frozen=True):
    """One thing that goes wrong."""

    at_seconds: float
    kind: str


def planned_harm(*, kinds: Sequence[str], kills: int, seconds: float, seed: int) -> list[Harm]:
    """Every kind about equally often, at any moment of the run."""
    chance = random.Random(f"harm {seed}")
    mixed = [kinds[number % len(kinds)] for number in range(kills)]
    chance.shuffle(mixed)
    return sorted((Harm(chance.uniform(0.5, seconds), kind) for kind in mixed), key=lambda harm: harm.at_seconds)


class Harmer:
    """Does it, and counts what was done."""

    def __init__(self, house: House, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._house = house
        self._chance = random.Random(f"harmer {seed}")
        self._diary = house.directory / "chaos.log"
        self._kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "supervisor": self._kill_supervisor,
            "worker": self._kill_workers,
            "redis": self._kill_redis,
            "link": self._spoil_link,
            "stop": self._stop,
            "relay": self._spoil_relay,
            ROLLBACK: self._roll_back,
            COPIED_BACK: self._copy_back,
        }
        self._rolling_back = trio.Lock()

    async def run(self, harms: Sequence[Harm]) -> None:
        """Until the last one is over; they may overlap."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for harm in harms:
                await trio.sleep_until(began + harm.at_seconds)
                nursery.start_soon(self._kinds[harm.kind])

    async def heal(self) -> None:
        """Whatever is still wrong ends."""
        self._house.proxy.resume()
        self._house.proxy.accept()
        await self._fault("clear")
        self.note("healed")

    def note(self, text: str) -> None:
        """A line of chaos.log."""
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}"
        with self._diary.open("a", encoding="utf-8") as diary:
            diary.write(f"{stamp} {text}\n")

    # Processes

    async def _kill_supervisor(self) -> None:
        await self._kill("supervisor", self._house.supervisors)

    async def _kill_redis(self) -> None:
        await self._kill("redis", self._house.redis)

    async def _kill_workers(self) -> None:
        if self._chance.random() < 0.25:
            for _ in self._house.workers():
                await self._kill("worker", self._house.workers)
        else:
            await self._kill("worker", self._house.workers)

    async def _kill(self, kind: str, pids: Callable[[], list[int]]) -> None:
        pid = await self._one_of(pids)
        if pid is not None and _signal(pid, signal.SIGKILL):
            self._count(kind, f"SIGKILL {pid}")

    async def _stop(self) -> None:
        """Mostly a worker for longer than its lease; a supervisor or Redis that hangs now and then."""
        draw = self._chance.random()
        seconds = self._chance.uniform(*LONGER_THAN_A_LEASE)
        if draw < 0.3:
            seconds = self._chance.uniform(2.0, 8.0)
        pids = self._house.workers
        if draw > 0.85:
            pids = self._house.supervisors
        elif draw > 0.75:
            pids, seconds = self._house.redis, self._chance.uniform(2.0, 8.0)
        pid = await self._one_of(pids)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
                self._count("stop", f"SIGSTOP {pid} for {seconds:.1f} s")
                await trio.sleep(seconds)
            finally:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGCONT)
                os.close(descriptor)
            self.note(f"SIGCONT {pid}")

    async def _roll_back(self) -> None:
        """One at a time: the older file takes the place of the newer one while nothing runs that could start Redis."""
        world = self._house.world
        files = world.state_dir / FILES
        async with self._rolling_back:
            kept, seconds = await self._older(files, files)
            os.kill(world.keeper_pid, signal.SIGSTOP)
            try:
                if (pid := world.redis_pid()) is not None:
                    await world.kill(pid)
                await trio.to_thread.run_sync(put_back, kept, files)
            finally:
                os.kill(world.keeper_pid, signal.SIGCONT)
            self._count(ROLLBACK, f"Redis is {seconds:.1f} s older")

    async def _copy_back(self) -> None:
        """Whether the agent was drained or killed before; what stands in its directory then has no witness of its own."""
        state_dir = self._house.world.state_dir
        async with self._rolling_back:
            kept, seconds = await self._older(state_dir, state_dir / FILES)
            number = self._chance.choice((signal.SIGTERM, signal.SIGKILL))
            async with self._house.without_agent(number):
                await trio.to_thread.run_sync(put_back, kept, state_dir)
            self._count(COPIED_BACK, f"the state is {seconds:.1f} s older, after {number.name}")

    async def _older(self, what: Path, files: Path) -> tuple[Path, float]:
        """A copy of it, once it is so many seconds old. `files`: Redis' own in it."""
        kept = self._house.directory / "kept"
        while not await trio.to_thread.run_sync(copied_whole, what, kept, files):
            await trio.sleep(0.1)  # a rewrite was under way
        seconds = self._chance.uniform(*ROLLBACK_SECONDS)
        await trio.sleep(seconds)
        return kept, seconds

    async def _one_of(self, pids: Callable[[], list[int]]) -> int | None:
        with trio.move_on_after(TARGET_SECONDS):
            while not pids():
                await trio.sleep(0.02)
            return self._chance.choice(pids())
        return None

    # The way to the relay

    async def _spoil_link(self) -> None:
        proxy = self._house.proxy
        match self._chance.choice(("cut", "reset", "stall", "half-open", "refuse")):
            case "cut":
                self._count("link", f"cut {proxy.cut()}")
            case "reset":
                self._count("link", f"reset {proxy.reset()}")
            case "stall":
                await self._stall(self._chance.uniform(0.3, 4.0))
            case "half-open":
                await self._stall(self._chance.uniform(*LONGER_THAN_A_LEASE))
                proxy.reset()
            case _:
                proxy.refuse()
                self._count("link", f"refused, reset {proxy.reset()}")
                await trio.sleep(self._chance.uniform(0.5, 3.0))
                proxy.accept()

    async def _stall(self, seconds: float) -> None:
        self._count("link", f"stall for {seconds:.1f} s")
        self._house.proxy.stall()
        await trio.sleep(seconds)
        self._house.proxy.resume()

    async def _spoil_relay(self) -> None:
        if self._chance.random() < 0.3:
            relay = self._house.relay
            relay.away_seconds = self._chance.uniform(0.0, 2.0)
            if relay.pid is not None and _signal(relay.pid, signal.SIGKILL):
                self._count("relay", f"SIGKILL the relay, away for {relay.away_seconds:.1f} s")
            return
        kind = self._chance.choice(FAULTS)
        options: dict[str, float | int] = {} if kind == "disconnect" else {"count": self._chance.randint(1, 10)}
        if kind == "delay_acks":
            options["delay_seconds"] = self._chance.uniform(0.2, 12.0)
        if await self._fault(kind, **options):
            self._count("relay", f"fault {kind} {options}")

    async def _fault(self, kind: str, **options: float) -> bool:
        with trio.move_on_after(TARGET_SECONDS):
            while True:
                try:
                    await self._house.world.api.fault(kind, **options)
                except (httpx2.TransportError, ApiRefused):
                    await trio.sleep(0.1)  # it is being started again
                else:
                    return True
        return False

    def _count(self, kind: str, what: str) -> None:
        self.done[kind] += 1
        self.note(f"{kind}: {what}")


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
