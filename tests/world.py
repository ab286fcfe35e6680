"""Everything for real, for one test: a relay, an agent under its keeper, people. Ended by id when the block is left.

The test's own process is the people; relay, keeper, supervisor, workers and Redis are processes of their own.
"""

import base64
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path

import trio

from bus.records.keys import Keys
from sandbox.api import RelayApi
from sandbox.children import SandboxProcess, relay_process, running
from sandbox.people import Person, connected, make_person
from tests.http_page import page_at
from tests.waiting import said_of, waiting_for

READY_SECONDS = 60.0
DRAIN_SECONDS = 20.0
ANSWER_SECONDS = 60.0
UP = (sys.executable, "-m", "supervisor", "up")


@dataclass
class World:
    """One agent and the people who talk to it."""

    directory: Path
    relay_url: str
    api: RelayApi
    environment: dict[str, str]
    people: list[Person]
    conversations: dict[Person, str] = field(default_factory=dict)
    up: SandboxProcess | None = None
    program: Sequence[str] = UP

    def elsewhere(self, directory: Path, **settings: str) -> "World":
        """The same agent at the same relay once more, with these settings, for the same people."""
        environment = {**self.environment, "HASHEE_HTTP_PORT": str(free_port()), **settings}
        return World(directory, self.relay_url, self.api, environment, self.people, self.conversations)

    @property
    def state_dir(self) -> Path:
        return Path(self.environment["HASHEE_STATE_DIR"])

    @property
    def redis_socket(self) -> Path:
        return self.state_dir / "redis" / "redis.sock"

    @property
    def keys(self) -> Keys:
        return Keys(self.environment["HASHEE_AGENT_ID"])

    @property
    def keeper_pid(self) -> int:
        if self.up is None:
            raise RuntimeError("no agent runs in this world")
        return self.up.pid

    def supervisor_pid(self) -> int | None:
        return next(iter(self._children(self.keeper_pid, b"hashee-agent: supervisor")), None)

    def redis_pid(self) -> int | None:
        return next(iter(self._children(self.keeper_pid, b"redis-server", b"valkey-server")), None)

    def worker_pids(self) -> list[int]:
        supervisor = self.supervisor_pid()
        return [] if supervisor is None else self._children(supervisor, b"hashee-agent: worker")

    def processes(self) -> set[int]:
        """Every supervisor and worker; two generations while one replaces the other."""
        supervisors = self._children(self.keeper_pid, b"hashee-agent: supervisor")
        return {*supervisors, *(pid for one in supervisors for pid in self._children(one, b"hashee-agent: worker"))}

    async def kill(self, pid: int | None) -> None:
        """SIGKILL, and wait until it is gone."""
        assert pid is not None, "the process to kill does not run"
        os.kill(pid, signal.SIGKILL)
        with waiting_for(f"process {pid} to be gone", READY_SECONDS):
            while _command_line(pid):
                await trio.sleep(0.01)

    async def until(self, condition: Callable[[], object], seconds: float = READY_SECONDS) -> None:
        """Until a condition about processes or files holds."""
        with waiting_for(said_of(condition), seconds):
            while not condition():
                await trio.sleep(0.02)

    async def until_ready(self) -> None:
        await self.until(lambda: page_at(self.http_url + "/readyz")[0] == HTTPStatus.OK)

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['HASHEE_HTTP_PORT']}"

    def page(self, path: str) -> str:
        status, text = page_at(self.http_url + path)
        assert status == HTTPStatus.OK, "the status page does not answer"
        return text

    async def all_answered(self, expected: dict[Person, list[str]], seconds: float = ANSWER_SECONDS) -> None:
        """Until everybody has heard as much as was expected, then compare: once each, in order."""
        with trio.move_on_after(seconds):
            for person, texts in expected.items():
                conversation = self.conversations[person]
                await person.transcript.until(partial(_has_heard, person, conversation, len(texts)))
        heard = {person.name: person.transcript.heard(self.conversations[person]) for person in expected}
        assert heard == {person.name: texts for person, texts in expected.items()}, self.last_lines()
        assert not any(person.unreadable for person in expected), [person.unreadable for person in expected]

    def log(self) -> str:
        """Everything that the agent has written so far."""
        return (self.directory / "up.log").read_text(encoding="utf-8")

    def last_lines(self) -> str:
        return "" if self.up is None else self.up.last_lines()

    @staticmethod
    def _children(parent: int, *titles: bytes) -> list[int]:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        pids = [int(pid) for pid in children.read_text(encoding="utf-8").split()] if children.exists() else []
        return [pid for pid in pids if any(title in _command_line(pid) for title in titles)]


@asynccontextmanager
async def world(
    directory: Path,
    *,
    people: Sequence[str] = ("Ada",),
    program: Sequence[str] = UP,
    relay_options: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[World]:
    """A relay and people with conversations; start the agent with `agent(world)`. `program`: `up`, or what stands for it."""
    async with (
        relay_process(*relay_options, log_path=directory / "relay.log") as (_, url),
        RelayApi(url) as api,
    ):
        account = await api.add_agent("Echo")
        environment = environment_of(directory, url, account.agent_id, account.token, **settings)
        persons = [await make_person(url, name) for name in people]
        made = World(directory, url, api, environment, persons, program=program)
        async with agent(made):
            for person in persons:
                made.conversations[person] = await person.meet(account.agent_id)
            await made.until_ready()
            async with connected(*persons):
                yield made


def environment_of(directory: Path, url: str, agent_id: str, token: str, **settings: str) -> dict[str, str]:
    """What an echoing agent at this relay is started with."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("HASHEE_")},
        "HASHEE_AGENT_ID": agent_id,
        "HASHEE_AGENT_TOKEN": token,
        "HASHEE_X25519_PRIVATE_BASE64": base64.b64encode(os.urandom(32)).decode(),
        "HASHEE_ED25519_PRIVATE_BASE64": base64.b64encode(os.urandom(32)).decode(),
        "HASHEE_BASE_URL": url,
        "HASHEE_STATE_DIR": str(directory / "state"),
        "HASHEE_HTTP_PORT": str(free_port()),
        "HASHEE_HANDLER": "workers.builtin.echo:agent",
        "HASHEE_SEND_RATE": "0",
        "HASHEE_LOG_FORMAT": "console",
        **settings,
    }


@asynccontextmanager
async def agent(world: World) -> AsyncIterator[SandboxProcess]:
    """`hashee-agent up`, drained at the end."""
    async with running(
        "up",
        list(world.program),
        log_path=world.directory / "up.log",
        environment=world.environment,
        stop_seconds=DRAIN_SECONDS,
    ) as child:
        world.up = child
        try:
            yield child
        finally:
            world.up = None


def _has_heard(person: Person, conversation_id: str, count: int) -> bool:
    return len(person.transcript.heard(conversation_id)) >= count


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _command_line(pid: int) -> bytes:
    """Empty for a process that is gone, and for a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
