"""The processes of a chaos run: relay with a state file, bad network before it, `hashee-agent up`, more supervisors beside it.

Each is a process of its own, started again when it was killed, ended by id when the block is left, however it is left.
"""

import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from sandbox.api import RelayApi
from sandbox.background import background
from sandbox.chaos_proxy import ChaosProxy, chaos_proxy
from sandbox.children import SandboxProcess, relay_process, running
from sandbox.people import Person, make_person
from sandbox.stage import free_port
from tests.trials.chaos.look import Look
from tests.world import DRAIN_SECONDS, World, agent

RELAY_READY_SECONDS = 20.0
HANDLER = "tests.trials.chaos.handlers:agent"
KEEPING = "tests.trials.chaos.handlers:keeping"


class Relay:
    """The sandbox relay on one port with one state file, through all its restarts."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.away_seconds = 0.0
        self._directory = directory
        self._child: SandboxProcess | None = None

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    async def keep(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Starts it again `away_seconds` after each end."""
        options = ("--port", str(self.port), "--state", str(self._directory / "relay.db"))
        while True:
            log_path = self._directory / "relay.log"
            async with relay_process(*options, log_path=log_path, ready_seconds=RELAY_READY_SECONDS) as (child, _):
                self._child = child
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await child.wait()
                self._child = None
            await trio.sleep(self.away_seconds)


class House:
    """What runs, by pid, and the people who talk to it."""

    def __init__(self, world: World, relay: Relay, proxy: ChaosProxy, rememberers: list[Person]) -> None:
        self.world = world
        self.rememberers = rememberers
        """Who is asked, reminded and remembered; the world's people are the others."""
        self.relay = relay
        self.proxy = proxy
        self.directory = world.directory
        self._colleagues: dict[int, int] = {}
        self._between = trio.Event()
        self._between.set()

    @property
    def look(self) -> Look:
        return Look(self.world.redis_socket, self.world.keys)

    def supervisors(self) -> list[int]:
        """The keeper's first, then those beside it; none while there is no keeper."""
        first = None if self.world.up is None else self.world.supervisor_pid()
        return [] if first is None else [first, *self._colleagues.values()]

    def redis(self) -> list[int]:
        """The private one, while it runs."""
        pid = None if self.world.up is None else self.world.redis_pid()
        return [] if pid is None else [pid]

    def workers(self) -> list[int]:
        return [pid for supervisor in self.supervisors() for pid in _children(supervisor, b"worker")]

    def logs(self) -> list[Path]:
        return sorted(self.directory.glob("*.log"))

    async def keep_agent(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """`hashee-agent up`, started again whenever it ends and nobody is at its state directory."""
        while True:
            await self._between.wait()
            async with agent(self.world) as child:
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await child.wait()

    @asynccontextmanager
    async def without_agent(self, number: signal.Signals) -> AsyncIterator[None]:
        """Ends it with this signal; while the body runs nothing runs that is the keeper's, Redis included."""
        await self.world.until(lambda: self.world.up is not None)
        keeper, redis = self.world.keeper_pid, self.redis()
        self._between = trio.Event()
        try:
            os.kill(keeper, number)
            await self.world.until(lambda: self.world.up is None, DRAIN_SECONDS)
            await self.world.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in redis))
            yield
        finally:
            self._between.set()

    async def keep_colleague(self, number: int) -> None:
        """One more supervisor with its workers on the same Redis, started again whenever it ends."""
        name = f"colleague-{number}"
        while True:
            async with running(
                name,
                [sys.executable, "-m", "supervisor", "supervisor"],
                log_path=self.directory / f"{name}.log",
                environment=self._environment_of(name),
                stop_seconds=DRAIN_SECONDS,
            ) as child:
                self._colleagues[number] = child.pid
                try:
                    await child.wait()
                finally:
                    del self._colleagues[number]

    def _environment_of(self, name: str) -> Mapping[str, str]:
        state_dir = self.world.state_dir
        secret = (state_dir / "store.secret").read_bytes()
        return {
            **self.world.environment,
            "HASHEE_REDIS_URL": f"unix://{self.world.redis_socket}",
            "HASHEE_STORE_KEY": base64.b64encode(secret).decode(),
            "HASHEE_STATE_DIR": str(self.directory / name),
            "HASHEE_HTTP_PORT": "0",
        }


@asynccontextmanager
async def house(directory: Path, *, people: int, supervisors: int, rememberers: int = 0) -> AsyncIterator[House]:
    """Everything up and ready, every person with a conversation. People reach the relay directly, the agent by the proxy.

    `rememberers`: so many people more, whom the agent asks, reminds and remembers; without any it keeps nothing.
    """
    relay = Relay(directory)
    async with background() as nursery:
        await nursery.start(relay.keep)
        async with RelayApi(relay.url) as api, chaos_proxy("127.0.0.1", relay.port) as proxy:
            account = await api.add_agent("Chaos")
            environment = _environment(directory, proxy.port, account.agent_id, account.token)
            environment["HASHEE_HANDLER"] = KEEPING if rememberers else HANDLER
            persons: list[Person] = [await make_person(relay.url, f"P{number}") for number in range(people)]
            others: list[Person] = [await make_person(relay.url, f"R{number}") for number in range(rememberers)]
            world = World(directory, relay.url, api, environment, persons)
            made = House(world, relay, proxy, others)
            async with background() as keepers:
                await keepers.start(made.keep_agent)
                for person in (*persons, *others):
                    world.conversations[person] = await person.meet(account.agent_id)
                await world.until_ready()
                async with background() as colleagues:
                    for number in range(1, supervisors):
                        colleagues.start_soon(made.keep_colleague, number)
                    yield made


def _environment(directory: Path, port: int, agent_id: str, token: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("HASHEE_")},
        "HASHEE_AGENT_ID": agent_id,
        "HASHEE_AGENT_TOKEN": token,
        "HASHEE_X25519_PRIVATE_BASE64": base64.b64encode(os.urandom(32)).decode(),
        "HASHEE_ED25519_PRIVATE_BASE64": base64.b64encode(os.urandom(32)).decode(),
        "HASHEE_BASE_URL": f"http://127.0.0.1:{port}",
        "HASHEE_STATE_DIR": str(directory / "state"),
        "HASHEE_HTTP_PORT": str(free_port()),
        "HASHEE_STRIKES": "off",  # our kills look like crashes
        "HASHEE_SEND_RATE": "0",
        "HASHEE_DRAIN_SECONDS": "10",
        "HASHEE_LOG_FORMAT": "console",
    }


def _children(parent: int, title: bytes) -> list[int]:
    try:
        pids = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()]
        return [pid for pid in pids if title in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except (FileNotFoundError, ProcessLookupError):
        return []
