"""The agent's side, written from the page, serves the people of the product and those of the second endpoint, over the sandbox relay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
import trio

from sandbox.api import RelayApi
from sandbox.children import relay_process
from sandbox.people import Person, connected, make_person
from tests.second_endpoint.agent import Agent
from tests.second_endpoint.client import signed_up
from tests.second_endpoint.device import Device, system
from tests.waiting import waiting_for

WAIT_SECONDS = 30.0


@dataclass
class Serving:
    """An agent of the second endpoint with a relay of its own."""

    url: str
    api: RelayApi
    agent: Agent


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    with waiting_for("the scene and what the test does in it", 2 * WAIT_SECONDS):
        async with (
            relay_process(log_path=tmp_path / "relay.log") as (_, url),
            RelayApi(url) as api,
            httpx2.AsyncClient(base_url=url) as http,
        ):
            account = await api.add_agent("Second")
            agent = Agent(url, http, Device(account.agent_id, account.agent_id), account.token)
            await agent.publish()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(agent.run)
                nursery.start_soon(agent.serve)
                await agent.until(lambda: agent.connections > 0)
                yield Serving(url, api, agent)
                nursery.cancel_scope.cancel()


async def hears(person: Person, conversation_id: str, texts: list[str]) -> None:
    def has() -> bool:
        return len(person.transcript.heard(conversation_id)) >= len(texts)

    with waiting_for(f"{texts} to be heard", WAIT_SECONDS):
        await person.transcript.until(has)
    assert person.transcript.heard(conversation_id) == texts
    assert not person.unreadable


async def test_the_product_s_people_are_answered_on_every_device_also_by_a_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        ada = await make_person(s.url, "Ada")
        conversation = await ada.meet(s.agent.device.owner_id)
        async with connected(ada):
            for text in ("one", "two", "/stream it grows word by word"):
                await ada.say(conversation, text)
            await hears(ada, conversation, ["echo: one", "echo: two", "echo: it grows word by word"])
            assert (ada.counts["streams"], ada.counts["deltas"]) == (1, 6)
            phone = ada.other_device()
            await phone.register()
            phone.join(conversation, s.agent.device.owner_id)
            async with connected(phone):
                await phone.say(conversation, "from the second device")
                with waiting_for("both devices to hear the echo", WAIT_SECONDS):
                    for one in (ada, phone):
                        transcript = one.transcript
                        await transcript.until(partial(_ends_with, one, conversation, "echo: from the second device"))
        assert s.agent.unreadable == []
        assert s.agent.refused == []


def _ends_with(person: Person, conversation_id: str, text: str) -> bool:
    return person.transcript.heard(conversation_id)[-1:] == [text]


async def test_what_was_said_while_the_agent_was_away_is_polled_once_and_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        ada = await make_person(s.url, "Ada")
        conversation = await ada.meet(s.agent.device.owner_id)
        async with connected(ada):
            await ada.say(conversation, "before")
            await hears(ada, conversation, ["echo: before"])
            await s.api.fault("lose_pushes", count=8)
            texts = [f"unheard {number}" for number in range(8)]
            for text in texts:
                await ada.say(conversation, text)
            with waiting_for("the message to be acknowledged", WAIT_SECONDS):
                await ada.transcript.until(lambda: ada.unacknowledged == 0)
            connections = s.agent.connections
            await s.api.fault("disconnect", owner_id=s.agent.device.owner_id)
            await s.agent.until(lambda: s.agent.connections > connections)
            await hears(ada, conversation, ["echo: before", *(f"echo: {text}" for text in texts)])

            await s.api.fault("lose_pushes", count=2)
            texts += [f"after a gap {number}" for number in range(3)]
            for text in texts[-3:]:
                await ada.say(conversation, text)
            await hears(ada, conversation, ["echo: before", *(f"echo: {text}" for text in texts)])
            assert s.agent.gaps > 0
        assert s.agent.unreadable == []


async def test_two_of_the_second_endpoint_find_a_session_again_after_a_loss(tmp_path: Path) -> None:
    async with serving(tmp_path) as s, signed_up(s.url, "Ada") as [ada]:
        place = await ada.meet(s.agent.device.owner_id)
        await ada.say(place, "before")
        assert await ada.next_text() == "echo: before"
        s.agent.device.forget_sessions()
        await ada.say(place, "unreadable")
        assert await ada.next_payload() == system("session.renewed")
        await s.agent.poll()
        await ada.say(place, "after")
        assert await ada.next_text() == "echo: after", (
            "what is pushed and polled is answered once, also what cannot be read"
        )
        assert s.agent.unreadable == ["no_session"]
