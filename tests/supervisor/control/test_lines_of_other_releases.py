"""Real processes of two releases on one line: whatever the newer one adds, both go on listening, in both directions."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import trio

from tests.supervisor.control.test_control_socket import ask, socket_of
from tests.supervisor.keeper.running import ROOT, is_alive, running_keeper
from tests.supervisor.keeper.test_upgrade import upgrade
from tests.supervisor.settings.environment import process_environ
from tests.waiting import waiting_for

STUB = Path(__file__).parents[1] / "keeper" / "stub_supervisor.py"
PASSED_OVER = '"supervisor: a message was passed over, not known here"'


async def test_a_keeper_hears_a_newer_supervisor_through_all_that_it_does_not_know(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"newer": True}) as keeper:
        await keeper.until_ready()
        [status] = await ask(socket_of(keeper), {"command": "status"})
        assert status["result"]["supervisor"] == {"pid": keeper.supervisor_pids[0]}
        assert status["result"]["keeper"]["lines_passed_over"] == 6
        said = [json.loads(line)["tag"] for line in keeper.log.splitlines() if PASSED_OVER in line]
        assert sorted(said) == ["of_tomorrow", "state", "too long", "without a tag"]
        assert await keeper.end() == 0
        assert len(keeper.supervisor_pids) == 1


async def test_an_upgrade_to_a_release_that_says_more_goes_through(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"second": {"newer": True}}) as keeper:
        await keeper.until_ready()
        assert (await upgrade(keeper))["ok"]
        assert [is_alive(pid) for pid in keeper.supervisor_pids] == [False, True]


async def test_a_supervisor_obeys_a_newer_keeper_through_all_that_it_does_not_know(tmp_path: Path) -> None:
    plan, lives = tmp_path / "plan", tmp_path / "lives"
    plan.write_text(json.dumps({"lives": str(lives)}), encoding="utf-8")
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as http, ours, theirs:
        descriptors = (http.fileno(), theirs.fileno())
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [sys.executable, STUB, plan, *map(str, descriptors), ""],
            env=process_environ(tmp_path, PYTHONPATH=str(ROOT)),
            pass_fds=descriptors,
        )
        theirs.close()
        try:
            keeper = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            with waiting_for("the supervisor to answer after lines of another release", 30):
                await keeper.send_all(b"of_tomorrow 1 2 3\nask 1 {\nask x\nsignal SIGFUTURE\n\xff\xfe\n")
                for _ in range(100):
                    await keeper.send_all(b"x" * 1_000_000)
                await keeper.send_all(b'\nask 2 {"command":"status","tomorrow":true}\nsig')
                answer = b""
                while b'"number":2' not in answer:
                    answer += await keeper.receive_some()
                await keeper.send_all(b"nal SIGHUP\n")
                while "SIGHUP" not in lives.read_text(encoding="utf-8"):  # another process's condition
                    await trio.sleep(0.01)
                await keeper.send_all(b"drain\n")
                assert await trio.to_thread.run_sync(process.wait) == 0
        finally:
            process.kill()
            process.wait()
    noted = [json.loads(line) for line in lives.read_text(encoding="utf-8").splitlines()]
    assert [next(iter(line)) for line in noted] == ["pid", "asked", "signal", "told_to_drain", "drained"]


async def test_a_supervisor_that_stops_within_a_line_is_ended_by_its_silence_and_by_nothing_else(
    tmp_path: Path,
) -> None:
    plan: dict[str, object] = {"half_a_line": True, "timings": {"silence": 1.0, "backoff_base": 0.05}}
    async with running_keeper(tmp_path, plan=plan) as keeper:
        await keeper.until_ready(lives=2)
        assert "supervisor: hangs, is ended" in keeper.log
        assert PASSED_OVER not in keeper.log


async def test_the_control_socket_answers_each_line_that_it_cannot_read_and_goes_on(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        async with await trio.open_unix_socket(str(socket_of(keeper))) as stream:
            with waiting_for("the keeper to answer after lines of another release", 30):
                await stream.send_all(
                    b'nonsense\n{"command":1}\n{"command":"\xff"}\n{"command":"status","workers":"\xff"}\n'
                )
                for _ in range(100):
                    await stream.send_all(b"x" * 1_000_000)
                await stream.send_all(b'\n{"command":"status","of_tomorrow":1}\n')
                answers = b""
                while answers.count(b"\n") < 6:
                    answers += await stream.receive_some()
        told = [json.loads(line) for line in answers.splitlines()]
        assert [one["ok"] for one in told] == [False] * 5 + [True]
        assert all("another version" in one["error"] for one in told[:5])
        os.kill(keeper.process.pid, signal.SIGTERM)
        assert await keeper.status() == 0
