"""A running agent with a tap before its Redis, and people who begin conversations with it; who is killed is started again at once."""

import base64
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import trio

from sandbox.group_people import GroupPerson, make_group_person
from sandbox.people import connected
from tests.redis_server import RedisServer, running_redis
from tests.trials.effects.tap import Point, Strike, Tap, tap_of
from tests.waiting import said_of, waiting_for
from tests.world import World, world

QUICK_UP: Final = (sys.executable, str(Path(__file__).with_name("quick_up.py")))
SECONDS: Final = 60.0

Victim: TypeAlias = Literal["worker", "supervisor", "redis"]
VICTIMS: Final[tuple[Victim, ...]] = get_args(Victim)


@dataclass
class Talking:
    """One conversation with an example. In a direct one `ben` has no part."""

    world: World
    conversation: str
    ada: GroupPerson
    ben: GroupPerson | None = None
    redis_socket: Path = Path()

    @property
    def heard(self) -> list[str]:
        return self.ada.transcript.heard(self.conversation)

    @property
    def card_id(self) -> str:
        """The latest card's."""
        return list(self.ada.cards)[-1]

    async def say(self, text: str) -> None:
        await self.ada.say(self.conversation, text)

    async def hear(self, count: int) -> None:
        """Until so many words have been heard."""
        await self.until(lambda: len(self.heard) >= count)

    async def until(self, condition: Callable[[], bool]) -> None:
        with waiting_for(said_of(condition), SECONDS, lambda: self.heard):
            await self.ada.transcript.until(condition)


class Scene:
    """The agent, its Redis and the tap."""

    def __init__(self, made: World, redis: RedisServer, tap: Tap) -> None:
        self.world, self.redis, self.tap = made, redis, tap

    @asynccontextmanager
    async def talking(self, *, is_group: bool = False) -> AsyncIterator[Talking]:
        """A new conversation of new people."""
        w = self.world
        ada = await make_group_person(w.relay_url, "Ada")
        agent_id = w.environment["HASHEE_AGENT_ID"]
        if not is_group:
            conversation = await ada.meet(agent_id)
            async with connected(ada):
                yield Talking(w, conversation, ada, redis_socket=self.redis.socket)
            return
        ben = await make_group_person(w.relay_url, "Ben")
        async with connected(ada, ben):
            group = await ada.make_group(agent_id, ben)
            await ada.rotate_key(group, [ada.account.user_id, ben.account.user_id, agent_id])
            await ben.fetch_key(group)
            yield Talking(w, group.conversation_id, ada, ben, redis_socket=self.redis.socket)

    def strike(self, victim: Victim, point: Point) -> Strike:
        """Kills `victim` at a point."""
        return Strike(point, {"worker": self._worker, "supervisor": self._supervisor, "redis": self._redis}[victim])

    async def _worker(self, asker: int) -> bool:
        """The one that asks, else the one that asked last."""
        pids = self.world.worker_pids()
        known = [pid for pid in (*reversed(self.tap.askers), *pids) if pid in pids]
        if known:  # else they are being started again
            await self.world.kill(known[0])
        return known[:1] == [asker]

    async def _supervisor(self, asker: int) -> bool:
        """With its workers, which die with it."""
        workers = self.world.worker_pids()
        supervisor = self.world.supervisor_pid()
        await self.world.kill(supervisor)
        await self.world.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        return asker in (supervisor, *workers)

    async def _redis(self, _asker: int) -> bool:
        self.redis.kill()
        self.redis.start()
        return True


@asynccontextmanager
async def scene(directory: Path, handler: str, **settings: str) -> AsyncIterator[Scene]:
    """Everything up and ready. Strikes are off, since our kills look like crashes."""
    (directory / "redis").mkdir()
    with running_redis(directory / "redis") as server, tempfile.TemporaryDirectory(prefix="tap-") as place:
        socket = Path(place) / "tap.sock"
        async with (
            tap_of(server.socket, socket) as tap,
            world(
                directory,
                people=(),
                program=QUICK_UP,
                HASHEE_REDIS_URL=f"unix://{socket}",
                HASHEE_STORE_KEY=base64.b64encode(os.urandom(32)).decode(),
                HASHEE_STRIKES="off",
                HASHEE_HANDLER=handler,
                **settings,
            ) as made,
        ):
            yield Scene(made, server, tap)


async def nap() -> None:
    """For conditions that nobody tells of."""
    await trio.sleep(0.02)
