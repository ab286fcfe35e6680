"""The processes of a rollout: a relay that allows three connections, a Redis where one is given, agents as a platform starts them."""

import base64
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import trio

from sandbox.api import AgentAccount, RelayApi
from sandbox.children import SandboxProcess, relay_process, running
from sandbox.people import Person, make_person
from sandbox.stage import free_port
from tests.redis_server import RedisServer
from tests.trials.rollout.release import HANDLER, Releases

READY_SECONDS = 60.0
READY_POLL_SECONDS = 0.1
DRAIN_SECONDS = 25
GRACE_SECONDS = 40.0
ROOT = Path(__file__).parents[3]


@dataclass
class Program:
    """One running `hashee-agent …`, by its own port."""

    name: str
    child: SandboxProcess
    http_url: str
    environment: dict[str, str]
    stack: AsyncExitStack = field(repr=False)

    async def until_ready(self, seconds: float = READY_SECONDS) -> bool:
        """Whether its /readyz said 200 in that time; False at once when it ends."""
        async with httpx2.AsyncClient(trust_env=False, timeout=2.0) as client:
            with trio.move_on_after(seconds):
                while self.child.exit_code is None:
                    try:
                        if (await client.get(f"{self.http_url}/readyz")).status_code == httpx2.codes.OK:
                            return True
                    except httpx2.TransportError:
                        pass  # not listening yet
                    await trio.sleep(READY_POLL_SECONDS)
        return False

    async def stop(self) -> None:
        """TERM, the grace period, KILL; returns when it is gone."""
        await self.stack.aclose()


@dataclass
class Scene:
    """What there is before the first agent runs."""

    directory: Path
    relay_url: str
    api: RelayApi
    account: AgentAccount
    releases: Releases
    people: list[Person]
    stack: AsyncExitStack
    max_connections: int
    redis: RedisServer | None = None
    conversations: dict[Person, str] = field(default_factory=dict)
    started: int = 0

    def environment(self, **settings: str) -> dict[str, str]:
        """Of every process of the agent. With a given Redis its store key is shared."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("HASHEE_")},
            "PYTHONPATH": f"{self.releases.directory}{os.pathsep}{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",  # a release may be replaced within the second that its cache file is dated by
            "HASHEE_AGENT_ID": self.account.agent_id,
            "HASHEE_AGENT_TOKEN": self.account.token,
            "HASHEE_BASE_URL": self.relay_url,
            "HASHEE_HANDLER": HANDLER,
            "HASHEE_SEND_RATE": "0",
            "HASHEE_MAX_CONNECTIONS": str(self.max_connections),
            "HASHEE_DRAIN_SECONDS": str(DRAIN_SECONDS),
            "HASHEE_LOG_FORMAT": "console",
            **self._keys,
            **settings,
        }

    def __post_init__(self) -> None:
        secret = ("HASHEE_X25519_PRIVATE_BASE64", "HASHEE_ED25519_PRIVATE_BASE64", "HASHEE_STORE_KEY")
        self._keys = {name: base64.b64encode(os.urandom(32)).decode() for name in secret}

    async def start(self, command: str, name: str, **settings: str) -> Program:
        """`hashee-agent COMMAND` on a port of its own, in a state directory named after it."""
        self.started += 1
        port = free_port()
        environment = self.environment(
            HASHEE_HTTP_PORT=str(port), HASHEE_STATE_DIR=str(self.directory / name / "state"), **settings
        )
        (self.directory / name).mkdir(exist_ok=True)
        stack = AsyncExitStack()
        child = await stack.enter_async_context(
            running(
                name,
                [sys.executable, "-m", "supervisor", command],
                log_path=self.directory / f"{name}.log",
                environment=environment,
                stop_seconds=GRACE_SECONDS,
            )
        )
        await self.stack.enter_async_context(stack)
        return Program(name, child, f"http://127.0.0.1:{port}", environment, stack)

    def logs(self) -> list[Path]:
        return sorted(self.directory.glob("*.log"))


@asynccontextmanager
async def scene(
    directory: Path, releases: Releases, *, people: int, given_redis: bool, max_connections: int
) -> AsyncIterator[Scene]:
    """Relay, people with conversations, the first release on disk; everything that was started ends with the block."""
    async with (
        relay_process(log_path=directory / "relay.log") as (_, url),
        RelayApi(url) as api,
        AsyncExitStack() as stack,
    ):
        persons = [await make_person(url, f"P{number}") for number in range(people)]
        account = await api.add_agent("Rollout")
        made = Scene(directory, url, api, account, releases, persons, stack, max_connections)
        made.releases.deploy()
        if given_redis:
            (directory / "redis").mkdir()
            made.redis = RedisServer(directory / "redis")
            stack.callback(made.redis.close)
            made.redis.start()
        for person in persons:
            made.conversations[person] = await person.meet(made.account.agent_id)
        yield made
