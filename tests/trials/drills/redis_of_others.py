"""A Redis that is someone else's: it refuses and is mended, its master dies under sentinels, its slot moves and its node dies in a cluster.

Nobody brings anything back older here; what is counted is the same, and for how long nobody had an answer.
"""

import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import cast

import redis
import trio

from bus.transport.lua import Scripts, commands_of
from sandbox.people import Person
from tests.bus.transport.several_redis import (
    MASTER,
    SLOTS,
    Several,
    add_replica,
    move_slot,
    several,
    until,
    with_cluster,
    with_sentinels,
)
from tests.http_page import page_at
from tests.redis_operator import RedisOperator
from tests.redis_server import running_redis
from tests.trials.drills.handlers import COUNT_WHILE
from tests.trials.drills.scene import Order, Outcome, Scene, relay_state
from tests.world import world

RED_SECONDS = 5.0
MENDED_SECONDS = 2.0
STAYS_SECONDS = 6.0
PAUSE_SECONDS = 0.1
TAKEN_SECONDS = 0.6
COMMANDS = frozenset().union(*(commands_of(script) for script in Scripts.load().all()))
MOST_SECONDS = 60.0
MOST_UNANSWERED = 20
"""Of one person, who waits then: what is measured is how long an answer takes, not how long a queue may become on a slow machine."""


class Elsewhere(Scene):
    """On a Redis that is given. `ask`: a client of the server that takes writes now."""

    ask: Callable[[], redis.Redis]

    async def _settled(self) -> None:
        """Until everybody has heard an answer to each of their messages; what is answered twice comes late."""
        with trio.move_on_after(MOST_SECONDS):
            for person, conversation in self.world.conversations.items():
                lines = [line for line in person.transcript.lines(conversation) if line.direction == "out"]
                await person.transcript.until(
                    lambda: {f"echo: {line.text}" for line in lines} <= set(person.transcript.heard(conversation))  # noqa: B023 - awaited here
                )
        await trio.sleep(3)

    def _put_aside(self) -> set[str]:
        with closing(self.ask()) as client:
            return {str(one) for one in cast("list[str]", client.zrange(self.world.keys.quarantine, 0, -1))}

    def get(self, path: str) -> tuple[int, str]:
        return page_at(self.world.http_url + path)

    async def talk_on(self, deed: Callable[[], Awaitable[None]]) -> None:
        """Everybody goes on talking while it is done, and until each has an answer after it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._chatter)
            await deed()
            await self.each_is_answered()
            nursery.cancel_scope.cancel()

    def _unanswered(self, person: Person) -> int:
        conversation = self.world.conversations[person]
        said = sum(line.direction == "out" for line in person.transcript.lines(conversation))
        return said - len(person.transcript.heard(conversation))

    async def _chatter(self) -> None:
        number = 0
        while True:
            for person in self.world.people:
                if self._unanswered(person) < MOST_UNANSWERED:
                    with trio.CancelScope(shield=True):  # said whole, or not at all
                        await person.say(self.world.conversations[person], f"under way {number}")
            number += 1
            await trio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def elsewhere(
    directory: Path, order: Order, url: str, ask: Callable[[], redis.Redis]
) -> AsyncIterator[Elsewhere]:
    """Everything up and ready."""
    settings = {
        "HASHEE_HANDLER": "tests.trials.drills.handlers:agent",
        "HASHEE_REDIS_URL": url,
        "HASHEE_STORE_KEY": base64.b64encode(os.urandom(32)).decode(),
        "HASHEE_REDIS_TRUST": "persistence",
        COUNT_WHILE: str(directory / "count"),
    }
    people = [f"P{number}" for number in range(order.people)]
    async with world(
        directory, people=people, relay_options=("--state", str(relay_state(directory))), **settings
    ) as made:
        scene = Elsewhere(made, order)
        scene.ask = ask
        yield scene


async def redis_refuses(directory: Path, order: Order) -> Outcome:
    """Each refusal in turn: red with its reason in 5 s, alive and not restarted, and answering 2 s after it was mended."""
    (directory / "redis").mkdir()
    with running_redis(directory / "redis") as server:
        by = Operator(server)
        async with elsewhere(directory, order, by.url, by.ask) as at:
            await at.talk("before", at.world.people)
            unnoticed = [name for name in FAULTS if not await _is_refused_well(at, by, name)]
            if unnoticed:
                print("not as it should be:", ", ".join(unnoticed))
            await at.talk("after", at.world.people)
            return await at.outcome("redis-refuses", is_noticed=not unnoticed)


async def rights_taken_away(directory: Path, order: Order) -> Outcome:
    """Each command that our scripts run is taken away while people talk, and given back a moment later."""
    (directory / "redis").mkdir()
    with running_redis(directory / "redis") as server:
        by = Operator(server)
        async with elsewhere(directory, order, by.url, by.ask) as at:
            await at.talk("before", at.world.people)

            async def take_away() -> None:
                for command in sorted(COMMANDS):
                    by.acl(f"-{command}")
                    await trio.sleep(TAKEN_SECONDS)
                    by.acl(f"+{command}")
                    await trio.sleep(PAUSE_SECONDS)

            await at.talk_on(take_away)
            await at.talk("after", at.world.people)
            return await at.outcome("rights-taken-away", is_noticed=True)


class Operator(RedisOperator):
    """In the words of the drills."""

    def ask(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.server.socket), protocol=2, decode_responses=True)

    def change_password_and_log_out(self) -> None:
        self.change_password()
        self.log_out()

    def set(self, name: str, value: str) -> None:
        self.admin.config_set(name, value)


Deed = Callable[[Operator], object]
FAULTS: dict[str, tuple[Deed, Deed, str]] = {
    "a changed password": (Operator.change_password_and_log_out, Operator.allow, "not_authenticated"),
    "NOPERM": (lambda by: by.acl("-evalsha"), Operator.allow, "forbidden"),
    "READONLY": (
        lambda by: by.admin.execute_command("REPLICAOF", "127.0.0.1", "1"),
        lambda by: by.admin.execute_command("REPLICAOF", "NO", "ONE"),
        "read_only",
    ),
    "OOM": (lambda by: by.set("maxmemory", "1"), lambda by: by.set("maxmemory", "0"), "full"),
    "MISCONF": (Operator.cannot_save, Operator.can_save, "cannot_persist"),
    "NOREPLICAS": (
        lambda by: by.set("min-replicas-to-write", "1"),
        lambda by: by.set("min-replicas-to-write", "0"),
        "no_replicas",
    ),
    "it evicts": (
        lambda by: by.set("maxmemory-policy", "allkeys-lru"),
        lambda by: by.set("maxmemory-policy", "noeviction"),
        "noeviction",
    ),
}


async def _is_refused_well(at: Elsewhere, by: Operator, name: str) -> bool:
    spoil, mend, words = FAULTS[name]
    person, conversation = at.world.people[0], at.world.conversations[at.world.people[0]]
    processes = at.world.supervisor_pid(), at.world.worker_pids()
    spoil(by)
    began, red_after, is_live = trio.current_time(), float("inf"), True
    await person.say(conversation, name)
    while trio.current_time() - began < STAYS_SECONDS:
        status, said = await trio.to_thread.run_sync(at.get, "/readyz")
        is_live = is_live and (await trio.to_thread.run_sync(at.get, "/healthz"))[0] == 200
        if status == 503 and any(words in one["detail"] for one in json.loads(said)["checks"] if not one["ok"]):
            red_after = min(red_after, trio.current_time() - began)
        await trio.sleep(PAUSE_SECONDS)
    mend(by)
    mended = trio.current_time()
    with trio.move_on_after(MOST_SECONDS):
        await person.transcript.until(lambda: at.has_heard(person, name))
    answered_after = trio.current_time() - mended
    with trio.move_on_after(MOST_SECONDS):
        while (await trio.to_thread.run_sync(at.get, "/readyz"))[0] != 200:
            await trio.sleep(PAUSE_SECONDS)
    is_same = processes == (at.world.supervisor_pid(), at.world.worker_pids())
    print(
        f"  {name}: red after {red_after:.1f} s, live {is_live}, answered {answered_after:.1f} s after, same {is_same}"
    )
    return red_after <= RED_SECONDS and is_live and is_same and answered_after <= MENDED_SECONDS


async def sentinel_failover(directory: Path, order: Order) -> Outcome:
    """The master is killed under traffic; the sentinels make its replica the master."""
    with several(directory) as servers:
        options = ("--min-replicas-to-write", "0")
        master, replica, sentinels = with_sentinels(servers, *options)
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        async with elsewhere(
            directory, order, f"redis+sentinel://{hosts}/{MASTER}", lambda: servers.ask(replica)
        ) as at:
            await at.talk("before", at.world.people)

            async def die() -> None:
                await trio.sleep(1)
                servers.kill(master)

            await at.talk_on(die)
            await at.talk("after", at.world.people)
            return await at.outcome("sentinel-failover", is_noticed=True)


async def cluster_slot_moves(directory: Path, order: Order) -> Outcome:
    """Three nodes; the slot of the agent moves to another under traffic, with all its keys."""
    return await _in_a_cluster(directory, order, "cluster-slot-moves", dies=False)


async def cluster_node_dies(directory: Path, order: Order) -> Outcome:
    """Three nodes; the one with the agent's slot is killed under traffic, and its replica takes over."""
    return await _in_a_cluster(directory, order, "cluster-node-dies", dies=True)


async def _in_a_cluster(directory: Path, order: Order, name: str, *, dies: bool) -> Outcome:
    with several(directory) as servers:
        ports = with_cluster(servers)
        seeds = ",".join(f"127.0.0.1:{port}" for port in ports)
        holder = [ports[0]]
        async with elsewhere(directory, order, f"redis+cluster://{seeds}", lambda: servers.ask(holder[0])) as at:
            slot = servers.ask(ports[0]).execute_command("CLUSTER", "KEYSLOT", at.world.keys.jobs)
            owner = ports[slot * len(ports) // SLOTS]
            target, other = (port for port in ports if port != owner)
            await at.talk("before", at.world.people)
            if dies:
                target = await trio.to_thread.run_sync(add_replica, servers, owner)
                await trio.to_thread.run_sync(_until_known, servers, ports)

            async def change() -> None:
                await trio.sleep(1)
                if dies:
                    servers.kill(owner)
                else:
                    await trio.to_thread.run_sync(move_slot, servers, slot, owner, target, [other])
                holder[0] = target

            await at.talk_on(change)
            await at.talk("after", at.world.people)
            return await at.outcome(name, is_noticed=True)


def _until_known(servers: Several, ports: list[int]) -> None:
    for port in ports:
        until(lambda port=port: len(servers.ask(port).execute_command("CLUSTER", "NODES").splitlines()) == 4)  # type: ignore[misc]
