"""What a worker is started with, how long it may take for what, and the start itself: descriptors, environment, fork.

A worker gets by inherited descriptors what nobody else may read: the pipe of its control messages, the bus key. Its descriptor 2
is a pipe to us, since what an interpreter writes there in its last moment may carry content; its log goes to our own stderr.

Its environment is everything of the owner's, and nothing of ours but what it needs. The owner's variables must reach the handler (their
services' keys), so this is a rule by name: HASHEE_* is ours and withheld unless listed here, and so is what systemd gives the main
process alone.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bus.records.sealing import BusKey
from bus.settings.llm import api_key_to_hand_on
from bus.settings.shared import OWN_REDIS
from bus.telemetry.settings import headers_to_hand_on
from host.code_place import CodePlace, ProgramPath
from host.current_directory import current_directory
from host.process_end import ProcessEnd
from host.strays import COOKIE

STDERR = 2

OURS_FOR_WORKERS = frozenset(
    {
        *("HASHEE_AGENT_ID", "HASHEE_LOG_LEVEL", "HASHEE_LOG_FORMAT"),
        *("HASHEE_JOB_SECONDS", "HASHEE_RETRY_SECONDS", "HASHEE_RETRY_TIMEOUTS", "HASHEE_SHOW_ERRORS"),
        *("HASHEE_FILES_URL", "HASHEE_FILES_CA", "HASHEE_SPOOL_DIR", "HASHEE_SPOOL_MB"),
    }
)
"""What a worker reads (bus/settings/shared.py); every other HASHEE_* stays here, its _FILE form too."""

OURS_FOR_HANDLERS = "HASHEE_LLM_"
"""What begins so says how the language model is asked (bus/settings/llm.py)."""

OURS = "HASHEE_"

OF_THE_MAIN_PROCESS = frozenset(
    {
        *("CREDENTIALS_DIRECTORY", "LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID"),
        *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
    }
)
"""What systemd gives to the process that it started, and to nobody below it: its credentials, sockets and watchdog (systemd.exec(5))."""


@dataclass(frozen=True, kw_only=True)
class WorkerTimes:
    """How long a worker may take for what.

    `load_seconds` counts until its event loop runs, not the wait for Redis. A job that is still running `grace_seconds` after its
    limit (`job_seconds`, 0 = none) was not ended by its own worker, which therefore hangs.
    """

    load_seconds: float = 60.0
    silence_seconds: float = 10.0
    job_seconds: float = 600.0
    grace_seconds: float = 10.0
    dump_seconds: float = 1.0
    terminate_seconds: float = 2.0


@dataclass(frozen=True, kw_only=True)
class WorkerOrder:
    """What every worker of a pool is started with. `environ` is the supervisor's; a worker gets what `worker_environment` leaves of it.

    `spool_dir`: for its sealed files on their way out. `report_files`: it says from which files of the owner its handler was loaded. `way`: how `python` and `directory` are found when they
    are gone.
    """

    agent_id: str
    redis_url: str = field(repr=False)
    has_own_redis: bool = False
    bus_key: BusKey
    handler: str
    concurrency: int
    environ: Mapping[str, str] = field(repr=False)
    directory: Path | None = None
    python: str = sys.executable
    way: ProgramPath | None = None
    times: WorkerTimes = WorkerTimes()
    report_files: bool = False
    spool_dir: Path | None = None

    def place(self) -> CodePlace:
        """Returns from where a worker is started. Raises CodeGone."""
        place = CodePlace(Path(self.python), self.directory)
        return place if self.way is None or place.is_there else self.way.look()


@dataclass(frozen=True)
class Spawned:
    """A process that runs, and our ends of what it was given."""

    process: subprocess.Popen[bytes]
    end: ProcessEnd
    control: socket.socket
    stderr_fd: int


def spawn(order: WorkerOrder, consumer: str, number: int) -> Spawned:
    """Forks and executes a worker; returns it with our ends of its pipes. Raises OSError.

    From the main thread only: the child's death signal is tied to the thread that forked.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a worker is forked from the main thread, or it dies with the thread that did")
    place = order.place()
    theirs: list[int] = []
    ours, control = socket.socketpair()
    stderr_fd = -1
    try:
        theirs.append(control.detach())
        key_fd, key_writer = os.pipe()
        theirs.append(key_fd)
        with os.fdopen(key_writer, "wb") as key_pipe:
            key_pipe.write(order.bus_key.export())
        stderr_fd, stderr_writer = os.pipe()
        theirs.append(stderr_writer)
        os.set_blocking(stderr_writer, False)  # a full pipe costs words, never a handler's time
        theirs.append(log_fd := os.dup(STDERR))
        command = _command(order, place, consumer, number, control_fd=theirs[0], key_fd=key_fd, log_fd=log_fd)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=stderr_writer,
            pass_fds=(theirs[0], key_fd, log_fd),
            env=worker_environment(
                order.environ,
                agent_id=order.agent_id,
                redis_url=order.redis_url,
                has_own_redis=order.has_own_redis,
                spool_dir=order.spool_dir,
            )
            | {COOKIE: consumer},
            cwd=place.directory,
            process_group=0,
        )
    except OSError:
        ours.close()
        if stderr_fd >= 0:
            os.close(stderr_fd)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return Spawned(process, ProcessEnd(process.pid), ours, stderr_fd)


def _command(
    order: WorkerOrder, place: CodePlace, consumer: str, number: int, *, control_fd: int, key_fd: int, log_fd: int
) -> list[str]:
    # -P: a `workers` in the current directory must not be taken for ours.
    command = [str(place.python), "-P", "-m", "workers", "--handler", order.handler]
    if order.report_files:
        command.insert(1, "-B")  # Bytecode is told apart by size and second: an edit may be quicker.
    command += ["--concurrency", str(order.concurrency), "--consumer", consumer, "--number", str(number)]
    command += ["--control-fd", str(control_fd), "--bus-key-fd", str(key_fd), "--log-fd", str(log_fd)]
    command += ["--parent-pid", str(os.getpid())]
    return [*command, "--report-files"] if order.report_files else command


def module_files(order: WorkerOrder) -> tuple[str, ...]:
    """Returns where the handler's module should be, whether or not it is there."""
    base = (order.directory or current_directory()) / order.handler.partition(":")[0].replace(".", "/")
    return str(base.with_suffix(".py")), str(base / "__init__.py")


def worker_environment(
    environ: Mapping[str, str],
    *,
    agent_id: str,
    redis_url: str,
    has_own_redis: bool = False,
    spool_dir: Path | None = None,
) -> dict[str, str]:
    """Returns what is left of `environ` for a worker of this agent. `has_own_redis`: the URL is that of its private Redis."""
    kept = {name: value for name, value in environ.items() if _may_go(name)}
    kept |= headers_to_hand_on(environ) | api_key_to_hand_on(environ)
    told = {OWN_REDIS: "1"} if has_own_redis else {}
    told |= {"HASHEE_SPOOL_DIR": str(spool_dir)} if spool_dir is not None else {}
    return kept | told | {"HASHEE_AGENT_ID": agent_id, "HASHEE_REDIS_URL": redis_url}


def _may_go(name: str) -> bool:
    if name in OF_THE_MAIN_PROCESS:
        return False
    return not name.startswith(OURS) or name in OURS_FOR_WORKERS or name.startswith(OURS_FOR_HANDLERS)
