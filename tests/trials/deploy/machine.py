"""A throw-away machine with a real systemd as its pid 1: an overlay of this one's root, booted by systemd-nspawn.

What is written there is gone with it. It shares this machine's loopback, so that a relay here is reached from there.
Needs root, overlayfs and the packages systemd and systemd-container; without them the test fails and says how to get them.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trials.deploy.needs import cannot

ROOT = Path(__file__).parents[3]
SOURCE = "/mnt/source"
BOOT_SECONDS = 90.0
PATIENCE_SECONDS = 90.0
PROGRAMS = {"systemd-nspawn": "systemd-container", "nsenter": "util-linux", "setpriv": "util-linux", "mount": "mount"}
PASSED_ON = ("PIP_", "SSL_", "LANG")


@dataclass(frozen=True)
class Machine:
    """`leader`: the machine's pid 1, as this machine sees it."""

    leader: int
    root: Path

    def run(self, *command: str, check: bool = True, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """A command there, as root; its output is kept."""
        environ = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        environ |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        done = subprocess.run(
            [
                shutil.which("nsenter") or "nsenter",
                "-t",
                str(self.leader),
                "-m",
                "-u",
                "-i",
                "-n",
                "-p",
                "--",
                *command,
            ],
            env=environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
            encoding="utf-8",
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def journal(self, unit: str) -> list[str]:
        """What the unit has said, oldest first."""
        return self.run("journalctl", "--no-pager", "--quiet", "-o", "cat", "-u", unit).stdout.splitlines()

    def until(self, what: str, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> float:
        """How long it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
            time.sleep(0.05)
        return time.monotonic() - began


@contextlib.contextmanager
def booted_machine(folder: Path) -> Iterator[Machine]:
    """Booted, and gone with the block."""
    upper, root = folder / "upper", folder / "root"
    upper.mkdir()
    root.mkdir()
    with contextlib.ExitStack() as stack:
        _mount(stack, "-t", "tmpfs", "tmpfs", upper)
        for name in ("changes", "work"):
            (upper / name).mkdir()
        layers = f"lowerdir=/,upperdir={upper}/changes,workdir={upper}/work"
        _mount(stack, "-t", "overlay", "overlay", "-o", layers, root)
        console = stack.enter_context((folder / "console.log").open("wb"))
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "TERM"),  # a test that is killed takes its machine along
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--link-journal=no"),
                *("-D", str(root), f"--bind-ro={ROOT}:{SOURCE}", "-b", "--console=read-only"),
                "systemd.unit=basic.target",  # none of this machine's own services
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(_end, process)
        yield _wait_until_booted(process, root, folder / "console.log")


def _wait_until_booted(process: subprocess.Popen[bytes], root: Path, console: Path) -> Machine:
    deadline = time.monotonic() + BOOT_SECONDS
    state = "no pid 1"
    while time.monotonic() < deadline and process.poll() is None:
        if leader := _first_process(process.pid):
            machine = Machine(leader, root)
            state = machine.run("systemctl", "is-system-running", check=False).stdout.strip()
            if state in {"running", "degraded"}:  # degraded: a service of this machine's own did not start there
                return machine
        time.sleep(0.2)
    pytest.fail(f"the machine did not boot: {state}\n{console.read_text(errors='replace', encoding='utf-8')[-2000:]}")


def _first_process(nspawn: int) -> int | None:
    """The machine's pid 1: below nspawn at first through a process that soon ends, then its child."""
    below = [nspawn]
    for _ in range(2):
        below = [child for pid in below for child in _children(pid)]
        for pid in below:
            if _is_first(pid):
                return pid
    return None


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_first(pid: int) -> bool:
    """Whether it is pid 1 in a namespace of its own."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    [pids] = [line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")]
    return len(pids) > 1 and pids[-1] == "1"


def _mount(stack: contextlib.ExitStack, *arguments: object) -> None:
    command = ["mount", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    if done.returncode != 0:
        cannot(f"without {' '.join(command)}: {done.stderr.strip()}")
    stack.callback(subprocess.run, ["umount", "--lazy", str(arguments[-1])], check=False)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None and (leader := _first_process(process.pid)):
        os.kill(leader, signal.SIGKILL)  # pid 1 of a namespace: everything in it dies with it
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    process.kill()
    process.wait()
