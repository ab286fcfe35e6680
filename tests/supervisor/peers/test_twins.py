"""Two agents of one identity on two stores are found out, over a real relay and real Redis; everything that only looks like it is not."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from bus.records.keys import Keys
from bus.records.sealing import StoreKeys
from bus.steps.prekey_wish import PrekeyWish
from bus.steps.vault import Vault
from bus.transport.client import RedisClient, open_redis
from crypto.identity import IdentityKeys, LocalDevice
from sandbox.api import AgentAccount, RelayApi
from sandbox.children import relay_process
from supervisor.observe.metrics import Metrics
from supervisor.peers.prekeys import OwnPrekeys
from supervisor.peers.twins import FOUND, Sightings, TwinTimes, TwinWatch
from supervisor.relay.rest import Rest, RestFailed, open_rest
from supervisor.settings.secrets import Secret
from tests.redis_server import redis_server
from tests.waiting import said_of, waiting_for

WAIT_SECONDS = 60.0
QUICK = TwinTimes(look=0.05, look_closer=0.05, closer_for=1.0, gone=1.0)
LOOKS = 12
"""So many after which a false alarm would have come: two would do."""
IDENTITY = IdentityKeys.generate(os.urandom)


class Agent:
    """What a supervisor has to do with its prekeys, on a store."""

    def __init__(self, client: RedisClient, rest: Rest, agent_id: str, times: TwinTimes = QUICK) -> None:
        self.client = client
        self.rest, self.looks, self._look = rest, 0, rest.agent_keys
        rest.agent_keys = self._counted  # type: ignore[method-assign]
        self.keys = Keys(agent_id)
        device = LocalDevice(agent_id, agent_id, IDENTITY)
        vault = Vault(client, self.keys, StoreKeys.derive(bytes(32)).state)
        self.prekeys = OwnPrekeys(
            vault,
            self.keys.signed_prekeys,
            self.keys.one_time_prekeys,
            device=device,
            rest=rest,
            on_kept=lambda _: None,
            epoch=lambda: 0,
        )
        self.metrics = Metrics()
        self.speaks = True
        self.watch = TwinWatch(
            self.prekeys, rest, device=device, metrics=self.metrics, speaks=lambda: self.speaks, times=times
        )

    async def _counted(self, agent_id: str) -> dict[str, object]:
        self.looks += 1
        return await self._look(agent_id)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.prekeys.keep, self.metrics)
            nursery.start_soon(self.watch.run)

    @property
    def sees_a_twin(self) -> bool:
        return not self.watch.check().ok

    async def unused(self) -> int:
        found = await self.client.command("HLEN", self.keys.one_time_prekeys)
        assert isinstance(found, int)
        return found


class Scene:
    """A relay with one agent's account, and as many stores as are wanted."""

    def __init__(self, folder: Path, url: str, account: AgentAccount, open_things: AsyncExitStack) -> None:
        self._folder = folder
        self._url = url
        self._account = account
        self._open = open_things
        self._stores: dict[str, str] = {}

    async def agent(self, store: str) -> Agent:
        """A process on this store; several may be on one."""
        if store not in self._stores:
            (folder := self._folder / store).mkdir()
            self._stores[store] = self._open.enter_context(redis_server(folder))
        client = await self._open.enter_async_context(open_redis(self._stores[store]))
        token = Secret(self._account.token)
        rest = await self._open.enter_async_context(open_rest(self._url, self._account.agent_id, token))
        return Agent(client, rest, self._account.agent_id)


@asynccontextmanager
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with (
        relay_process(log_path=tmp_path / "relay.log") as (_, url),
        RelayApi(url) as api,
        AsyncExitStack() as open_things,
    ):
        yield Scene(tmp_path, url, await api.add_agent("Echo"), open_things)


@asynccontextmanager
async def running(*agents: Agent) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for one in agents:
            nursery.start_soon(one.run)
        yield
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with waiting_for(said_of(condition), WAIT_SECONDS):
        while not condition():
            await trio.sleep(0.01)


async def several_looks(*agents: Agent) -> None:
    aims = [one.looks + LOOKS for one in agents]
    await until(lambda: all(one.looks >= aim for one, aim in zip(agents, aims, strict=True)))


async def test_two_stores_with_one_identity_are_both_told_and_well_again_when_one_is_gone(tmp_path: Path) -> None:
    with capture_logs() as said:
        async with scene(tmp_path) as s:
            here, there = await s.agent("here"), await s.agent("there")
            async with running(here):
                await until(here.prekeys.published.is_set)
                async with running(there):
                    await until(lambda: here.sees_a_twin and there.sees_a_twin)
                    assert here.watch.check().detail == FOUND
                    assert here.metrics.registry.get_sample_value("hashee_twin") == 1
                    await several_looks(here, there)
                assert here.sees_a_twin
                await until(lambda: not here.sees_a_twin)
                assert here.metrics.registry.get_sample_value("hashee_twin") == 0
    twins = [line for line in said if line["event"] == "identity: a twin"]
    assert [line["log_level"] for line in twins] == ["error", "error"], "once by each of the two"
    assert "identity: the twin is gone" in [line["event"] for line in said]


async def test_several_supervisors_on_one_store_are_no_twins_also_when_they_rotate(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        agents = [await s.agent("one store") for _ in range(3)]
        async with running(*agents):
            await several_looks(*agents)
            await rotated(agents[0])
            await several_looks(*agents)
            await rotated(agents[1])
            await several_looks(*agents)
            assert not any(one.sees_a_twin for one in agents)


async def rotated(agent: Agent) -> None:
    """`keys rotate-prekeys`: one of those that run makes a new signed prekey, and the others still show the former one."""
    await PrekeyWish(agent.client, agent.keys).ask()
    await agent.prekeys.publish()


@pytest.mark.parametrize("is_lost", [False, True], ids=["restored", "lost"])
async def test_a_key_of_ours_that_the_store_has_forgotten_is_replaced_and_is_no_twin(
    tmp_path: Path, is_lost: bool
) -> None:
    async with scene(tmp_path) as s:
        before, now = await s.agent("before"), await s.agent("now")
        async with running(now):
            await several_looks(now)
            await before.prekeys.publish()  # what the relay shows now, this store does not know
            if is_lost:
                await now.client.command("FLUSHALL")
            await several_looks(now)
            assert not now.sees_a_twin
            assert await now.prekeys.recognises(await now.watch.shown())


async def test_a_look_leaves_no_private_half_of_what_was_handed_out_to_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        agent = await s.agent("store")
        await agent.prekeys.publish()
        other = await s.agent("another store")
        await other.prekeys.publish()
        await agent.prekeys.publish()
        for left in (99, 98, 97):
            shown = await agent.watch.shown()  # by now those of the other store, under ids that ours has too
            await agent.prekeys.recognises(shown)
            await other.prekeys.recognises(shown)
            assert (await agent.unused(), await other.unused()) == (100, left)


async def test_only_the_one_that_speaks_looks(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        speaks, silent = await s.agent("store"), await s.agent("store")
        silent.speaks = False
        async with running(speaks, silent):
            await several_looks(speaks)
            assert silent.looks == 0


async def test_a_relay_that_shows_what_we_have_not_signed_is_named_and_no_twin(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s:
        agent = await s.agent("store")

        async def shown(agent_id: str) -> dict[str, object]:
            agent.looks += 1
            bundle = await Rest.agent_keys(agent.rest, agent_id)
            signed = bundle["signed_prekey"]
            assert isinstance(signed, dict)
            return bundle | {"signed_prekey": signed | {"id": signed["id"] + 1}}

        agent.rest.agent_keys = shown  # type: ignore[method-assign]
        with capture_logs() as said:
            async with running(agent):
                await several_looks(agent)
                assert not agent.sees_a_twin
    [line] = [line for line in said if line["event"].startswith("identity:")]
    assert (line["log_level"], line["reason"]) == ("error", "bad_signature")


class Refusing(Rest):
    """A relay that shows nobody their own keys."""

    def __init__(self) -> None:
        pass

    async def agent_keys(self, agent_id: str) -> dict[str, object]:
        raise RestFailed(f"keys of {agent_id}", 403, "FORBIDDEN")


class Published(OwnPrekeys):
    """Done with what they have to do."""

    def __init__(self) -> None:
        self.published = trio.Event()
        self.published.set()


async def test_a_relay_that_does_not_show_our_keys_is_said_once_an_hour(autojump_clock: trio.testing.MockClock) -> None:
    device = LocalDevice("a", "a", IDENTITY)
    watch = TwinWatch(Published(), Refusing(), device=device, metrics=Metrics(), speaks=lambda: True)
    with capture_logs() as said:
        with trio.move_on_after(3 * 3600 + 600):
            await watch.run()
        assert watch.check().ok
    assert [line["log_level"] for line in said] == ["warning"] * 4


@pytest.mark.pure
def test_one_sighting_proves_nothing_a_second_one_after_our_answer_does() -> None:
    times = TwinTimes()
    seen = Sightings(times)
    assert seen.wait_seconds(0) == times.look
    assert not seen.another(0)
    assert not seen.another(60), "ours could not be published: this may be the same one"
    assert seen.wait_seconds(60) == times.look_closer
    seen.published_again()
    assert seen.another(120)
    assert seen.is_twin(120)
    assert seen.is_twin(120 + times.gone - 1)
    assert not seen.is_twin(120 + times.gone)
    assert seen.wait_seconds(120 + times.closer_for) == times.look
    assert seen.another(120 + times.remembered - 1), "known from before"
    assert not Sightings(times).another(0)


@pytest.mark.pure
def test_after_a_day_without_a_sighting_the_next_is_a_first_one() -> None:
    times = TwinTimes()
    seen = Sightings(times)
    seen.another(0)
    seen.published_again()
    assert not seen.another(times.remembered)
