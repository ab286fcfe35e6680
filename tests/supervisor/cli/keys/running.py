"""The real command line as processes, and a private store with something in it."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import redis
import trio
from redis.backoff import NoBackoff
from redis.retry import Retry

from bus.records.keys import Keys
from bus.steps.seal import StoreSeal
from bus.transport.client import RedisClient, open_redis
from host import embedded
from supervisor.keeper.state_directory import make_private
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.secrets import load_or_make_store_secret
from supervisor.store.access import private_redis
from tests.commands import run_command
from tests.supervisor.cli.keys.builders import fill, loose_ends, opened
from tests.supervisor.keeper.running import ROOT
from tests.supervisor.settings.environment import AGENT_ID, process_environ

PROGRAM = (sys.executable, "-m", "supervisor")
PATIENCE_SECONDS = 15.0
NAMES = Keys(AGENT_ID)


def environ_of(directory: Path, **more: str) -> dict[str, str]:
    """A home and a state directory of this test's own; a name with an empty value is unset."""
    given = process_environ(directory / "state", HOME=str(directory), **more)
    return {"PYTHONPATH": str(ROOT), **{name: value for name, value in given.items() if value}}


def run(*arguments: str, environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return run_command(*arguments, environ=environ, cwd=cwd, seconds=30)


def rotate_until(condition: Callable[[], bool], *, environ: dict[str, str], cwd: Path) -> None:
    """`keys rotate-store`, killed with SIGKILL as soon as the condition holds."""
    with (cwd / "rotate.log").open("ab") as log:
        process = subprocess.Popen(
            [*PROGRAM, "keys", "rotate-store"], env=environ, cwd=cwd, stdin=subprocess.DEVNULL, stderr=log, stdout=log
        )
    try:
        while not condition():
            assert process.poll() is None, "it ended before the moment came"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@asynccontextmanager
async def open_store(environ: dict[str, str]) -> AsyncIterator[RedisClient]:
    """The private Redis of the state directory, run by this process."""
    async with private_redis(KeySettings.from_environ(environ)) as layout, open_redis(layout.url) as client:
        yield client


def make_store(environ: dict[str, str], *, sessions: int = 2) -> dict[str, object]:
    """A private store as a supervisor leaves it; what is in it."""
    state_dir = Path(environ["HASHEE_STATE_DIR"])
    make_private(state_dir)
    embedded.prepare(state_dir, state_dir)

    async def make() -> dict[str, object]:
        async with open_store(environ) as client:
            keys = await StoreSeal(client, NAMES).adopt(load_or_make_store_secret(state_dir).reveal())
            await fill(client, keys, sessions=sessions)
            return await opened(client, keys)

    return trio.run(make)


def look(environ: dict[str, str]) -> dict[str, object]:
    """What is in the private store, opened with the state directory's store secret."""
    state_dir = Path(environ["HASHEE_STATE_DIR"])

    async def open_all() -> dict[str, object]:
        async with open_store(environ) as client:
            keys = await StoreSeal(client, NAMES).adopt(load_or_make_store_secret(state_dir).reveal())
            assert await loose_ends(client) == []
            return await opened(client, keys)

    return trio.run(open_all)


class Onlooker:
    """Sees from outside how far a rotation of the private store is."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def has_next_secret(self) -> bool:
        return (self._state_dir / "store.secret.next").exists()

    def turned(self, session: int) -> bool:
        """Whether that session is under a key epoch of its own already."""
        key = NAMES.session("person", f"device:{session}")
        sealed = self._ask(lambda client: client.hget(key, "b"))
        return isinstance(sealed, bytes) and sealed[4] > 0

    def is_finished_in_redis(self) -> bool:
        sealed = self._ask(lambda client: client.hget(NAMES.seal, "check"))
        return isinstance(sealed, bytes) and sealed[4] > 0

    def _ask(self, question: Callable[[redis.Redis], object]) -> object:
        socket = self._state_dir / "redis" / "redis.sock"
        if not socket.exists():
            return None
        client = redis.Redis(unix_socket_path=os.fspath(socket), retry=Retry(NoBackoff(), 0), socket_timeout=1)
        try:
            return question(client)
        except redis.exceptions.RedisError:
            return None
        finally:
            client.close()
