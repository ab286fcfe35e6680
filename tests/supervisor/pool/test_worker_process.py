"""One real worker on a real Redis, and each way in which its life can go."""

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from bus.records.control import Drained, Heartbeat, Ready, StartFailed
from bus.steps.seal import StoreSeal
from bus.transport.client import open_redis
from bus.transport.lua import Rights, Scripts
from supervisor.pool.process import ExitReason, Stage
from supervisor.pool.worker_order import worker_environment
from tests.bus.builders import AGENT, BUS_KEY, open_bus, open_worker
from tests.redis_server import redis_server, running_redis
from tests.supervisor.pool.builders import WITHIN_SECONDS, ask, is_gone, order_of, running_worker, text_answer, until
from tests.waiting import waiting_for


async def test_a_worker_comes_up_answers_and_drains(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_worker(order_of(url)) as worker:
            await ask(bus, "hello")
            assert await text_answer(bus) == "re: hello"
            # Its word comes over a pipe, its answer over Redis: either may be first.
            await until(lambda: worker.process.stage is Stage.READY)
            assert worker.process.ready is not None
            assert worker.process.ready.pid == worker.process.pid
            await until(lambda: any(isinstance(m, Heartbeat) and m.jobs_done == 1 for m in worker.said))
            worker.process.drain()
            await until(lambda: worker.exit)
    assert worker.exit is not None
    assert (worker.exit.returncode, worker.exit.abnormal) == (0, False)
    assert isinstance(worker.said[-1], Drained)


async def test_a_thread_that_a_handler_has_begun_does_not_keep_a_drained_worker(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_worker(order_of(url)) as worker:
            await ask(bus, "endless_thread")
            assert await text_answer(bus) == "started"
            worker.process.drain()
            await until(lambda: worker.exit)
    assert worker.exit is not None
    assert (worker.exit.returncode, worker.exit.reason) == (0, ExitReason.DRAINED)


async def test_a_drain_waits_for_the_running_job(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_worker(order_of(url)) as worker:
            await ask(bus, f"wait {tmp_path / 'go'}")
            await until(lambda: worker.process.heartbeat and worker.process.heartbeat.running)
            worker.process.drain()
            (tmp_path / "go").touch()
            assert await text_answer(bus) == "waited"
            await until(lambda: worker.exit)
    assert worker.exit is not None
    assert worker.exit.returncode == 0


async def test_a_stop_hands_the_running_job_back_and_another_worker_has_it(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_worker(order_of(url)) as worker:
            await ask(bus, "sleep 600")
            await until(lambda: worker.process.heartbeat and worker.process.heartbeat.running)
            worker.process.stop()
            await until(lambda: worker.exit)
            assert worker.said[-1] == Drained(handed_back=1)
            async with open_worker(url, "worker-2") as other:
                with waiting_for("the job to go to another worker", 5):
                    [job] = await other.take(1)
            assert (job.attempt, job.deliveries) == (1, 2)


async def test_sigterm_from_outside_is_a_drain_and_no_abnormal_death(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with running_worker(order_of(url)) as worker:
            await until(lambda: worker.process.stage is Stage.READY)
            assert worker.process.pid is not None
            os.kill(worker.process.pid, signal.SIGTERM)
            await until(lambda: worker.exit)
    assert worker.exit is not None
    assert (worker.exit.returncode, worker.exit.abnormal) == (0, False)


@pytest.mark.parametrize("code", [0, 1])
async def test_a_handler_that_ends_the_process_is_an_abnormal_death_with_its_job(tmp_path: Path, code: int) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_worker(order_of(url)) as worker:
            await until(lambda: worker.process.stage is Stage.READY)
            await ask(bus, f"exit {code}")
            await until(lambda: worker.exit)
    assert worker.exit is not None
    assert (worker.exit.returncode, worker.exit.abnormal) == (code, True)


async def test_a_handler_that_holds_the_loop_starves_neither_heartbeat_nor_stacks(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_worker(order_of(url)) as worker:
            await ask(bus, "spin")
            await until(lambda: worker.process.heartbeat and (worker.process.heartbeat.loop_lag_ms or 0) > 1500)
            assert worker.exit is None
            worker.process.dump_stacks()
            await until(lambda: "worker: stacks" in worker.lines.events())
    stacks = str(worker.lines.of("worker: stacks")["stacks"])
    assert "handlers.py:" in stacks
    assert "task " in stacks


async def test_a_worker_gets_the_owners_secrets_and_none_of_ours(tmp_path: Path) -> None:
    ours = {
        "HASHEE_AGENT_TOKEN": "hsk_x",
        "HASHEE_X25519_PRIVATE_BASE64_FILE": "x",
        "HASHEE_STORE_KEY": "x",
        "HASHEE_BUS_KEY": "x",
        "CREDENTIALS_DIRECTORY": "x",
        "NOTIFY_SOCKET": "x",
    }
    owners = {"STRIPE_KEY": "owner", "OPENAI_API_KEY": "owner", "HASHEE_LLM_MODEL": "owner", "REDIS_URL": "owner"}
    with redis_server(tmp_path) as url:
        order = order_of(url, environ=dict(os.environ) | ours | owners)
        async with open_bus(url) as bus, running_worker(order) as worker:
            await ask(bus, "environment")
            seen = dict(line.split("=", 1) for line in (await text_answer(bus)).splitlines() if "=" in line)
            assert worker.process.pid is not None
            command_line = await trio.Path(f"/proc/{worker.process.pid}/cmdline").read_bytes()
    assert not ours.keys() & seen.keys()
    assert seen.items() >= owners.items()
    assert url.encode() not in command_line
    assert worker_environment(ours | owners, agent_id="a", redis_url="u").keys() == {
        *owners,
        "HASHEE_AGENT_ID",
        "HASHEE_REDIS_URL",
    }


@pytest.mark.parametrize(("is_own", "known"), [(False, [1, 0]), (True, [0, 1])])
async def test_a_worker_looks_at_its_rights_where_the_redis_is_not_the_agents_own(
    is_own: bool, known: list[int], tmp_path: Path
) -> None:
    hashes = [Scripts.load(rights)["renew"].sha1 for rights in (Rights.MAY_CHANGE, Rights.STAND)]
    with redis_server(tmp_path) as url:
        order = order_of(url, has_own_redis=is_own)
        async with open_redis(url, Scripts({})) as client, running_worker(order) as worker:
            await until(lambda: worker.process.stage is Stage.READY)
            assert await client.command("SCRIPT", "EXISTS", *hashes) == known


BROKEN = {
    "syntax.py": ("def\n", "import", "SyntaxError"),
    "missing.py": ("import nothing_like_this\n", "import", "ModuleNotFoundError"),
    "raises.py": ("1 / 0\n", "import", "ZeroDivisionError"),
    "leaves.py": ("import sys\nsys.exit(0)\n", "import", "SystemExit"),
    "bad.py": ("from workers import Agent\nagent = Agent()\nagent.on_message()(len)\n", "import", "BadHandler"),
    "other.py": ("agent = 1\n", "attribute", ""),
    "panics.py": ("class Panic(BaseException): ...\nraise Panic\n", "import", "Panic"),
    "patched.py": ("import threading\nthreading.local = None\n", "patched", ""),
    "none.py": ("", "attribute", ""),
    "empty.py": ("from workers import Agent\nagent = Agent()\n", "no_handlers", ""),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_handler_that_cannot_be_used_is_reported_with_its_place(tmp_path: Path, name: str) -> None:
    text, what, exception = BROKEN[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    order = order_of("unix:///nowhere", handler=f"{name[:-3]}:agent", directory=tmp_path)
    async with running_worker(order) as worker:
        await until(lambda: worker.exit)
    assert worker.exit is not None
    failure = worker.exit.failure
    assert failure is not None
    assert (failure.kind, failure.exception) == (what, exception)
    assert failure.file == str(tmp_path / name)
    assert failure.line > 0 or what != "import"
    assert failure.last_line
    assert (worker.exit.returncode, worker.exit.abnormal) == (78, False)


async def test_a_module_that_is_not_there_and_a_package_in_our_way_are_reported(tmp_path: Path) -> None:
    async with running_worker(order_of("unix:///nowhere", handler="absent:agent", directory=tmp_path)) as worker:
        await until(lambda: worker.exit)
    assert "absent" in next(m for m in worker.said if isinstance(m, StartFailed)).last_line
    (tmp_path / "workers.py").write_text("", encoding="utf-8")
    async with running_worker(order_of("unix:///nowhere", handler="absent:agent", directory=tmp_path)) as worker:
        await until(lambda: worker.exit)
    failure = next(m for m in worker.said if isinstance(m, StartFailed))
    assert (failure.kind, failure.file) == ("shadowed", str(tmp_path / "workers.py"))


async def test_a_lifespan_that_cannot_start_says_why(tmp_path: Path) -> None:
    environ = dict(os.environ) | {"HASHEE_LLM_SYSTEM_PROMPT_FILE": str(tmp_path / "absent.txt")}
    order = order_of("unix:///nowhere", handler="workers.builtin.llm:agent", environ=environ)
    async with running_worker(order) as worker:
        await until(lambda: worker.exit)
    assert worker.exit is not None
    assert worker.exit.returncode == 78
    assert worker.exit.failure is not None
    assert worker.exit.failure.last_line.startswith("HASHEE_LLM_SYSTEM_PROMPT_FILE cannot be used: ")


LIFESPAN = """import os
from contextlib import asynccontextmanager
from workers import Agent
@asynccontextmanager
async def lifespan():
    {line}
    yield
agent = Agent(lifespan=lifespan)
@agent.on_message()
async def answer(message, chat): ...
"""
NOT_SET = "the environment variable SHOP_URL is not set"


@pytest.mark.parametrize(
    ("name", "text", "kind", "line"),
    [
        ("opens", LIFESPAN.format(line='os.environ["SHOP_URL"]'), "lifespan", 6),
        ("leaves", LIFESPAN.format(line="raise SystemExit(1)"), "lifespan", 6),
        ("mistakes", LIFESPAN.format(line="Databse()"), "lifespan", 6),
        ("imports", 'import os\nurl = os.environ["SHOP_URL"]\n', "import", 2),
    ],
)
async def test_a_variable_of_the_owners_that_is_not_set_is_one_line_that_names_it(
    tmp_path: Path, name: str, text: str, kind: str, line: int
) -> None:
    path = tmp_path / f"{name}_agent.py"
    path.write_text(text, encoding="utf-8")
    async with running_worker(order_of("unix:///nowhere", handler=f"{name}_agent:agent", directory=tmp_path)) as worker:
        await until(lambda: worker.exit)
    assert worker.exit is not None
    assert (worker.exit.returncode, worker.exit.last_words) == (78, ())
    failure = worker.exit.failure
    assert failure is not None
    assert (failure.kind, failure.file, failure.line) == (kind, str(path), line)
    said = {"leaves": "SystemExit: 1", "mistakes": "NameError: name 'Databse' is not defined"}
    assert failure.last_line == said.get(name, NOT_SET)


async def test_a_lifespan_that_fails_is_tried_again_and_said_in_a_line_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "away_agent.py").write_text(LIFESPAN.format(line='raise OSError("no route")'), encoding="utf-8")
    order = order_of("unix:///nowhere", handler="away_agent:agent", directory=tmp_path)
    async with running_worker(order) as worker:
        await until(lambda: worker.exit)
    assert worker.exit is not None
    assert (worker.exit.failure, worker.exit.returncode, worker.exit.last_words) == (None, 70, ())
    assert (worker.exit.exception, worker.exit.at) == ("OSError", "away_agent.py:6")
    [said] = [line for line in capfd.readouterr().err.splitlines() if "lifespan" in line]
    assert "OSError: no route" in said
    assert "away_agent.py:6" in said


async def test_a_worker_waits_for_a_redis_that_is_away_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    with running_redis(tmp_path) as redis:
        redis.kill()
        async with running_worker(order_of(redis.url)) as worker:
            await until(lambda: worker.process.heartbeat and worker.process.heartbeat.loop_lag_ms is not None)
            redis.start()
            await until(lambda: any(isinstance(message, Ready) for message in worker.said))
            async with open_bus(redis.url) as bus:
                await ask(bus, "hello")
                assert await text_answer(bus) == "re: hello"
            redis.kill()
            redis.start()
            async with open_bus(redis.url) as bus:
                await ask(bus, "again", conversation="other conversation")
                assert await text_answer(bus) == "re: again"
            assert worker.exit is None


def start(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], env=environ, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )


PARENT = """
import os, sys, trio
from tests.supervisor.pool.builders import order_of, running_worker, until
from supervisor.pool.process import ExitReason, Stage

async def main():
    async with running_worker(order_of(sys.argv[1])) as worker:
        await until(lambda: worker.process.stage is Stage.READY)
        print(worker.process.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_a_worker_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        parent = start("-c", PARENT, url)
        try:
            assert parent.stdout is not None
            worker_pid = int(await trio.to_thread.run_sync(parent.stdout.readline))
            assert not is_gone(worker_pid)
        finally:
            parent.kill()
            parent.communicate()
        await until(lambda: is_gone(worker_pid), seconds=3)


async def test_a_worker_alone_runs_from_its_environment_and_ends_on_sigterm(tmp_path: Path) -> None:
    key = tmp_path / "bus.key"
    key.write_text(base64.b64encode(BUS_KEY.export()).decode(), encoding="utf-8")
    with redis_server(tmp_path) as url:
        environ = os.environ | {
            "HASHEE_AGENT_ID": AGENT,
            "HASHEE_REDIS_URL": url,
            "HASHEE_BUS_KEY_FILE": str(key),
            "HASHEE_HANDLER": "tests.supervisor.pool.handlers:agent",
        }
        alone = start("-m", "workers", environ=environ)
        try:
            async with open_bus(url) as bus:
                await ask(bus, "hello")
                assert await text_answer(bus) == "re: hello"
            alone.terminate()
            with waiting_for("the worker to end", WITHIN_SECONDS):
                assert await trio.to_thread.run_sync(alone.wait, abandon_on_cancel=True) == 0
        finally:
            alone.kill()
            alone.communicate()


async def test_a_worker_with_another_stores_bus_key_ends_with_78_and_says_so(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            await StoreSeal(bus.client, bus.keys).adopt(bytes(32))
            async with running_worker(order_of(url)) as worker:
                await until(lambda: worker.exit)
    assert worker.exit is not None
    assert (worker.exit.returncode, worker.exit.reason, worker.exit.abnormal) == (78, ExitReason.UNUSABLE, False)
    assert worker.exit.failure is not None
    assert worker.exit.failure.kind == "bus_key"
    assert worker.exit.failure.last_line


async def test_as_pid_1_of_a_container_a_worker_reaps_what_its_handler_left_and_ends_on_sigterm(tmp_path: Path) -> None:
    program = "import os, sys; from supervisor.cli.as_init import run_as_init; sys.exit(run_as_init(sys.argv[1:], os.environ))"
    orphaner = "import subprocess, time; subprocess.run(['sh', '-c', 'sleep 0.2 & echo $!']); time.sleep(600)"
    namespace = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", sys.executable, "-c", program]
    init = piped([*namespace, sys.executable, "-u", "-c", orphaner])
    try:
        assert init.stdout is not None
        if not await trio.to_thread.run_sync(init.stdout.readline):
            pytest.skip("this machine allows no pid namespace")
        [inner] = children(init.pid)
        await until(lambda: [stat(pid) for pid in children(inner)] == ["S"])  # the child; its orphan was reaped
        os.kill(inner, signal.SIGTERM)
        with waiting_for("the init process to end", WITHIN_SECONDS):
            assert await trio.to_thread.run_sync(init.wait, abandon_on_cancel=True) == 128 + signal.SIGTERM
    finally:
        init.kill()
        init.communicate()


def piped(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def stat(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
