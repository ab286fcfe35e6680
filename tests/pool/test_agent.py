"""The whole agent with its real processes: what an operator does to it, and what kills do to it."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.pool.builders import is_gone
from tests.world import World, world

Ran = subprocess.CompletedProcess[str]


async def command(agent: World, *arguments: str, status: int = 0) -> Ran:
    """`hashee-agent …`, as an operator types it."""
    run = partial(
        subprocess.run,
        [sys.executable, "-m", "supervisor", *arguments],
        env=agent.environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    done: Ran = await trio.to_thread.run_sync(run)
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
    return Path(f"/proc/{pid}/cmdline").read_text().strip("\0 ")


async def test_status_reload_scale_signals_and_stop_of_a_running_agent(tmp_path: Path) -> None:
    async with world(tmp_path) as agent:
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
        assert title(supervisor["pid"]).startswith("hashee-agent: supervisor")
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

        os.kill(agent.keeper_pid, signal.SIGQUIT)
        await agent.until(lambda: agent.log().count("worker: stacks") == 3 and "supervisor: stacks" in agent.log())
        await workers(agent, 3)

        await say(agent, "still there?")
        await answered(agent, ["echo: hello", "echo: still there?"])
        assert (await command(agent, "stop")).stdout.endswith("stopped\n")
        assert agent.supervisor_pid() is None
        assert "no agent runs" in (await command(agent, "status", status=1)).stderr


QUICK = (sys.executable, "-m", "tests.keeper.quick_keeper")
OURS = "tests.pool.handlers:agent"


async def test_supervisor_killed_ten_times_in_a_row_with_running_jobs_loses_and_repeats_nothing(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.touch()
    async with world(tmp_path, people=("Ada", "Ben"), program=QUICK, HASHEE_HANDLER=OURS) as agent:
        redis = agent.redis_pid()
        for person in agent.people:
            await person.say(agent.conversations[person], f"mark {begun} 1")
        runs = 0
        for _kill in range(10):
            await agent.until(lambda: len(begun.read_text()) >= runs + 2)  # noqa: B023  # awaited here
            runs = len(begun.read_text())
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
    async with world(tmp_path, program=QUICK, HASHEE_HANDLER=OURS) as agent:
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
            [listed] = (await status_of(agent))["supervisor"]["workers_elsewhere"]
            assert listed["pid"] == alone.pid
            assert listed["consumer"].startswith(f"{listed['host']}-{alone.pid}-")
            assert str(alone.pid) in (await command(agent, "status")).stdout
            assert "hashee_workers_elsewhere 1.0" in agent.page("/metrics")
            alone.terminate()
            await trio.to_thread.run_sync(alone.wait)
            assert alone.returncode == 0
            with trio.fail_after(30):
                while (await status_of(agent))["supervisor"]["workers_elsewhere"]:
                    pass
        finally:
            alone.kill()
            alone.wait()
