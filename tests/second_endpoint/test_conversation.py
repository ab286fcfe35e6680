"""The endpoint that was written from the page talks to a real agent: relay, keeper, Redis, supervisor and workers as processes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus.transport.client import open_redis
from crypto.files import Attachment, FileOpener
from sandbox.api import RelayApi
from sandbox.children import relay_process
from tests.second_endpoint.client import Client, signed_up
from tests.second_endpoint.device import Place, system
from tests.second_endpoint.end import Refused
from tests.second_endpoint.errors import Unreadable
from tests.second_endpoint.files import open_file, seal_file
from tests.waiting import waiting_for
from tests.world import World, world

WAIT_SECONDS = 60.0


@asynccontextmanager
async def talking(tmp_path: Path) -> AsyncIterator[tuple[World, Client, Place]]:
    """An echoing agent, Ada by the second endpoint, and their conversation."""
    with waiting_for("the scene and what the test does in it", 3 * WAIT_SECONDS):
        async with world(tmp_path, people=()) as w, signed_up(w.relay_url, "Ada") as [ada]:
            yield w, ada, await ada.meet(agent_of(w))


def agent_of(w: World) -> str:
    return w.environment["HASHEE_AGENT_ID"]


async def test_it_is_answered_in_ping_pong_and_whatever_the_order_in_which_messages_arrive(tmp_path: Path) -> None:
    async with talking(tmp_path) as (_, ada, place):
        for number in range(4):
            await ada.say(place, f"ping {number}")
            assert await ada.next_text() == f"echo: ping {number}"
        await ada.send(await ada.seal(place, system("session.ping")))
        assert await ada.next_payload() == system("session.pong")

        sealed = [await ada.seal(place, {"type": "text", "text": f"number {number}"}) for number in range(4)]
        for number in (2, 0, 3, 1):
            await ada.send(sealed[number])
        frames = [await ada.next("message.new") for _ in range(4)]
        texts = {index: ada.open(frames[index])["text"] for index in (3, 1, 2, 0)}
        assert [texts[index] for index in range(4)] == [f"echo: number {number}" for number in (2, 0, 3, 1)]
        with pytest.raises(Unreadable, match="duplicate"):
            ada.open(frames[0])


async def test_what_is_sent_twice_is_stored_and_answered_once_and_a_reconnect_loses_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as (w, ada, place):
        frame = await ada.seal(place, {"type": "text", "text": "once"})
        first, again = await ada.send(frame), await ada.send(frame)
        assert first == again
        assert first["conversation_seq"] == 1
        assert await ada.next_text() == "echo: once"

        connections = ada.connections
        await ada.call("POST", "/sandbox/faults", {"kind": "disconnect", "owner_id": ada.device.owner_id})
        await ada.say(place, "over the next connection")
        await ada.until(lambda: ada.connections > connections)
        assert await ada.next_text() == "echo: over the next connection"
        assert w.page("/metrics").count("hashee_decrypt_failure_total{") == 0


async def test_an_answer_grows_piece_by_piece_to_the_text_that_counts(tmp_path: Path) -> None:
    async with talking(tmp_path) as (_, ada, place):
        story = " ".join(f"word{number}" for number in range(12))
        await ada.say(place, f"/stream {story}")
        growing = ada.device.open_stream(await ada.next("stream.start"), place)
        while (frame := await ada.next("stream.delta", "stream.done"))["type"] == "stream.delta":
            growing = ada.device.grow(growing, frame, place)
        assert growing.pieces > 1
        assert f"echo: {story}".startswith(growing.text)
        assert ada.open(frame) == {"type": "text", "text": f"echo: {story}"}
        with pytest.raises(Unreadable, match="duplicate"):  # the same message, as it is stored
            ada.open(await ada.next("message.new"))


async def test_a_group_reads_the_agent_under_keys_that_change(tmp_path: Path) -> None:
    with waiting_for("the group's conversation", 3 * WAIT_SECONDS):
        overhearing = {"HASHEE_HANDLER": "tests.handlers:overhearing"}
        async with (
            world(tmp_path, people=(), **overhearing) as w,
            signed_up(w.relay_url, "Ada", "Ben") as [ada, ben],
        ):
            place = ben.join(await ada.make_group(agent_of(w), [ben]))
            members = [ada.device.owner_id, ben.device.owner_id, agent_of(w)]
            await ada.rotate_key(place, members)
            for owner_id in members:
                await ben.pin(owner_id)
            await ben.fetch_key(place)
            await ada.say(place, "to everybody")
            assert [await ben.next_text(), await ben.next_text()] == ["to everybody", "echo: to everybody"]
            assert await ada.next_text() == "echo: to everybody"

            await ben.rotate_key(place, members)
            await ben.say(place, "under the second key")
            frame = await ada.next("message.new")
            with pytest.raises(Unreadable, match="unknown_group_key"):
                ada.open(frame)
            await ada.fetch_key(place)
            assert ada.open(frame)["text"] == "under the second key"
            assert await ada.next_text() == "echo: under the second key"


async def test_whichever_side_loses_its_sessions_they_begin_anew_and_go_on(tmp_path: Path) -> None:
    async with talking(tmp_path) as (w, ada, place):
        await ada.say(place, "before")
        assert await ada.next_text() == "echo: before"
        await ada.say(place, "its answer is lost")
        frame = await ada.next("message.new")
        ada.device.forget_sessions()
        with pytest.raises(Unreadable, match="no_session"):
            ada.open(frame)
        await ada.begin_session(place)
        await ada.send(await ada.seal(place, system("session.renewed")))
        await ada.say(place, "after our loss")
        assert await ada.next_text() == "echo: after our loss"

        async with open_redis(f"unix://{w.redis_socket}") as client:
            session = w.keys.session(ada.device.owner_id, ada.device.device_id)
            assert await client.command("DEL", session) == 1
        await ada.say(place, "unreadable")
        event = (await ada.next_payload())["event"]
        assert isinstance(event, dict)
        assert event["kind"] == "session.renewed"
        await ada.say(place, "after the agent's loss")
        assert await ada.next_text() == "echo: after the agent's loss"


async def test_a_file_goes_through_the_relay_and_opens_here_and_in_the_product(tmp_path: Path) -> None:
    async with (
        relay_process(log_path=tmp_path / "relay.log") as (_, url),
        RelayApi(url) as api,
        signed_up(url, "Ada") as [ada],
    ):
        place = await ada.meet((await api.add_agent("Echo")).agent_id)
        content = b"line of a file\n" * 100_000  # two chunks
        announced = {"filename": "a.txt", "content_type": "text/plain", "conversation_id": place.conversation_id}
        size = len(content) + 2 * 16
        upload = await ada.fields("POST", "/users/me/files", announced | {"size": size})
        file_id = str(upload["upload_id"])
        sealed, told = seal_file(content, place.conversation_id, file_id, ada.device.random)
        assert len(sealed) == size
        await ada.call("PUT", f"/users/me/files/{file_id}/upload", content=sealed)
        with pytest.raises(Refused, match="SHA256_MISMATCH"):
            await ada.call("POST", "/files/confirm", {"upload_id": file_id, "sha256": "0" * 64})
        confirmed = await ada.fields("POST", "/files/confirm", {"upload_id": file_id, "sha256": told["sha256"]})
        attachment = told | confirmed | {"mime": "text/plain", "filename": "a.txt"}
        fetched = await ada.call("GET", f"/files/{confirmed['attachment_id']}")
        assert isinstance(fetched, bytes)
        assert open_file(fetched, attachment, place.conversation_id) == content
        with pytest.raises(Unreadable, match="bad_ciphertext"):
            open_file(fetched[:-17], attachment, place.conversation_id)

        opener = FileOpener(Attachment.from_payload(json.loads(json.dumps(attachment))), place.conversation_id)
        assert b"".join([*opener.feed(fetched), opener.finish()]) == content
