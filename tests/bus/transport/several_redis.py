"""Several real servers on loopback: a master with a replica and three sentinels, or the nodes of a cluster. Ended by id when the block is left."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from tests.redis_server import server_binary, with_us

START_SECONDS = 20.0
SLOTS = 16_384
MASTER = "mymaster"


@dataclass
class Several:
    """`processes` by port."""

    folder: Path
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    clients: dict[int, redis.Redis] = field(default_factory=dict)

    def start(self, *options: str, sentinel: str = "") -> int:
        """A server with these options on a free port, which it returns once that answers. `sentinel`: its configuration, for a sentinel."""
        port = free_port()
        home = self.folder / str(port)
        home.mkdir()
        log = ("--logfile", str(home / "log"))
        if sentinel:
            (home / "sentinel.conf").write_text(
                f"port {port}\ndir {home}\nbind 127.0.0.1\n{sentinel}\n", encoding="utf-8"
            )
            arguments = [str(home / "sentinel.conf"), "--sentinel", *log]
        else:
            plain = (
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--dir",
                str(home),
                "--appendonly",
                "yes",
                "--save",
                "",
            )
            arguments = [*plain, *log, *options]
        self.processes[port] = subprocess.Popen(
            [*with_us(), server_binary().path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
        until(lambda: self.ask(port).ping())
        return port

    def ask(self, port: int) -> redis.Redis:
        """One client for each, closed with its server: left to the garbage, it warns of a socket now and then."""
        if port not in self.clients:
            self.clients[port] = redis.Redis(
                host="127.0.0.1", port=port, protocol=2, decode_responses=True, socket_timeout=5
            )
        return self.clients[port]

    def kill(self, port: int) -> None:
        process = self.processes.pop(port)
        if port in self.clients:
            self.clients.pop(port).close()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def several(folder: Path) -> Iterator[Several]:
    if server_binary().name != "redis":
        pytest.skip("the options of sentinels and clusters are given as redis-server knows them")
    made = Several(folder)
    try:
        yield made
    finally:
        for port in list(made.processes):
            made.kill(port)
        for client in made.clients.values():  # of those who were asked once more
            client.close()


def with_sentinels(servers: Several, *options: str) -> tuple[int, int, list[int]]:
    """Ports of a master, its replica, and three sentinels that have seen both."""
    master = servers.start(*options)
    replica = servers.start("--replicaof", f"127.0.0.1 {master}", "--repl-diskless-sync-delay", "0", *options)
    until(lambda: servers.ask(replica).info("replication")["master_link_status"] == "up")
    conf = "\n".join(
        (
            f"sentinel monitor {MASTER} 127.0.0.1 {master} 2",
            f"sentinel down-after-milliseconds {MASTER} 1000",
            f"sentinel failover-timeout {MASTER} 5000",
        )
    )
    sentinels = [servers.start(sentinel=conf) for _ in range(3)]
    for sentinel in sentinels:
        until(lambda port=sentinel: _knows_all(servers.ask(port)))  # type: ignore[misc]  # the one of this turn
    return master, replica, sentinels


def _knows_all(sentinel: redis.Redis) -> bool:
    seen = sentinel.execute_command("SENTINEL", "MASTER", MASTER)
    known = dict(zip(seen[::2], seen[1::2], strict=True)) if isinstance(seen, list) else seen
    return int(known["num-other-sentinels"]) == 2 and int(known["num-slaves"]) == 1


def with_cluster(servers: Several, masters: int = 3) -> list[int]:
    """Ports of a cluster's masters, each of which has a third of the slots."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no")
    ports = [servers.start(*options) for _ in range(masters)]
    for number, port in enumerate(ports):
        node = servers.ask(port)
        node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", SLOTS * number // masters, SLOTS * (number + 1) // masters - 1)
        if number:
            node.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
    for port in ports:
        until(lambda port=port: len(servers.ask(port).execute_command("CLUSTER", "SLOTS")) == masters)  # type: ignore[misc]
    return ports


def add_replica(servers: Several, of: int) -> int:
    """The port of a replica of the master `of`, in sync."""
    port = servers.start("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    node, master_id = servers.ask(port), servers.ask(of).execute_command("CLUSTER", "MYID")
    node.execute_command("CLUSTER", "MEET", "127.0.0.1", of)

    def follows() -> bool:
        with contextlib.suppress(redis.ResponseError):  # it does not know that node yet
            node.execute_command("CLUSTER", "REPLICATE", master_id)
            return True
        return False

    until(follows)
    until(lambda: node.info("replication")["master_link_status"] == "up")
    return port


def move_slot(servers: Several, slot: int, source: int, target: int, others: list[int]) -> None:
    """With all of its keys, as `redis-cli --cluster reshard` does it."""
    begin_move(servers, slot, source, target)
    while keys := servers.ask(source).execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
        send_keys(servers, source, target, *keys)
    end_move(servers, slot, source, target, others)


def begin_move(servers: Several, slot: int, source: int, target: int) -> None:
    """From now on what has gone from the one is asked for at the other."""
    source_id, target_id = (servers.ask(port).execute_command("CLUSTER", "MYID") for port in (source, target))
    servers.ask(target).execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    servers.ask(source).execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)


def send_keys(servers: Several, source: int, target: int, *keys: str) -> None:
    servers.ask(source).execute_command("MIGRATE", "127.0.0.1", target, "", 0, 5000, "KEYS", *keys)


def end_move(servers: Several, slot: int, source: int, target: int, others: list[int]) -> None:
    target_id = servers.ask(target).execute_command("CLUSTER", "MYID")
    for port in (target, source, *others):
        servers.ask(port).execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def free_port() -> int:
    """Whose cluster bus, 10000 above it, is a port too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        if port < 55_000:
            return port
