"""Starts a keeper as a real process and looks at what it did; everything it left is killed by id in the end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.supervisor.settings.environment import process_environ
from tests.waiting import said_of, waiting_for

KEEPER = Path(__file__).with_name("stub_keeper.py")
ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 15.0
FAST = {"backoff_base": 0.05, "backoff_cap": 0.2, "redis_stop": 5.0}


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    state_dir: Path
    lives_path: Path
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def lines(self, name: str) -> list[str]:
        """What the stubs wrote under this name, oldest first."""
        if not self.lives_path.exists():
            return []
        noted = [json.loads(line) for line in self.lives_path.read_text(encoding="utf-8").splitlines()]
        return [str(line[name]) for line in noted if name in line]

    @property
    def supervisor_pids(self) -> list[int]:
        return [int(pid) for pid in self.lines("pid")]

    def redis_pids(self) -> list[int]:
        found = [json.loads(line) for line in self.log.splitlines() if '"redis: ready' in line]
        return [int(line["pid_of_server"]) for line in found]

    async def until(self, condition: Callable[[], object]) -> None:
        with waiting_for(said_of(condition), PATIENCE_SECONDS):
            while not condition():  # the condition is another process's
                await trio.sleep(0.01)

    async def until_ready(self, lives: int = 1) -> None:
        await self.until(lambda: len(self.supervisor_pids) >= lives and self.redis_pids())

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.status()

    async def status(self) -> int:
        await self.until(lambda: self.process.poll() is not None)
        return self.process.returncode


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False


def start(plan_path: Path, log_path: Path, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    with log_path.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, KEEPER, plan_path],
            env=environ,
            stdin=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


def proc(pid: int, name: str) -> str:
    """A file of /proc/PID, as text."""
    return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")


def open_files(pid: int) -> set[tuple[int, int]]:
    """Device and inode of everything that it has open."""
    found = [fd.stat() for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.exists()]
    return {(stat.st_dev, stat.st_ino) for stat in found}


@asynccontextmanager
async def running_keeper(
    tmp_path: Path,
    *,
    state_dir: Path | None = None,
    name: str = "keeper",
    plan: dict[str, object] | None = None,
    **environ: str,
) -> AsyncGenerator[Running]:
    state_dir = state_dir or tmp_path / "state"
    lives_path, plan_path, log_path = (tmp_path / f"{name}.{kind}" for kind in ("lives", "plan", "log"))
    plan_path.write_text(json.dumps({"lives": str(lives_path), "timings": FAST, **(plan or {})}), encoding="utf-8")
    process = start(plan_path, log_path, process_environ(state_dir, PYTHONPATH=str(ROOT), **environ))
    running = Running(process, state_dir, lives_path, log_path)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        for pid in (*running.supervisor_pids, *running.redis_pids()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
