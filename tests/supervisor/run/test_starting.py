"""A supervisor whose Redis is away, or loads, as it starts: probes and `status` say so, liveness is green, a stop ends it, work begins by itself."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from sandbox.children import SandboxProcess, running
from tests.http_page import page_at
from tests.redis_server import RedisServer, server_binary
from tests.supervisor.keeper.running import running_keeper
from tests.supervisor.settings.environment import STORE_KEY, process_environ
from tests.waiting import waiting_for

PROGRAM = (sys.executable, "-P", "-m", "supervisor")
WITHIN_SECONDS = 60.0
WAITING = "starting: waiting for Redis"


@dataclass
class Waiting:
    """A real process that waits for `server`, which the test starts when it likes."""

    server: RedisServer
    environ: dict[str, str]
    child: SandboxProcess

    def get(self, path: str) -> tuple[int, str]:
        return page_at(f"http://127.0.0.1:{self.environ['HASHEE_HTTP_PORT']}{path}", seconds=5)

    async def until_ready_says(self, words: Callable[[str], bool]) -> None:
        with waiting_for("the words of /readyz", WITHIN_SECONDS):
            while not words((await trio.to_thread.run_sync(self.get, "/readyz"))[1]):
                await trio.sleep(0.02)

    async def status(self) -> dict[str, object]:
        done = await trio.run_process(
            [*PROGRAM, "status", "--json"], env=self.environ, capture_stdout=True, stdin=subprocess.DEVNULL
        )
        found: dict[str, object] = json.loads(done.stdout)
        return found


@asynccontextmanager
async def waiting(tmp_path: Path, command: str) -> AsyncIterator[Waiting]:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    server.start()
    server.fill()
    server.kill()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = process_environ(
        tmp_path / "state",
        HASHEE_BASE_URL="http://127.0.0.1:1",
        HASHEE_REDIS_URL=server.url,
        HASHEE_STORE_KEY=STORE_KEY,
        HASHEE_HTTP_PORT=str(port),
        HASHEE_WORKERS="0",
        PYTHONPATH=str(Path(__file__).parents[3]),
    )
    try:
        async with running(command, [*PROGRAM, command], log_path=tmp_path / "log", environment=environ) as child:
            yield Waiting(server, environ, child)
    finally:
        server.close()


async def test_a_supervisor_alone_says_what_it_waits_for_and_begins_when_redis_is_there(tmp_path: Path) -> None:
    async with waiting(tmp_path, "supervisor") as w:
        await w.until_ready_says(lambda said: f"{WAITING}: away" in said)
        assert w.get("/readyz")[0] == 503
        assert w.get("/healthz")[0] == 200
        known = await w.status()
        assert known["supervisor"] is None
        assert str(known["problem"]).startswith(WAITING)
        w.server.start_to_load()
        await w.until_ready_says(lambda said: f"{WAITING}: loading" in said)
        assert w.get("/healthz")[0] == 200
        w.server.kill()
        w.server.start()
        await w.until_ready_says(lambda said: '"redis","ok":true' in said)
        assert (await w.status())["supervisor"] is not None


async def test_under_a_keeper_status_answers_and_a_stop_is_not_waited_for(tmp_path: Path) -> None:
    async with waiting(tmp_path, "up") as w:
        await w.until_ready_says(lambda said: WAITING in said)
        known = await w.status()
        assert isinstance(known["keeper"], dict)
        assert str(known["problem"]).startswith(WAITING)
        os.kill(w.child.pid, signal.SIGTERM)
        with waiting_for("the stopped start to end", WITHIN_SECONDS):
            assert await w.child.wait() == 0
        log = (tmp_path / "log").read_text(encoding="utf-8")
        assert "stopped before Redis was there" in log
        assert "the drain took too long" not in log


async def test_a_private_redis_that_loads_for_long_holds_up_no_supervisor(tmp_path: Path) -> None:
    slow = tmp_path / "bin"
    slow.mkdir()
    go = tmp_path / "go"
    script = slow / server_binary().path.name
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] || while [ ! -e {go} ]; do sleep 0.05; done\nexec {server_binary().path} "$@"\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    path = f"{slow}:{os.environ['PATH']}"
    async with running_keeper(tmp_path, plan={"timings": {"redis_patience": 0.05}}, PATH=path) as keeper:
        await keeper.until(lambda: keeper.supervisor_pids)
        assert keeper.redis_pids() == []
        go.touch()
        await keeper.until(keeper.redis_pids)
        assert await keeper.end() == 0
