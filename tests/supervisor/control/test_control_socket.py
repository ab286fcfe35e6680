"""The control socket of a real keeper: who may ask, what is answered while things die, and how its end is seen."""

import json
import os
import signal
import socket
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from bus.control.messages import ControlAnswer, Request
from host.bounded_listener import BoundedListener
from supervisor.control.control_socket import ControlTaken, control_path, listen_control, serve_control
from tests.short_folder import tmp_path
from tests.supervisor.cli.test_command_line import run
from tests.supervisor.keeper.running import Running, running_keeper
from tests.supervisor.settings.environment import process_environ
from tests.waiting import waiting_for

__all__ = ["tmp_path"]


async def ask(path: Path, *requests: dict[str, object], answers: int | None = None) -> list[dict[str, Any]]:
    """All requests over one connection; as many answers as requests unless told otherwise."""
    wanted = len(requests) if answers is None else answers
    with waiting_for(f"{wanted} answers of the control socket", 15):
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
            heard = b""
            while heard.count(b"\n") < wanted:
                data = await stream.receive_some()
                assert data, heard
                heard += data
    return [json.loads(line) for line in heard.splitlines()]


def socket_of(keeper: Running) -> Path:
    return keeper.state_dir / "control.sock"


async def test_only_the_owner_can_open_it_and_status_comes_from_keeper_and_supervisor(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        assert stat.S_IMODE(socket_of(keeper).stat().st_mode) == 0o600
        [answer] = await ask(socket_of(keeper), {"command": "status"})
        assert answer["ok"]
        assert answer["result"]["keeper"]["pid"] == keeper.process.pid
        assert answer["result"]["keeper"]["state"] == "running"
        assert answer["result"]["supervisor"] == {"pid": keeper.supervisor_pids[0]}
        watched = await ask(socket_of(keeper), {"command": "status", "every_seconds": 0.1}, answers=3)
        assert [one["result"]["supervisor"]["pid"] for one in watched] == keeper.supervisor_pids * 3


@pytest.mark.parametrize("nonsense", ["not json", "{}", '{"command":1}'])
async def test_what_is_no_request_is_refused_and_the_keeper_lives(tmp_path: Path, nonsense: str) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        async with await trio.open_unix_socket(str(socket_of(keeper))) as stream:
            await stream.send_all(nonsense.encode() + b"\n")
            assert json.loads(await stream.receive_some())["ok"] is False
        assert (await ask(socket_of(keeper), {"command": "status"}))[0]["ok"]


async def test_a_supervisor_that_dies_over_a_question_is_an_answer_and_status_goes_on(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        [answer] = await ask(socket_of(keeper), {"command": "die"})
        assert (answer["ok"], "ended" in answer["error"]) == (False, True)
        await keeper.until_ready(lives=2)
        [answer] = await ask(socket_of(keeper), {"command": "status"})
        assert answer["result"]["supervisor"]["pid"] == keeper.supervisor_pids[1]


async def test_a_stopped_supervisor_costs_status_its_part_and_not_the_keepers(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"timings": {"status": 0.3}}) as keeper:
        await keeper.until_ready()
        os.kill(keeper.supervisor_pids[0], signal.SIGSTOP)
        [answer] = await ask(socket_of(keeper), {"command": "status"})
        assert answer["result"]["supervisor"] is None
        assert "does not answer" in answer["result"]["problem"]
        os.kill(keeper.supervisor_pids[0], signal.SIGCONT)


async def test_stop_drains_and_its_connection_ends_when_all_is_over(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        async with await trio.open_unix_socket(str(socket_of(keeper))) as stream:
            await stream.send_all(b'{"command":"stop"}\n')
            assert json.loads(await stream.receive_some())["result"]["at_most_seconds"] > 25
            with waiting_for("the keeper to hang up", 15):
                assert await stream.receive_some() == b""
        assert await keeper.status() == 0
        assert keeper.lines("drained") == [str(keeper.supervisor_pids[0])]


def _has_ended(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


@pytest.mark.parametrize("number", range(8))
async def test_nobody_can_connect_any_more_once_a_connection_ends(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several times, since trio runs what is ready in either order."""
    path, clients, ended = tmp_path / f"control-{number}.sock", list[socket.socket](), list[bool]()
    close = BoundedListener.aclose

    async def look_and_close(listener: BoundedListener) -> None:
        ended.extend(map(_has_ended, clients))
        await close(listener)

    async def answer(_request: Request) -> ControlAnswer:
        raise AssertionError("nobody asks")

    monkeypatch.setattr(BoundedListener, "aclose", look_and_close)
    with ExitStack() as opened:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_control, listen_control(path), answer)
            for _ in range(5):
                client = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                await trio.testing.wait_all_tasks_blocked()
                client.connect(str(path))
                clients.append(client)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert ended == [False] * 5
        assert all(_has_ended(client) for client in clients)


async def test_a_defect_that_a_command_meets_is_its_answer_and_the_next_one_is_answered(tmp_path: Path) -> None:
    async def answer(request: Request) -> ControlAnswer:
        if request.command == "broken":
            raise KeyError("what somebody has said")
        return ControlAnswer(ok=True)

    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_control, listen_control(tmp_path / "control.sock"), answer)
            broken, well = await ask(tmp_path / "control.sock", {"command": "broken"}, {"command": "status"})
            nursery.cancel_scope.cancel()
    assert (broken["ok"], well["ok"]) == (False, True)
    assert "a defect of hashee-agent (KeyError); the log" in broken["error"]
    assert "said" not in broken["error"]
    assert [(line["log_level"], line["command"], line["exc_info"]) for line in lines] == [("error", "broken", True)]


async def test_what_a_killed_keeper_left_is_taken_over(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        keeper.process.kill()
        keeper.process.wait()
        assert socket_of(keeper).exists()
    async with running_keeper(tmp_path, name="next") as successor:
        await successor.until_ready()
        assert (await ask(socket_of(successor), {"command": "status"}))[0]["ok"]


def test_a_socket_that_is_served_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with listen_control(path), pytest.raises(ControlTaken, match="it serves"):
        listen_control(path)
    listen_control(path).close()


def test_a_path_that_is_too_long_for_a_socket_goes_to_the_runtime_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    path = control_path(deep, tmp_path)
    assert path.parent.parent == tmp_path
    with listen_control(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("arguments", [["status"], ["stop"]])
def test_without_an_agent_a_command_says_so_and_what_helps(tmp_path: Path, arguments: Sequence[str]) -> None:
    for state_dir in (tmp_path / "never", tmp_path):
        done = run(*arguments, environ=process_environ(state_dir), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no agent runs" in done.stderr
        assert "hashee-agent up" in done.stderr
