"""An agent whose Redis was lost: the relay still hands out prekeys of the lost store, and newcomers are answered all the same."""

import shutil
from pathlib import Path

import pytest
import trio

from sandbox.api import RelayApi
from sandbox.children import relay_process
from sandbox.people import connected, make_person
from tests.test_new_identity import answered
from tests.world import World, agent, environment_of


@pytest.mark.long
async def test_newcomers_are_answered_after_redis_was_lost(tmp_path: Path) -> None:
    async with relay_process(log_path=tmp_path / "relay.log") as (_, url), RelayApi(url) as api:
        account = await api.add_agent("Echo")
        w = World(tmp_path, url, api, environment_of(tmp_path, url, account.agent_id, account.token), [])
        ada, *newcomers = [await make_person(url, name) for name in ("Ada", "Ben", "Cleo", "Dora")]
        async with connected(ada, *newcomers):
            async with agent(w):
                with_ada = await ada.meet(account.agent_id)
                await w.until_ready()
                await answered(ada, with_ada, "before")
            await trio.to_thread.run_sync(shutil.rmtree, w.state_dir / "redis")
            (w.state_dir / "grants.head").unlink()
            async with agent(w):
                await w.until_ready()
                for person in newcomers:
                    await answered(person, await person.meet(account.agent_id), "hello")
                    assert not person.unreadable
