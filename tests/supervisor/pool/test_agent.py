"""The whole agent with its real processes: what an operator does to it, and what kills do to it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.commands import run_command
from tests.http_page import page_at
from tests.supervisor.pool.builders import is_gone
from tests.waiting import waiting_for
from tests.world import UP, World, world

Ran = subprocess.CompletedProcess[str]


async def command(agent: World, *arguments: str, status: int = 0) -> Ran:
    """`hashee-agent …`, as an operator types it."""
    done = await trio.to_thread.run_sync(partial(run_command, *arguments, environ=agent.environment))
    assert done.returncode == status, done.stderr + agent.last_lines()
    return done


async def status_of(agent: World) -> dict[str, Any]:
    status: dict[str, Any] = json.loads((await command(agent, "status", "--json")).stdout)
    return status


async def say(agent: World, text: str) -> None:
    [person] = agent.people
    await person.say(agent.conversations[person], text)


async def answered(agent: World, texts: list[str]) -> None:
    [person] = agent.people
    await agent.all_answered({person: texts})


async def workers(agent: World, count: int) -> list[int]:
    """Their pids, when that many are there."""
    await agent.until(lambda: len(agent.worker_pids()) == count)
    return agent.worker_pids()


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").strip("\0 ")


@dataclass
class Systemd:
    """What a service manager is told, as it comes."""

    told: str = ""

    async def listen(self, listener: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            self.told += listener.recv(4096).decode() + "\n"


@asynccontextmanager
async def systemd(address: Path) -> AsyncIterator[Systemd]:
    manager = Systemd()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.listen, listener)
            yield manager
            nursery.cancel_scope.cancel()


async def test_status_reload_scale_signals_and_stop_of_a_running_agent(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    async with systemd(address) as manager, world(tmp_path, NOTIFY_SOCKET=str(address)) as agent:
        await agent.until(lambda: "STATUS=connected; 2 of 2 workers, 0 jobs" in manager.told)
        assert manager.told.count("READY=1") == 1
        await say(agent, "hello")
        await answered(agent, ["echo: hello"])

        status = await status_of(agent)
        assert status["keeper"]["pid"] == agent.keeper_pid
        supervisor = status["supervisor"]
        assert supervisor["pid"] == agent.supervisor_pid()
        assert (supervisor["connection"]["state"], supervisor["connection"]["slot"]) == ("connected", 1)
        assert (supervisor["people"], supervisor["sessions"], supervisor["prekeys_left"]) == (1, 1, 100)
        assert (supervisor["rates"]["received"], supervisor["rates"]["sent"]) == (1, 1)
        assert not any(supervisor["work"].values())
        assert {worker["pid"] for worker in supervisor["workers"]} == set(agent.worker_pids())
        assert all(check["ok"] for check in supervisor["checks"])
        shown = (await command(agent, "status")).stdout
        assert "connected, slot 1" in shown
        assert "2 ready of 2" in shown

        assert title(agent.keeper_pid) == "hashee-agent: keeper"
        assert title(supervisor["pid"]) == "hashee-agent: supervisor 1"
        assert sorted(map(title, agent.worker_pids())) == [
            "hashee-agent: worker 1 (0 jobs)",
            "hashee-agent: worker 2 (0 jobs)",
        ]

        assert (await command(agent, "scale", "3")).stdout == "workers: 3\n"
        before = await workers(agent, 3)
        os.kill(agent.keeper_pid, signal.SIGTTOU)
        await workers(agent, 2)
        os.kill(agent.keeper_pid, signal.SIGTTIN)
        await workers(agent, 3)
        assert "MIN:MAX" in (await command(agent, "scale", "x", status=1)).stderr

        assert (await command(agent, "reload")).stdout == "reloaded\n"
        await agent.until(lambda: not set(before) & set(agent.worker_pids()))
        before = await workers(agent, 3)
        os.kill(agent.keeper_pid, signal.SIGHUP)
        await agent.until(lambda: not set(before) & set(agent.worker_pids()))
        await agent.until(lambda: "READY=1" in manager.told.partition("RELOADING=1\nMONOTONIC_USEC=")[2])

        os.kill(agent.keeper_pid, signal.SIGQUIT)
        await agent.until(lambda: agent.log().count("worker: stacks") == 3 and "supervisor: stacks" in agent.log())
        supervisor = agent.supervisor_pid()
        assert supervisor is not None
        assert "most recent call first" not in agent.log()
        os.kill(supervisor, signal.SIGQUIT)  # as the keeper does where it hangs
        await agent.until(lambda: "most recent call first" in agent.log())
        await workers(agent, 3)

        await say(agent, "still there?")
        await answered(agent, ["echo: hello", "echo: still there?"])
        assert (await command(agent, "stop")).stdout.endswith("stopped\n")
        assert "STOPPING=1\nEXTEND_TIMEOUT_USEC=" in manager.told
        assert agent.supervisor_pid() is None
        assert "no agent runs" in (await command(agent, "status", status=1)).stderr


QUICK = (sys.executable, "-m", "tests.supervisor.keeper.quick_keeper")
OURS = "tests.supervisor.pool.handlers:agent"


@pytest.mark.long
async def test_supervisor_killed_ten_times_in_a_row_with_running_jobs_loses_and_repeats_nothing(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.touch()
    async with world(tmp_path, people=("Ada", "Ben"), program=QUICK, HASHEE_HANDLER=OURS) as agent:
        redis = agent.redis_pid()
        for person in agent.people:
            await person.say(agent.conversations[person], f"mark {begun} 1")
        runs = 0
        for _kill in range(10):
            await agent.until(lambda: len(begun.read_text(encoding="utf-8")) >= runs + 2)  # noqa: B023  # awaited here
            runs = len(begun.read_text(encoding="utf-8"))
            await agent.kill(agent.supervisor_pid())
        await agent.all_answered({person: ["marked"] for person in agent.people})
        assert agent.redis_pid() == redis
        assert agent.log().count("supervisor: died; it is started again") == 10


def start_worker(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "supervisor", "worker"], env=environment)


def heard(agent: World) -> list[str]:
    [person] = agent.people
    return person.transcript.heard(agent.conversations[person])


async def test_what_a_handler_left_behind_ends_with_a_killed_supervisor_and_a_hung_one_is_replaced(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, program=QUICK, HASHEE_HANDLER=OURS, TEST_SILENCE_SECONDS="4") as agent:
        await say(agent, "daemon")
        await agent.until(lambda: heard(agent))
        daemon, supervisor, old_workers = int(heard(agent)[0]), agent.supervisor_pid(), agent.worker_pids()
        assert not is_gone(daemon)
        await agent.kill(supervisor)
        await agent.until(lambda: all(is_gone(pid) for pid in (daemon, *old_workers)))

        await agent.until(lambda: agent.log().count("up; waiting for messages") == 2)
        hung = agent.supervisor_pid()
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        await agent.until(lambda: agent.supervisor_pid() not in (None, hung))
        assert "supervisor: hangs, is ended" in agent.log()
        await say(agent, "hello")
        await answered(agent, [str(daemon), "re: hello"])


async def test_a_worker_elsewhere_joins_is_listed_and_leaves(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_WORKERS="1") as agent:
        await agent.until_ready()
        await command(agent, "scale", "0")
        await workers(agent, 0)
        key = (await command(agent, "keys", "bus")).stdout.strip().partition("=")[2]
        environment = agent.environment | {
            "HASHEE_BUS_KEY": key,
            "HASHEE_REDIS_URL": f"unix://{agent.state_dir}/redis/redis.sock",
        }
        alone = start_worker(environment)
        try:
            await agent.until_ready()
            await say(agent, "hello")
            await answered(agent, ["echo: hello"])
            with waiting_for("the worker that runs elsewhere to be listed", 30):
                while not (elsewhere := (await status_of(agent))["supervisor"]["workers_elsewhere"]):
                    pass
            [listed] = elsewhere
            assert listed["pid"] == alone.pid
            assert listed["consumer"].startswith(f"{listed['host']}-{alone.pid}-")
            assert str(alone.pid) in (await command(agent, "status")).stdout
            await agent.until(lambda: "hashee_workers_elsewhere 1.0" in agent.page("/metrics"))
            alone.terminate()
            await trio.to_thread.run_sync(alone.wait)
            assert alone.returncode == 0
            with waiting_for("the worker that ran elsewhere to be gone from the list", 30):
                while (await status_of(agent))["supervisor"]["workers_elsewhere"]:
                    pass
        finally:
            alone.kill()
            alone.wait()


async def test_a_crash_loop_is_shown_in_readyz_status_metrics_and_log(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER=OURS) as agent:
        for death in range(1, 6):
            await agent.until(agent.worker_pids)
            os.kill(agent.worker_pids()[0], signal.SIGKILL)
            await agent.until(lambda: agent.log().count("worker: died") == death)  # noqa: B023  # awaited here
        assert "workers: crash loop, started again slowly from now on" in agent.log()
        pool = (await status_of(agent))["supervisor"]["pool"]
        assert (pool["crash_loop"]["deaths"], pool["crash_loop"]["last"]["status"]) == (5, -signal.SIGKILL)
        assert "crash loop: 5 deaths" in (await command(agent, "status")).stdout
        await agent.until(lambda: "hashee_worker_crash_loop 1.0" in agent.page("/metrics"))
        assert 'hashee_worker_end_total{reason="crashed"} 5.0' in agent.page("/metrics")
        await agent.until(lambda: "crash loop: 5 deaths, the last one with status -9" in readyz(agent))
        os.kill(agent.keeper_pid, signal.SIGHUP)  # a reload waits for no backoff
        await agent.until_ready()


def readyz(agent: World) -> str:
    """Also when it is not ready."""
    return page_at(f"{agent.http_url}/readyz")[1]


async def test_a_reload_reads_the_settings_file_again_and_ctrl_c_says_what_it_waits_for(tmp_path: Path) -> None:
    settings = tmp_path / "env"
    write_private(settings, "OWNERS_WORD=one")
    async with world(tmp_path, program=(*UP, "--env-file", str(settings)), HASHEE_HANDLER=OURS) as agent:
        await say(agent, "environment")
        await agent.until(lambda: heard(agent))
        assert "OWNERS_WORD=one" in heard(agent)[0].splitlines()
        write_private(settings, "OWNERS_WORD=two")
        await command(agent, "reload")
        await say(agent, "environment")
        await agent.until(lambda: len(heard(agent)) == 2)
        assert "OWNERS_WORD=two" in heard(agent)[1].splitlines()

        write_private(settings, "HASHEE_WORKERS=many")
        before = await workers(agent, 2)
        refused = await command(agent, "reload", status=1)
        assert "the old workers stay: HASHEE_WORKERS" in refused.stderr
        assert agent.worker_pids() == before
        assert (await status_of(agent))["supervisor"]["pool"]["reload_problem"].startswith("HASHEE_WORKERS")

        await say(agent, f"wait {tmp_path / 'go'}")
        await agent.until(lambda: any("(1 job)" in title(pid) for pid in agent.worker_pids()))
        os.kill(agent.keeper_pid, signal.SIGINT)
        await agent.until(lambda: "drain: waiting for 1 jobs in 1 workers; again to end at once" in agent.log())
        (tmp_path / "go").touch()
        await agent.until(lambda: len(heard(agent)) == 3)
        await agent.until(lambda: agent.up is not None and agent.up.exit_code == 0)


def write_private(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
    path.chmod(0o600)
