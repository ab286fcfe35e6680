"""The shipped targets, each as the processes and the memory limits of its manifest, in real cgroups.

| target | what runs in which limit | from |
| --- | --- | --- |
| small | keeper, supervisor, two workers and the private Redis in 256 MiB, where nobody sends a file | docs/deploy/docker.md |
| small-files | the same and the file gate in 384 MiB | docs/deploy/docker.md |
| systemd | the same, with the file gate, in 512 MiB | deploy/systemd/hashee-agent.service |
| compose | a supervisor, two workers and a file gate in 512 MiB each, a given Redis of maxmemory 192 MB in 256 MiB | deploy/docker/compose.yaml |
| kubernetes | two supervisors, two workers and a file gate in 512 MiB each, the same Redis in 384 MiB | deploy/kubernetes |
"""

import base64
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
import trio

from bench._limits import Limits, limits
from bus.files.proofs import FilesKey
from bus.records.sealing import StoreKeys
from host.embedded import find_server
from host.proc import command_line, rss_bytes
from sandbox.api import AgentAccount
from sandbox.children import running
from sandbox.stage import agent_environment, free_port
from tests.waiting import waiting_for

READY_SECONDS = 120.0
STOP_SECONDS = 60.0
START_POLL_SECONDS = 0.05
PLENTY_OF_CPUS = 2.0  # memory is what is tried here
HANDLER = "tests.trials.siege.handlers:agent"
GATE = "files"
GATE_TITLE = b"hashee-agent: files"
HASHEE_AGENT = (sys.executable, "-m", "supervisor")


@dataclass(frozen=True)
class Target:
    """One row of the table above. `redis_mib` 0: the private Redis, beside everything else. `has_files`: somebody sends files."""

    name: str
    agent_mib: int
    redis_mib: int = 0
    supervisors: int = 1
    workers: int = 2
    has_files: bool = True


TARGETS = (
    Target("small", 256, has_files=False),
    Target("small-files", 384),
    Target("systemd", 512),
    Target("compose", 512, redis_mib=256),
    Target("kubernetes", 512, redis_mib=384, supervisors=2),
)
GIVEN_REDIS = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory", "192mb")
NO_EVICTION = ("--maxmemory-policy", "noeviction", "--port", "0")


@dataclass
class Besieged:
    """What runs of a target. `groups`: its limits by name; `pages`: the status pages of its supervisors."""

    target: Target
    folder: Path
    environment: dict[str, str]
    groups: dict[str, Limits]
    pages: list[str] = field(default_factory=list)
    redis_url: str | None = None
    _processes: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        """Starts everything of the target; nobody has asked yet whether it is ready."""
        self._processes = AsyncExitStack()
        target = self.target
        if not target.redis_mib:
            page = await self._begin("agent", [*HASHEE_AGENT, "up"], self.environment)
            self.pages = [page]
            return
        await self._start_redis()
        await self._begin(GATE, [*HASHEE_AGENT, "files"], self._gate_environment(), has_page=False)
        for number in range(target.workers):
            name = f"worker-{number}"
            command = [*HASHEE_AGENT, "worker"]
            await self._begin(name, command, self._worker_environment(), has_page=False)
        self.pages = [
            await self._begin(f"supervisor-{number}", [*HASHEE_AGENT, "supervisor", "--workers", "0"], self.environment)
            for number in range(target.supervisors)
        ]

    async def stop(self) -> None:
        """Everything ends, by SIGTERM."""
        await self._processes.aclose()

    def kill(self) -> None:
        """SIGKILL to whatever runs in the limits."""
        for group in self.groups.values():
            for pid in group.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)

    async def _begin(
        self, name: str, command: Sequence[str], environment: dict[str, str], *, has_page: bool = True
    ) -> str:
        page = ""
        if has_page:
            port = free_port()
            page = f"http://127.0.0.1:{port}"
            state_dir = self.folder / ("state" if self.redis_url is None else name)
            environment = {**environment, "HASHEE_HTTP_PORT": str(port), "HASHEE_STATE_DIR": str(state_dir)}
        limited = self.groups[name].command(command)
        await self._processes.enter_async_context(
            running(
                name,
                limited,
                log_path=self.folder / f"{name}.log",
                environment=environment,
                stop_seconds=STOP_SECONDS,
            )
        )
        return page

    async def _start_redis(self) -> None:
        data = self.folder / "redis"
        data.mkdir(exist_ok=True)
        socket = data / "redis.sock"
        server = [str(find_server().path), *GIVEN_REDIS, *NO_EVICTION, "--dir", str(data), "--unixsocket", str(socket)]
        self.redis_url = f"unix://{socket}"
        self.environment["HASHEE_REDIS_URL"] = self.redis_url
        await self._begin("redis", server, {}, has_page=False)
        with waiting_for("Redis to answer", READY_SECONDS):
            while not _answers(socket):
                await trio.sleep(START_POLL_SECONDS)

    def gate_mib(self) -> int:
        """What the file gate holds now; 0 where none runs."""
        pids = [pid for group in self.groups.values() for pid in group.pids()]
        return sum(rss_bytes(pid) for pid in pids if _title_of(pid) == GATE_TITLE) >> 20

    def _worker_environment(self) -> dict[str, str]:
        return {**self._without_store_key(), "HASHEE_BUS_KEY": base64.b64encode(self._bus_key()).decode()}

    def _gate_environment(self) -> dict[str, str]:
        key = FilesKey.of_bus_key(self._bus_key()).export()
        return {**self._without_store_key(), "HASHEE_FILES_KEY": base64.b64encode(key).decode()}

    def _without_store_key(self) -> dict[str, str]:
        return {name: value for name, value in self.environment.items() if name != "HASHEE_STORE_KEY"}

    def _bus_key(self) -> bytes:
        return StoreKeys.derive(base64.b64decode(self.environment["HASHEE_STORE_KEY"])).bus.export()


@asynccontextmanager
async def besieged(target: Target, folder: Path, relay_url: str, account: AgentAccount) -> AsyncIterator[Besieged]:
    """The target, started and ready; all of it is gone with the block. Raises BenchmarkFailed where no limit can be set."""
    names = [("agent", target.agent_mib)]
    if target.redis_mib:
        names = [("redis", target.redis_mib)]
        names += [(f"supervisor-{number}", target.agent_mib) for number in range(target.supervisors)]
        names += [(f"worker-{number}", target.agent_mib) for number in range(target.workers)]
        names += [(GATE, target.agent_mib)]
    environment = agent_environment({**os.environ}, relay_url, account, folder, 0)
    environment |= {"HASHEE_HANDLER": HANDLER, "HASHEE_LOG_FORMAT": "json"}
    if target.redis_mib:
        environment["HASHEE_STORE_KEY"] = base64.b64encode(os.urandom(32)).decode()
        gate = f"127.0.0.1:{free_port()}"
        environment |= {"HASHEE_FILES_LISTEN": gate, "HASHEE_FILES_URL": f"http://{gate}"}
    with ExitStack() as stack:
        groups = {
            name: stack.enter_context(limits(f"hashee-siege-{target.name}-{name}", cpus=PLENTY_OF_CPUS, memory_mib=mib))
            for name, mib in names
        }
        made = Besieged(target, folder, environment, groups)
        try:
            await made.start()
            yield made
        finally:
            with trio.CancelScope(shield=True):
                await made.stop()


def _title_of(pid: int) -> bytes:
    """What a process calls itself; nothing where it is gone."""
    try:
        return command_line(pid).strip(b"\0 ")
    except OSError:
        return b""


def _answers(socket: Path) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            return bool(client.ping())
    except redis.exceptions.RedisError:
        return False
