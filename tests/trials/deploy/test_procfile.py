"""The Procfile, run by honcho as a platform would: three workers, PORT and REDIS_URL, a conversation, and an end without a trace."""

import base64
import os
import shutil
import sys
from pathlib import Path

import trio

from sandbox.children import running
from sandbox.stage import free_port
from tests.redis_server import redis_server
from tests.trials.deploy.in_containers import key_of
from tests.trials.deploy.talk import talking
from tests.waiting import waiting_for

ROOT = Path(__file__).parents[3]
STOP_SECONDS = 60.0
READY_SECONDS = 30.0


async def test_supervisor_and_three_workers_run_by_the_procfile(tmp_path: Path) -> None:
    port = free_port()
    async with talking(tmp_path) as talk:
        with redis_server(tmp_path) as url:
            store_key = base64.b64encode(os.urandom(32)).decode()
            settings = {name: value for name, value in talk.settings.items() if name != "HASHEE_HTTP_PORT"}
            environment = {
                **{name: value for name, value in os.environ.items() if not name.startswith("HASHEE_")},
                **settings,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HASHEE_STATE_DIR": str(tmp_path / "state"),
                "HASHEE_STORE_KEY": store_key,
                "HASHEE_BUS_KEY": key_of("bus", talk, store_key),
                "HASHEE_LOG_FORMAT": "console",
                "REDIS_URL": url,
                "PORT": str(port),
                "PYTHONPATH": str(ROOT),
            }
            shutil.copy(ROOT / "Procfile", tmp_path)
            honcho = [sys.executable, "-m", "honcho", "start", "-c", "supervisor=1,worker=3"]
            async with running(
                "honcho",
                ["sh", "-c", 'cd "$1"; shift; exec "$@"', "-", str(tmp_path), *honcho],
                log_path=tmp_path / "honcho.log",
                environment=environment,
                stop_seconds=STOP_SECONDS,
            ) as child:
                await talk.converse("one", "two", "three")
                log = trio.Path(tmp_path / "honcho.log")
                with waiting_for(
                    "three workers to be ready", READY_SECONDS
                ):  # two of three can have answered before the third is there
                    while (await log.read_text(encoding="utf-8")).count("worker: ready") < 3:
                        await trio.sleep(0.1)
                said = (await log.read_text(encoding="utf-8")).splitlines()
                assert sum("worker: ready" in line for line in said) == 3, child.last_lines()
                assert any(line.split("|")[0].split()[1] == "supervisor.1" and "up; waiting" in line for line in said)
                with waiting_for("three workers to be shown as running elsewhere", 20):
                    while "3 elsewhere" not in (answer := await status_page(port))[1] or answer[0] != "200":
                        await trio.sleep(0.1)
    ended = await trio.Path(tmp_path / "honcho.log").read_text(encoding="utf-8")
    assert "drain: done" in ended


async def status_page(port: int) -> tuple[str, str]:
    """/readyz of the supervisor, which listens where PORT says."""
    text = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async for part in stream:
            text += part
    head, _, body = text.decode().partition("\r\n\r\n")
    return head.split()[1], body
