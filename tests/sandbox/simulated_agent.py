"""An agent of a few lines with real keys, ratchets and streams, so that people can be tested without the supervisor."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from crypto.envelope import Expected
from crypto.errors import Reason, Unreadable
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import Bundle, bundle_from_json
from crypto.streams import StreamKey, seal_delta, stream_start_payload
from sandbox.api import AgentAccount, RelayApi
from sandbox.background import background
from sandbox.device_state import DeviceState, Received
from sandbox.ulid import new_ulid
from supervisor.relay.frames import (
    Auth,
    AuthOk,
    Frame,
    MessageNew,
    MessageSend,
    StreamDelta,
    StreamDone,
    StreamStart,
    TypingStart,
    decode_from_relay,
    encode,
)
from supervisor.relay.websocket import ConnectFailed, ConnectionLost, WebSocket, open_websocket


class SimulatedAgent:
    """Answers T with "echo: T", "/stream words" as a stream, to every device of the person."""

    def __init__(self, url: str, account: AgentAccount) -> None:
        self.account = account
        self.state = DeviceState(LocalDevice(account.agent_id, account.agent_id, IdentityKeys.generate(os.urandom)))
        self.events: list[object] = []
        self.unreadable: list[Reason] = []
        self.connected = trio.Event()
        self._url = url
        self._api = RelayApi(url, account.token)

    def kinds_of_events(self) -> list[object]:
        """In the order in which they came."""
        return [event["kind"] for event in self.events if isinstance(event, dict)]

    async def register(self) -> None:
        path = f"/agents/{self.account.agent_id}/keys/register"
        await self._api.call("POST", path, dict[str, object], self.state.registration())

    async def run(self) -> None:
        address = f"ws{self._url.removeprefix('http')}/ws/agent?agent_id={self.account.agent_id}"
        while True:
            try:
                async with open_websocket(address) as socket:
                    await socket.send(encode(Auth(self.account.token, agent_id=self.account.agent_id)))
                    await self._converse(socket)
            except (ConnectFailed, ConnectionLost):
                await trio.sleep(0.02)

    async def _converse(self, socket: WebSocket) -> None:
        while True:
            frame = decode_from_relay(await socket.receive())
            if isinstance(frame, AuthOk):
                self.connected.set()
            if isinstance(frame, MessageNew):
                await self._hear(socket, frame)

    async def close(self) -> None:
        await self._api.close()

    async def _hear(self, socket: WebSocket, frame: MessageNew) -> None:
        bundles = await self._bundles(frame.sender_id)
        expected = Expected(frame.conversation_id, frame.sender_id, frame.sender_device_id)
        try:
            received = self.state.open(frame.encrypted_payload, expected)
        except Unreadable as failure:
            self.unreadable.append(failure.reason)
            return
        if received.payload["type"] == "system":
            self.events.append(received.payload["event"])
            return
        for bundle in bundles:
            if not self.state.may_send(bundle.owner_id, bundle.device_id):
                self.state.start_session(bundle)
        devices = [bundle.device_id for bundle in bundles]
        text = str(received.payload["text"])
        if text.startswith("/stream "):
            await self._stream(socket, received, devices, text.removeprefix("/stream "))
            return
        await _send(socket, TypingStart(frame.conversation_id))
        await self._say(socket, received, devices, {"type": "text", "text": f"echo: {text}"})

    async def _say(self, socket: WebSocket, answered: Received, devices: list[str], payload: dict[str, object]) -> None:
        client_message_id, sealed = self._sealed(answered, devices, payload)
        conversation_id = answered.envelope.conversation_id
        await _send(socket, MessageSend(client_message_id, conversation_id, "text", sealed))

    async def _stream(self, socket: WebSocket, answered: Received, devices: list[str], rest: str) -> None:
        conversation_id, to = answered.envelope.conversation_id, answered.envelope.sender_id
        stream_id, key = new_ulid(), StreamKey.generate(os.urandom)
        _, sealed = self._sealed(answered, devices, stream_start_payload(stream_id, key))
        await _send(socket, StreamStart(stream_id, conversation_id, sealed))
        for seq, word in enumerate(["echo:"] + [f" {word}" for word in rest.split(" ")]):
            delta = seal_delta(
                self.state.device,
                key,
                to=to,
                conversation_id=conversation_id,
                client_message_id=new_ulid(),
                stream_id=stream_id,
                seq=seq,
                text=word,
                random=os.urandom,
            )
            await _send(socket, StreamDelta(stream_id, conversation_id, seq, delta))
        client_message_id, sealed = self._sealed(answered, devices, {"type": "text", "text": f"echo: {rest}"})
        await _send(socket, StreamDone(stream_id, conversation_id, client_message_id, "text", sealed))

    def _sealed(self, answered: Received, devices: list[str], payload: dict[str, object]) -> tuple[str, str]:
        client_message_id = new_ulid()
        envelope = answered.envelope
        to = envelope.sender_id
        return client_message_id, self.state.seal(to, devices, envelope.conversation_id, client_message_id, payload)

    async def _bundles(self, user_id: str) -> list[Bundle]:
        """What the person's devices have published; pinned at first sight."""
        entries = await self._api.call("GET", f"/keys/users/{user_id}/devices", list[dict[str, object]])
        bundles = [bundle_from_json(entry, user_id) for entry in entries]
        for bundle in bundles:
            self.state.pin(bundle)
        return bundles


async def _send(socket: WebSocket, frame: Frame) -> None:
    await socket.send(encode(frame))


@asynccontextmanager
async def simulated_agent(url: str) -> AsyncIterator[SimulatedAgent]:
    """Registered, and connected for as long as the body runs."""
    async with RelayApi(url) as api:
        agent = SimulatedAgent(url, await api.add_agent("Echo"))
    await agent.register()
    try:
        async with background() as nursery:
            nursery.start_soon(agent.run)
            await agent.connected.wait()
            yield agent
    finally:
        with trio.CancelScope(shield=True):
            await agent.close()
