"""Every fault of `POST /sandbox/faults` does what it says, and only as often as it was armed."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from sandbox.api import ApiRefused, RelayApi
from supervisor.relay.frames import Auth, AuthError, MessageAck, MessageError, MessageNew
from supervisor.relay.websocket import open_websocket
from tests.sandbox.relay import Client, Talk, agent_client, message, person_client, polled, say, talk
from tests.waiting import until


async def pushed(client: Client) -> str:
    frame = await client.receive()
    assert isinstance(frame, MessageNew)
    return frame.encrypted_payload


async def test_who_goes_in_the_middle_of_asking_is_no_failure_of_the_relay(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api):
        host, port = urlsplit(it.url).netloc.split(":")
        path = f"/agents/{it.agent.agent_id}/keys/register"
        asked = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {it.agent.token}\r\nContent-Length: 100\r\n\r\n{{"
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(asked.encode())

        async def is_gone() -> int | None:
            return (await api.stats()).total.get("rest_gone")

        await until(is_gone, 5)
    assert "Traceback" not in (tmp_path / "relay.log").read_text(encoding="utf-8")


async def test_disconnect_ends_the_agents_connections_with_the_code_asked_for(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as one, agent_client(it) as two, person_client(it) as ada:
        assert await api.fault("disconnect", code=4009) == 2
        assert (await one.lost()).code == 4009
        assert (await two.lost()).code == 4009
        await say(ada, it, "the person stays")


async def test_restart_ends_everyones_connections_and_keeps_the_messages(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent, person_client(it) as person:
        await say(person, it, "kept")
        assert await api.fault("restart") == 2
        assert (await person.lost()).code == 1012
        assert (await agent.lost()).code == 1012
        assert [entry.encrypted_payload for entry in await polled(it)] == ["kept"]


@pytest.mark.parametrize(("kind", "reason"), [("refuse_auth", "invalid_token"), ("connection_limit",) * 2])
async def test_authentication_is_refused_as_often_as_armed(tmp_path: Path, kind: str, reason: str) -> None:
    async with talk(tmp_path) as (it, api):
        await api.fault(kind, count=2)
        assert [await auth_reason(it), await auth_reason(it)] == [reason, reason]
        async with agent_client(it):
            pass


async def auth_reason(it: Talk) -> str:
    address = f"ws{it.url.removeprefix('http')}/ws/agent?agent_id={it.agent.agent_id}"
    async with open_websocket(address) as socket:
        client = Client(socket)
        await client.send(Auth(it.agent.token, agent_id=it.agent.agent_id))
        answer = await client.receive()
        assert isinstance(answer, AuthError)
        return answer.reason


async def test_pushes_are_doubled_swapped_or_lost_and_polling_still_has_all(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent, person_client(it) as person:
        await api.fault("duplicate")
        await say(person, it, "1")
        assert [await pushed(agent), await pushed(agent)] == ["1", "1"]
        await api.fault("reorder")
        await say(person, it, "2")
        await say(person, it, "3")
        assert [await pushed(agent), await pushed(agent)] == ["3", "2"]
        await api.fault("lose_pushes", count=2)
        for text in ("4", "5", "6"):
            await say(person, it, text)
        assert await pushed(agent) == "6"
        assert [entry.encrypted_payload for entry in await polled(it)] == ["1", "2", "3", "4", "5", "6"]


async def test_a_push_held_back_for_reordering_is_not_held_for_ever(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent, person_client(it) as person:
        await api.fault("reorder")
        await say(person, it, "alone")
        assert await pushed(agent) == "alone"


async def test_acks_are_lost_though_the_message_is_stored(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent:
        await api.fault("lose_acks", owner_id=it.agent.agent_id)
        frame = message(it, "stored")
        await agent.send(frame)
        assert await agent.silent()
        await agent.send(frame)
        assert isinstance(await agent.receive(), MessageAck)
        assert (await api.stats()).messages_stored == 1


async def test_acks_are_late(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent:
        await api.fault("delay_acks", delay_seconds=0.3)
        before = trio.current_time()
        await say(agent, it, "late")
        assert trio.current_time() - before >= 0.3


async def test_sends_and_rest_are_refused_with_429_and_500(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent:
        await api.fault("429", retry_after=0.5)
        await agent.send(message(it, "x"))
        answer = await agent.receive()
        assert isinstance(answer, MessageError)
        assert (answer.code, answer.retry_after) == ("429", 0.5)
        with pytest.raises(ApiRefused) as refused:
            await polled(it)
        assert (refused.value.status, refused.value.retry_after) == (429, 0.5)
        await api.fault("500")
        await agent.send(message(it, "x"))
        answer = await agent.receive()
        assert isinstance(answer, MessageError)
        assert answer.code == "500"
        with pytest.raises(ApiRefused) as refused:
            await polled(it)
        assert refused.value.status == 500
        assert await polled(it) == []


async def test_a_fault_for_one_agent_leaves_others_alone_and_clear_ends_all(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent:
        await api.fault("send_500", owner_id="someone-else", count=9)
        await say(agent, it, "fine")
        await api.fault("send_500", seconds=60.0)
        await agent.send(message(it, "x"))
        assert isinstance(await agent.receive(), MessageError)
        await api.fault("clear")
        await say(agent, it, "fine again")


async def test_an_unknown_fault_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), RelayApi(it.url) as api:
        with pytest.raises(ApiRefused) as refused:
            await api.fault("earthquake")
        assert refused.value.status == 400
