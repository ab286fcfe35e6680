"""Child processes of the demo and of tests: started in their own process group, logged to a file, always ended.

Ctrl-C on a terminal goes to the whole foreground group: a child of its own group ends when its owner says so, after
a drain. Whatever happens to the owner, SIGKILL too, the kernel ends the child (host/parent_death.py), and that its own children.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from host import parent_death
from host.process_end import ProcessEnd

KILL_SECONDS = 5.0
LAST_LINES = 20


class ChildFailed(Exception):
    """A child ended or stayed silent when it should have been ready. Carries its last lines."""


class SandboxProcess:
    """One process by its pid. Start it from the main thread: its parent-death signal belongs to that thread."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._process = process
        self._end = ProcessEnd(process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number where one ended it."""
        return self._process.poll()

    async def wait(self) -> int:
        await self._end.wait()
        return self._process.wait()

    async def end(self, number: signal.Signals, seconds: float) -> int:
        """Asks with a signal, waits so long, then kills. Says how it ended."""
        with trio.CancelScope(shield=True):
            for signal_number, patience in ((number, seconds), (signal.SIGKILL, KILL_SECONDS)):
                if self.exit_code is not None:
                    break
                self._process.send_signal(signal_number)
                with trio.move_on_after(patience):
                    await self.wait()
        return self._process.wait()

    def close(self) -> None:
        self._end.close()

    def last_lines(self) -> str:
        """The end of its log, for a message to a person."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {self.name} | {line}" for line in lines[-LAST_LINES:])


@asynccontextmanager
async def running(
    name: str,
    argv: Sequence[str],
    *,
    log_path: Path,
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    stop_signal: signal.Signals = signal.SIGTERM,
    stop_seconds: float = KILL_SECONDS,
    folder: Path | None = None,
) -> AsyncIterator[SandboxProcess]:
    """The child for as long as the body runs, or this process lives. Standard input is empty; both outputs go to `log_path`.

    `folder`: where it starts, ours if None.
    """
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - must be forked by the main thread, and does not block for long
            parent_death.command(os.getpid(), list(argv)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    child = SandboxProcess(name, process, log_path)
    try:
        yield child
    finally:
        await child.end(stop_signal, stop_seconds)
        child.close()


class _Announcement(msgspec.Struct, frozen=True):
    url: str


@asynccontextmanager
async def relay_process(
    *options: str, log_path: Path, ready_seconds: float = 10.0
) -> AsyncIterator[tuple[SandboxProcess, str]]:
    """`python -m sandbox relay …` and its base URL, once it accepts connections. Raises `ChildFailed`."""
    reading, writing = os.pipe()
    argv = [sys.executable, "-P", "-m", "sandbox", "relay", "--exit-with-parent", str(os.getpid())]
    argv += ["--announce-fd", str(writing), *options]
    try:
        async with running(
            "relay", argv, log_path=log_path, environment=os.environ, pass_fds=[writing], stop_signal=signal.SIGKILL
        ) as child:
            os.close(writing)
            writing = -1
            with trio.move_on_after(ready_seconds):
                await trio.lowlevel.wait_readable(reading)
            os.set_blocking(reading, False)
            try:
                line = os.read(reading, 4096)
            except BlockingIOError:
                line = b""
            if not line:
                raise ChildFailed(f"the relay did not come up\n{child.last_lines()}")
            yield child, msgspec.json.decode(line, type=_Announcement).url
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
