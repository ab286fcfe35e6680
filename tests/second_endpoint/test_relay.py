"""The product's agent at a relay that was written from the page: neither side of that wire is spelt by the other's code."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sandbox.api import RelayApi
from tests.second_endpoint.client import Client, signed_up
from tests.second_endpoint.relay import Relay, relay_here
from tests.waiting import waiting_for
from tests.world import World, agent, environment_of

WAIT_SECONDS = 120.0


@asynccontextmanager
async def agent_at_a_second_relay(tmp_path: Path, *names: str) -> AsyncIterator[tuple[Relay, World, list[Client]]]:
    """The echoing agent with all its processes, and people of the second endpoint."""
    with waiting_for("the scene and what the test does in it", WAIT_SECONDS):
        async with relay_here() as relay, RelayApi(relay.url) as api, signed_up(relay.url, *names) as people:
            agent_id, token = relay.add_agent()
            environment = environment_of(tmp_path, relay.url, agent_id, token)
            world = World(tmp_path, relay.url, api, environment, [])
            async with agent(world):
                await world.until_ready()
                yield relay, world, people


async def test_it_answers_streams_and_polls_what_was_not_pushed(tmp_path: Path) -> None:
    async with agent_at_a_second_relay(tmp_path, "Ada") as (relay, w, [ada]):
        place = await ada.meet(agent_of(w))
        for text in ("one", "two"):
            await ada.say(place, text)
            assert await ada.next_text() == f"echo: {text}"

        await ada.say(place, "/stream it grows word by word")
        growing = ada.device.open_stream(await ada.next("stream.start"), place)
        while (frame := await ada.next("stream.delta", "message.new"))["type"] == "stream.delta":
            growing = ada.device.grow(growing, frame, place)
        assert ada.open(frame)["text"] == "echo: it grows word by word"
        assert "echo: it grows word by word".startswith(growing.text)

        relay.deaf_to_pushes = True
        for text in ("unheard", "unheard too"):
            await ada.say(place, text)
        relay.deaf_to_pushes = False
        await ada.say(place, "heard")
        assert [await ada.next_text() for _ in range(3)] == ["echo: unheard", "echo: unheard too", "echo: heard"]
        assert {str(frame["type"]) for frame in relay.heard} >= {
            "message.send",
            "stream.start",
            "stream.delta",
            "stream.done",
        }
        assert "hashee_decrypt_failure_total{" not in w.page("/metrics")


async def test_it_talks_in_a_group_under_the_key_that_its_relay_hands_out(tmp_path: Path) -> None:
    async with agent_at_a_second_relay(tmp_path, "Ada", "Ben") as (_, w, [ada, ben]):
        place = ben.join(await ada.make_group(agent_of(w), [ben]))
        members = [ada.device.owner_id, ben.device.owner_id, agent_of(w)]
        await ada.rotate_key(place, members)
        for owner_id in members:
            await ben.pin(owner_id)
        await ben.fetch_key(place)
        said = f"@<U:{agent_of(w)}> to everybody"
        await ben.send(await ben.seal(place, {"type": "text", "text": said, "mentions": [agent_of(w)]}))
        assert await ben.next_text() == "echo: to everybody"
        assert [await ada.next_text(), await ada.next_text()] == [said, "echo: to everybody"]


def agent_of(w: World) -> str:
    return w.environment["HASHEE_AGENT_ID"]
