"""The file gate under a keeper: started by the first call, again after its death, without a key; gone with the keeper."""

import json
import os
import signal
import socket
import stat
from pathlib import Path

import pytest
import trio

from supervisor.keeper.files_gate import FILES_SOCKET, files_environment
from tests.supervisor.keeper.running import is_alive, running_keeper
from tests.waiting import waiting_for


def call(path: Path) -> tuple[int, list[str]]:
    """Returns the pid of the gate that answers, and the names in its environment."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        said = b"".join(iter(lambda: client.recv(65536), b""))
    pid, *names = json.loads(said)
    return pid, names


async def until_dead(pid: int) -> None:
    with waiting_for("the gate to be dead", 5):
        while is_alive(pid):
            await trio.sleep(0.01)


async def test_a_call_starts_the_gate_and_another_after_its_death_or_an_upgrade_and_it_ends_with_the_keeper(
    tmp_path: Path,
) -> None:
    async with running_keeper(tmp_path, plan={"files": True}) as running:
        await running.until_ready()
        path = running.state_dir / FILES_SOCKET
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "files: started" not in running.log
        pid, names = await trio.to_thread.run_sync(call, path)
        assert "HASHEE_AGENT_TOKEN" in names
        assert not {"HASHEE_X25519_PRIVATE_BASE64", "HASHEE_ED25519_PRIVATE_BASE64"} & set(names)
        os.kill(pid, signal.SIGKILL)
        await until_dead(pid)
        again, _ = await trio.to_thread.run_sync(call, path)
        assert again != pid
        running.process.send_signal(signal.SIGUSR2)
        await running.until(lambda: '"keeper: upgraded"' in running.log)
        upgraded, _ = await trio.to_thread.run_sync(call, path)
        assert upgraded != again
        assert await running.end() == 0
        await until_dead(again)
        await until_dead(upgraded)


@pytest.mark.pure
def test_the_gate_gets_the_token_and_no_other_secret_of_the_environment() -> None:
    ours = {
        f"HASHEE_{name}": "x"
        for name in ("AGENT_TOKEN", "STORE_KEY", "X25519_PRIVATE_BASE64", "REDIS_URL", "BUS_KEY_FILE")
    }
    left = files_environment({**ours, "PATH": "p", "LC_ALL": "C", "OPENAI_API_KEY": "k", "DATABASE_URL": "d"})
    assert set(left) == {"HASHEE_AGENT_TOKEN", "PATH", "LC_ALL"}
