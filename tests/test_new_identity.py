"""An agent that gets new identity keys on its store can be written to at once: by newcomers, and by who accepts the new keys."""

import base64
import os
from pathlib import Path

import pytest
import trio

from sandbox.api import RelayApi
from sandbox.children import relay_process
from sandbox.people import Person, connected, make_person
from tests.commands import run_command
from tests.waiting import waiting_for
from tests.world import World, agent, environment_of

WAIT_SECONDS = 20.0


async def answered(person: Person, conversation: str, text: str) -> None:
    await person.say(conversation, text)
    with waiting_for(f"the echo of {text!r} to be heard", WAIT_SECONDS):
        await person.transcript.until(lambda: f"echo: {text}" in person.transcript.heard(conversation))


def new_identity(w: World) -> None:
    for name in ("HASHEE_X25519_PRIVATE_BASE64", "HASHEE_ED25519_PRIVATE_BASE64"):
        w.environment[name] = base64.b64encode(os.urandom(32)).decode()


def status_of(w: World) -> str:
    done = run_command("status", environ=w.environment)
    done.check_returncode()
    return done.stdout


@pytest.mark.long
async def test_new_identity_keys_on_a_store_rotate_the_prekeys_by_themselves(tmp_path: Path) -> None:
    async with relay_process(log_path=tmp_path / "relay.log") as (_, url), RelayApi(url) as api:
        account = await api.add_agent("Echo")
        w = World(tmp_path, url, api, environment_of(tmp_path, url, account.agent_id, account.token), [])
        ada, ben = [await make_person(url, name) for name in ("Ada", "Ben")]
        async with connected(ada, ben):
            async with agent(w):
                with_ada = await ada.meet(account.agent_id)
                await w.until_ready()
                await answered(ada, with_ada, "before")
                assert "new keys since" not in await trio.to_thread.run_sync(status_of, w)
            new_identity(w)
            async with agent(w):
                await w.until_ready()
                with_ben = await ben.meet(account.agent_id)
                await answered(ben, with_ben, "hello")
                ada.accept_keys(account.agent_id)
                await answered(ada, with_ada, "after")
                assert ada.transcript.heard(with_ada) == ["echo: before", "echo: after"]
                assert "new keys since" in await trio.to_thread.run_sync(status_of, w)
                assert w.log().count("the keys are others than before") == 1
            async with agent(w):
                await w.until_ready()
                await answered(ada, with_ada, "later")
                assert w.log().count("the keys are others than before") == 1
