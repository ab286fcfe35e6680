"""Builders for tests that talk to a real relay process: owners with placeholder keys, and raw connections of theirs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from sandbox.api import AgentAccount, PersonAccount, RelayApi
from sandbox.children import relay_process
from sandbox.ulid import new_ulid
from supervisor.relay.frames import (
    Auth,
    AuthOk,
    Frame,
    MessageAck,
    MessageNew,
    MessageSend,
    Ping,
    ToPerson,
    UnknownFrame,
    decode_for_person,
    encode,
)
from supervisor.relay.websocket import ConnectionLost, WebSocket, open_websocket
from tests.waiting import said_of, waiting_for


class Talk(msgspec.Struct, frozen=True):
    """One agent and one person who may talk, before either is connected."""

    url: str
    agent: AgentAccount
    person: PersonAccount
    conversation_id: str


class Client:
    """An authenticated connection that speaks frames; pings of the relay are passed over."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket

    async def send(self, frame: Frame) -> None:
        await self.socket.send(encode(frame))

    async def receive(self) -> ToPerson | UnknownFrame:
        with waiting_for("a frame of the relay", 5):
            while True:
                frame = decode_for_person(await self.socket.receive())
                if not isinstance(frame, Ping):
                    return frame

    async def lost(self) -> ConnectionLost:
        """Receives, answering nothing, until the relay ends the connection; says how it did."""
        with waiting_for("the relay to end the connection", 5):
            while True:
                try:
                    await self.socket.receive()
                except ConnectionLost as lost:
                    return lost

    async def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for so long."""
        with trio.move_on_after(seconds):
            await self.receive()
            return False
        return True


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Asks again and again, of another process that can signal nothing here, until it is so."""
    with waiting_for(said_of(condition), seconds):
        while not await condition():
            await trio.sleep(0.01)


@asynccontextmanager
async def relay(tmp_path: Path, *options: str) -> AsyncIterator[tuple[str, RelayApi]]:
    async with relay_process(*options, log_path=tmp_path / "relay.log") as (_, url), RelayApi(url) as api:
        yield url, api


@asynccontextmanager
async def talk(tmp_path: Path, *options: str) -> AsyncIterator[tuple[Talk, RelayApi]]:
    """A relay, an agent and a person with one device ("phone")."""
    async with relay(tmp_path, *options) as (url, api):
        yield await make_talk(url, api), api


async def make_talk(url: str, api: RelayApi) -> Talk:
    agent = await api.add_agent("Echo")
    person = await api.add_person("Ada")
    async with RelayApi(url, person.access_token) as own:
        await own.call("POST", "/users/me/devices", dict[str, object], device("phone"))
    conversation_id = await api.relate(person.user_id, agent.agent_id)
    return Talk(url, agent, person, conversation_id)


def device(device_id: str, one_time: int = 2, first_id: int = 1) -> dict[str, object]:
    """A registration whose keys are placeholders: the relay looks into none of them."""
    return {
        "device_id": device_id,
        "public_key": "IDENTITY",
        "signing_public_key": "SIGNING",
        "signed_prekey": {"id": first_id, "public_key": "PREKEY", "signature": "SIGNATURE"},
        "one_time_prekeys": [{"id": first_id + n, "public_key": f"K{first_id + n}"} for n in range(one_time)],
    }


@asynccontextmanager
async def agent_client(talk: Talk) -> AsyncIterator[Client]:
    address = f"ws{talk.url.removeprefix('http')}/ws/agent?agent_id={talk.agent.agent_id}"
    async with open_websocket(address) as socket:
        client = Client(socket)
        await client.send(Auth(talk.agent.token, agent_id=talk.agent.agent_id))
        assert await client.receive() == AuthOk()
        yield client


@asynccontextmanager
async def person_client(talk: Talk, device_id: str = "phone") -> AsyncIterator[Client]:
    async with open_websocket(f"ws{talk.url.removeprefix('http')}/ws/human") as socket:
        client = Client(socket)
        await client.send(Auth(talk.person.access_token, device_id=device_id))
        assert await client.receive() == AuthOk()
        yield client


def message(talk: Talk, payload: str, client_message_id: str | None = None) -> MessageSend:
    return MessageSend(client_message_id or new_ulid(), talk.conversation_id, "text", payload)


async def say(client: Client, talk: Talk, payload: str) -> MessageAck:
    """Sends and waits for the acknowledgement."""
    await client.send(message(talk, payload))
    answer = await client.receive()
    assert isinstance(answer, MessageAck)
    return answer


async def polled(talk: Talk, cursor: str | None = None, limit: int = 50) -> list[MessageNew]:
    query = f"limit={limit}" + (f"&cursor={cursor}" if cursor else "")
    async with RelayApi(talk.url, talk.agent.token) as api:
        path = f"/agents/{talk.agent.agent_id}/messages/poll?{query}"
        return await api.call("GET", path, list[MessageNew])
