"""A connected supervisor's way to the relay stops carrying and does not end; beside it is another that is connected, or one that stands by.

Everything of the one goes through a proxy that stalls: nothing arrives and nothing closes. How long each conversation waited is measured,
and that a way that is only slow costs nobody the connection.
"""

import base64
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

import redis
import trio

from sandbox.api import RelayApi
from sandbox.chaos_proxy import ChaosProxy, chaos_proxy
from sandbox.children import relay_process, running
from sandbox.people import Person, connected, make_person
from sandbox.stage import free_port
from tests.http_page import page_at
from tests.redis_server import running_redis
from tests.trials.drills.redis_of_others import Elsewhere
from tests.trials.drills.scene import Order, Outcome, relay_state
from tests.world import DRAIN_SECONDS, World, agent, environment_of

STALLED_SECONDS = 45.0
SLOW_SECONDS = 30.0
SLOW_WAY_SECONDS = 1.5
"""Each way: a ping is answered after three."""

PAUSE_SECONDS = 0.3
MOST_SECONDS = 10.0
"""A conversation that waited longer counts as unanswered."""


class Beside(Elsewhere):
    """`behind`: the supervisor of the world, whose way to the relay is `proxy`; another one is beside it."""

    proxy: ChaosProxy
    other_page: str

    async def talk_for(self, seconds: float) -> None:
        """Everybody goes on talking: the next message when the last was answered."""
        until = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for person in self.world.people:
                nursery.start_soon(self._talk_until, person, until)

    async def _talk_until(self, person: Person, until: float) -> None:
        conversation, number = self.world.conversations[person], 0
        while trio.current_time() < until:
            began, text = trio.current_time(), f"at {trio.current_time():.3f}, {number}"
            await person.say(conversation, text)
            with trio.move_on_after(60):
                await person.transcript.until(partial(self.has_heard, person, text))
            waited = trio.current_time() - began
            self.slowest_seconds = max(self.slowest_seconds, waited)
            if waited > MOST_SECONDS:
                self.unanswered.add(person)
            number += 1
            await trio.sleep(PAUSE_SECONDS)

    def connections(self) -> list[int]:
        """How often each supervisor has been connected so far."""
        return [self._connections(self.world.http_url), self._connections(self.other_page)]

    @staticmethod
    def _connections(page: str) -> int:
        lines = page_at(page + "/metrics", seconds=5)[1].splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("hashee_reconnect_total"))


async def half_open(directory: Path, order: Order) -> Outcome:
    """Both are connected."""
    return await _stalled(directory, order, "half-open", most_connections=3)


async def half_open_standby(directory: Path, order: Order) -> Outcome:
    """One is connected, the other stands by."""
    return await _stalled(directory, order, "half-open-standby", most_connections=1)


async def slow_way(directory: Path, order: Order) -> Outcome:
    """Both are connected, and the way of one is slow by seconds: nobody hangs up."""
    async with beside(directory, order, most_connections=3) as at:
        await at.talk("before", at.world.people)
        before = await trio.to_thread.run_sync(at.connections)
        at.proxy.delay(SLOW_WAY_SECONDS)
        await at.talk_for(SLOW_SECONDS)
        after = await trio.to_thread.run_sync(at.connections)
        at.proxy.delay(0)
        await at.talk("after", at.world.people)
        return await at.outcome("slow-way", is_noticed=before == after)


async def _stalled(directory: Path, order: Order, name: str, *, most_connections: int) -> Outcome:
    async with beside(directory, order, most_connections=most_connections) as at:
        await at.talk("before", at.world.people)
        at.proxy.stall()
        await at.talk_for(STALLED_SECONDS)
        at.proxy.reset()
        at.proxy.resume()
        await at.talk_for(5.0)
        return await at.outcome(name, is_noticed=True)


@asynccontextmanager
async def beside(directory: Path, order: Order, *, most_connections: int) -> AsyncIterator[Beside]:
    """Everything up; the world's own supervisor was connected first."""
    (directory / "redis").mkdir()
    with running_redis(directory / "redis") as server:
        async with (
            relay_process("--state", str(relay_state(directory)), log_path=directory / "relay.log") as (_, url),
            RelayApi(url) as api,
            chaos_proxy("127.0.0.1", int(url.rpartition(":")[2])) as proxy,
        ):
            account = await api.add_agent("Echo")
            environment = environment_of(
                directory,
                f"http://127.0.0.1:{proxy.port}",
                account.agent_id,
                account.token,
                HASHEE_REDIS_URL=server.url,
                HASHEE_STORE_KEY=base64.b64encode(os.urandom(32)).decode(),
                HASHEE_REDIS_TRUST="persistence",
                HASHEE_MAX_CONNECTIONS=str(most_connections),
            )
            persons = [await make_person(url, f"P{number}") for number in range(order.people)]
            made = World(directory, url, api, environment, persons)
            async with agent(made):
                for person in persons:
                    made.conversations[person] = await person.meet(account.agent_id)
                await made.until_ready()
                other = {
                    **environment,
                    "HASHEE_BASE_URL": url,
                    "HASHEE_STATE_DIR": str(directory / "other"),
                    "HASHEE_HTTP_PORT": str(free_port()),
                }
                async with running(
                    "other",
                    [sys.executable, "-m", "supervisor", "supervisor"],
                    log_path=directory / "other.log",
                    environment=other,
                    stop_seconds=DRAIN_SECONDS,
                ):
                    at = Beside(made, order)
                    at.ask = lambda: redis.Redis(unix_socket_path=str(server.socket), protocol=2, decode_responses=True)
                    at.proxy = proxy
                    at.other_page = f"http://127.0.0.1:{other['HASHEE_HTTP_PORT']}"
                    await made.until(lambda: page_at(at.other_page + "/readyz")[0] == HTTPStatus.OK)
                    async with connected(*persons):
                        yield at
