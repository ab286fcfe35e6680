"""A disk that is slow to sync, and SIGKILL while it is: what the private Redis has acknowledged is there afterwards.

The control is the setting that everybody takes: with `everysec`, Redis answers before it writes as long as a sync is under way.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from host import embedded

SECONDS = 3  # of one sync; Redis waits for two before it writes all the same
WRITES = 300
WITHIN_SECONDS = 20.0
TRIES = 5


def servers() -> list[Path]:
    """redis-server and Valkey, as far as they are here."""
    found = [Path(path) for name in embedded.NAMES if (path := shutil.which(name))]
    return found + embedded.packaged_binaries()


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler, so that no sync can be made slow")
    made = tmp_path_factory.mktemp("shim") / "slow_fsync.so"
    source = Path(__file__).with_name("slow_fsync.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made


@contextmanager
def kept(server: Path, state_dir: Path, appendfsync: str, shim: Path | None = None) -> Iterator[tuple[int, int]]:
    """The pids of a keeper and of its server."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}
    if shim is not None:
        environment |= {
            "LD_PRELOAD": str(shim),
            "SLOW_FSYNC_SECONDS": str(SECONDS),
            "SLOW_FSYNC_WHEN": str(state_dir / "is slow"),
            "SLOW_FSYNC_MARK": str(state_dir / "syncs"),
        }
    argv = [sys.executable, "-m", "tests.traps.slow_keeper", str(server), str(state_dir), appendfsync]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env=environment, process_group=0, encoding="utf-8"
    ) as keeper:
        try:
            assert keeper.stdout is not None
            server_pid = int(keeper.stdout.readline())
            yield keeper.pid, server_pid
        finally:
            keeper.kill()
            keeper.wait()
    until_dead(server_pid)


def client_of(state_dir: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(state_dir / "redis" / "redis.sock"), protocol=2)


def lost_in_a_kill(server: Path, state_dir: Path, appendfsync: str, shim: Path, *, kills_keeper: bool) -> int:
    """How many of the acknowledged writes are gone after a SIGKILL in the middle of a slow sync."""
    state_dir.mkdir()
    with kept(server, state_dir, appendfsync, shim) as (keeper_pid, server_pid):
        with client_of(state_dir) as client:
            deadline = time.monotonic() + WITHIN_SECONDS
            (state_dir / "is slow").touch()
            while not (state_dir / "syncs").exists():
                assert time.monotonic() < deadline, "nothing was synced"
                client.incr("waiting")
            for number in range(WRITES):
                client.set(f"key{number}", number)
        os.kill(keeper_pid if kills_keeper else server_pid, signal.SIGKILL)  # the server dies with its keeper
        until_dead(server_pid)
    with kept(server, state_dir, "no"), client_of(state_dir) as client:
        return WRITES - int(client.exists(*(f"key{number}" for number in range(WRITES))))


def until_dead(pid: int) -> None:
    """Gone, or a zombie whose parent still lives."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        assert time.monotonic() < deadline, f"{pid} did not die"
        time.sleep(0.01)


@pytest.mark.parametrize("server", servers(), ids=lambda path: path.name)
@pytest.mark.parametrize("kills_keeper", [False, True], ids=["server", "keeper and server"])
def test_slow_fsync_and_a_sigkill_lose_nothing_that_was_acknowledged(
    tmp_path: Path, shim: Path, server: Path, kills_keeper: bool
) -> None:
    assert lost_in_a_kill(server, tmp_path / "state", "no", shim, kills_keeper=kills_keeper) == 0


@pytest.mark.parametrize("server", servers(), ids=lambda path: path.name)
def test_slow_fsync_with_everysec_loses_what_was_acknowledged(tmp_path: Path, shim: Path, server: Path) -> None:
    """The control: the same disk, the same kill, and the setting that we do not use."""
    for number in range(TRIES):
        if lost_in_a_kill(server, tmp_path / f"{number}", "everysec", shim, kills_keeper=False):
            return
    pytest.skip("everysec lost nothing here in five kills: on this machine the test above shows less than it says")
