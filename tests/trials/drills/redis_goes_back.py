"""A Redis that is someone else's goes back without being started again, by a replica that lagged, or under a supervisor that still runs.

Half of the people are told a count that goes on meanwhile, as in the other drills; what is counted is the same.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import redis
import trio

from sandbox.chaos_proxy import ChaosProxy, chaos_proxy
from sandbox.children import SandboxProcess, running
from sandbox.stage import free_port
from tests.bus.transport.several_redis import MASTER, Several, several, with_sentinels
from tests.redis_server import RedisServer
from tests.trials.drills.redis_of_others import Elsewhere, elsewhere
from tests.trials.drills.scene import Order, Outcome
from tests.waiting import waiting_for
from tests.world import DRAIN_SECONDS, World, agent

RELOADS = 5
PAUSE_SECONDS = 0.4
COMMAND_SECONDS = 60.0
LAG_SECONDS = 2.0
ELECTED_SECONDS = 20.0


@asynccontextmanager
async def on(server: RedisServer, directory: Path, order: Order, *options: str) -> AsyncIterator[Elsewhere]:
    """Everything up on this server, which is started with these options; people have talked."""
    try:
        server.start(*options)
        async with elsewhere(directory, order, server.url, lambda: _client(server)) as at:
            await at.talk("before", at.world.people)
            yield at
    finally:
        server.close()


def _client(server: RedisServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(server.socket), protocol=2, decode_responses=True)


def _server(directory: Path, name: str = "redis") -> RedisServer:
    (directory / name).mkdir()
    return RedisServer(directory / name)


async def debug_reload(directory: Path, order: Order) -> Outcome:
    """`DEBUG RELOAD` again and again while people talk: it saves, forgets all and loads it, as the same process."""
    server = _server(directory)
    async with on(server, directory, order, "--enable-debug-command", "local") as at:

        async def reload() -> None:
            with _client(server) as client:
                for _ in range(RELOADS):
                    await trio.to_thread.run_sync(client.execute_command, "DEBUG", "RELOAD")
                    await trio.sleep(PAUSE_SECONDS)

        await at.talk_on(reload)
        await at.talk("after", at.world.people)
        return await at.outcome("debug-reload", is_noticed=not at.went_back)


async def debug_reload_older(directory: Path, order: Order) -> Outcome:
    """`DEBUG RELOAD NOSAVE`: the same process, on the same connections, with an older state."""
    server = _server(directory)
    async with on(server, directory, order, "--enable-debug-command", "local") as at:
        await at.begin_counting()
        with _client(server) as client:
            await trio.to_thread.run_sync(client.save)
            await at.count_on()
            await at.talk("in the lost span", at.talkers)
            await trio.to_thread.run_sync(client.execute_command, "DEBUG", "RELOAD", "NOSAVE")
        at.end_counting()
        await at.each_is_answered()
        await at.talk("after", at.world.people)
        return await at.outcome("debug-reload-older", is_noticed=at.went_back)


async def lagging_replica(directory: Path, order: Order) -> Outcome:
    """A replica whose way to the master stalls is promoted by hand, under the name of the master that was killed."""
    server, replica = _server(directory), _server(directory, "replica")
    port = free_port()
    try:
        replica.start()
        async with (
            on(server, directory, order, "--port", str(port), "--bind", "127.0.0.1") as at,
            chaos_proxy("127.0.0.1", port) as way,
        ):
            await at.begin_counting()
            with _client(replica) as there:
                there.execute_command("REPLICAOF", "127.0.0.1", way.port)
                await at.world.until(lambda: there.info("replication")["master_link_status"] == "up")
                await _lag(at, way)
                server.kill()
                there.execute_command("REPLICAOF", "NO", "ONE")
            replica.socket.rename(server.socket)
            at.end_counting()
            await at.each_is_answered()
            await at.talk("after", at.world.people)
            return await at.outcome("lagging-replica", is_noticed=at.went_back)
    finally:
        replica.close()


async def _lag(at: Elsewhere, way: ChaosProxy, seconds: float = 0.0) -> None:
    """For so long, or until the talkers are answered."""
    until, number = trio.current_time() + seconds, 0
    way.stall()
    await at.count_on()
    while number == 0 or trio.current_time() < until:
        await at.talk(f"in the lost span {number}.", at.talkers)
        number += 1


async def sentinel_elects_lagging(directory: Path, order: Order) -> Outcome:
    """The master is killed while its replica is behind; the sentinels elect that one by themselves."""
    return await _elected(directory, order, "sentinel-elects-lagging", comes_back=False)


async def sentinel_master_stopped(directory: Path, order: Order) -> Outcome:
    """The master only stops for so long that the sentinels elect the replica that is behind, and goes on where it was, with those who still ask it."""
    return await _elected(directory, order, "sentinel-master-stopped", comes_back=True)


async def _elected(directory: Path, order: Order, name: str, *, comes_back: bool) -> Outcome:
    with several(directory) as servers:
        master, replica, sentinels = with_sentinels(servers)
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        url = f"redis+sentinel://{hosts}/{MASTER}"
        async with (
            chaos_proxy("127.0.0.1", master) as way,
            elsewhere(directory, order, url, lambda: servers.ask(replica)) as at,
        ):
            await at.talk("before", at.world.people)
            await at.begin_counting()
            follower = servers.ask(replica)
            # From here on it has some 8 s: then the sentinels see that it follows something else than the master, and correct it.
            follower.execute_command("REPLICAOF", "127.0.0.1", way.port)
            await at.world.until(lambda: follower.info("replication")["master_link_status"] == "up")
            await _lag(at, way, LAG_SECONDS)
            behind = _written(servers, master) - _written(servers, replica)
            pid = servers.processes[master].pid
            if comes_back:
                os.kill(pid, signal.SIGSTOP)
            else:
                servers.kill(master)
            way.reset()
            await at.world.until(lambda: follower.info("replication")["role"] == "master", ELECTED_SECONDS)
            if comes_back:
                os.kill(pid, signal.SIGCONT)
                await at.talk("at the old master", at.talkers)
                await at.world.until(
                    lambda: servers.ask(master).info("replication")["role"] == "slave", ELECTED_SECONDS
                )
            at.end_counting()
            await at.each_is_answered()
            await at.talk("after", at.world.people)
            return await at.outcome(name, is_noticed=at.went_back and behind > 0)


def _written(servers: Several, port: int) -> int:
    """How far this server's history goes, in bytes."""
    facts = servers.ask(port).info("replication")
    return int(facts["slave_repl_offset" if facts["role"] == "slave" else "master_repl_offset"])


async def restore_beside_another(directory: Path, order: Order) -> Outcome:
    """A restore while a neighbour runs is refused and changes nothing; the neighbour is not heard for a while, so that it begins, and then goes on."""
    server = _server(directory)
    (directory / "passphrase").write_text("many words", encoding="utf-8")
    async with on(server, directory, order) as at:
        world = at.world
        world.environment["HASHEE_BACKUP_PASSPHRASE_FILE"] = str(directory / "passphrase")
        backup = directory / "agent.backup"
        made = await _command(world, "backup", str(backup))
        fingerprint = made.split("signed by ")[1].split(";")[0]
        await at.talk("in the lost span", at.world.people)
        async with _neighbour(at) as neighbour:
            assert world.up is not None
            await world.up.end(signal.SIGTERM, DRAIN_SECONDS)
            restore = ("restore", str(backup), "--fingerprint", fingerprint, "--over-newer-store")
            refused = await _command(world, *restore)
            await at.each_is_answered()
            frozen = [neighbour.pid, *_children(neighbour.pid)]
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            try:
                done = await _command(world, *restore)
            finally:
                for pid in frozen:
                    os.kill(pid, signal.SIGCONT)
            async with agent(world):
                await world.until_ready()
                await at.each_is_answered()
                await at.talk("after", world.people)
                is_said = "is connected to this Redis" in refused and "is back as it was" in done
                return await at.outcome("restore-beside-another", is_noticed=is_said)


@asynccontextmanager
async def _neighbour(at: Elsewhere) -> AsyncIterator[SandboxProcess]:
    """A second supervisor with workers of its own, ready."""
    directory = at.world.directory
    environment = {
        **at.world.environment,
        "HASHEE_STATE_DIR": str(directory / "other"),
        "HASHEE_HTTP_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", "supervisor", "supervisor"]
    log = directory / "other.log"
    async with running("other", command, log_path=log, environment=environment, stop_seconds=DRAIN_SECONDS) as child:
        await at.world.until(lambda: "waiting for messages" in log.read_text(encoding="utf-8"))
        yield child


def _children(pid: int) -> list[int]:
    found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return [*found, *(further for one in found for further in _children(one))]


async def _command(world: World, *arguments: str) -> str:
    """What a command of the agent's says, whether it went well or not."""
    with waiting_for(f"`{' '.join(arguments)}` to end", COMMAND_SECONDS):
        done = await trio.run_process(
            [sys.executable, "-m", "supervisor", *arguments],
            env=world.environment,
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    return (done.stdout + done.stderr).decode()


GOES_BACK: dict[str, Callable[[Path, Order], Awaitable[Outcome]]] = {
    "debug-reload": debug_reload,
    "debug-reload-older": debug_reload_older,
    "lagging-replica": lagging_replica,
    "sentinel-elects-lagging": sentinel_elects_lagging,
    "sentinel-master-stopped": sentinel_master_stopped,
    "restore-beside-another": restore_beside_another,
}
