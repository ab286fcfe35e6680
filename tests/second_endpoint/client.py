"""A person's client (wire §2 to §5, §8, §9): signs up, connects, sends until it is acknowledged, catches up, hears.

What comes is put aside frame by frame, so that a test can read it in any order.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Self

import httpx2
import trio

from tests.second_endpoint.device import RENEGOTIABLE, Device, Frame, Place, system
from tests.second_endpoint.envelope import Payload
from tests.second_endpoint.errors import Unreadable
from tests.second_endpoint.web_socket import Closed, Socket, open_socket

RESEND_SECONDS = 10.0
FIRST_WAIT_SECONDS = 1.0


class Refused(Exception):
    """The relay's no: an HTTP status and a code, or the code of a `message.error`."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.code = code


class Client:
    """Made by `signed_up`."""

    def __init__(self, url: str, http: httpx2.AsyncClient, device: Device, token: str) -> None:
        self.url = url
        self.device = device
        self.token = token
        self.places: dict[str, Place] = {}
        self.frames: list[Frame] = []
        self.connections = 0
        self._http = http
        self._socket: Socket | None = None
        self._last_seq: dict[str, int] = {}
        self._answers: dict[str, Frame] = {}
        self._news = trio.Condition()

    # REST

    async def call(self, method: str, path: str, body: object = None, content: bytes | None = None) -> object:
        """What stands in `data`. Raises Refused."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        answer = await self._http.request(method, path, json=body, content=content, headers=headers)
        if answer.headers.get("content-type") == "application/octet-stream":
            return answer.content
        said = answer.json()
        if "error" in said:
            raise Refused(answer.status_code, said["error"]["code"])
        return said["data"]

    async def fields(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """The same, where an object is answered."""
        data = await self.call(method, path, body)
        assert isinstance(data, dict)
        return data

    async def register(self, one_time: int = 100) -> None:
        """Publish the device."""
        await self.call("POST", "/users/me/devices", self.device.registration(one_time))

    async def meet(self, agent_id: str) -> Place:
        """The relation with an agent, and its conversation."""
        made = await self.fields("POST", "/sandbox/relations", {"user_id": self.device.owner_id, "agent_id": agent_id})
        return self.join(Place(str(made["conversation_id"]), agent_id))

    async def make_group(self, agent_id: str, others: Iterable["Client"]) -> Place:
        """A group of these people and the agent; still without a key."""
        members = [self.device.owner_id, *(one.device.owner_id for one in others)]
        made = await self.fields("POST", "/sandbox/groups", {"members": members, "agent_id": agent_id})
        return self.join(Place(str(made["conversation_id"]), str(made["group_id"]), is_group=True))

    def join(self, place: Place) -> Place:
        """Take part in a conversation that exists."""
        self.places[place.conversation_id] = place
        self._last_seq.setdefault(place.conversation_id, 0)
        return place

    async def pin(self, owner_id: str) -> None:
        """Pin the pair that the relay shows, of a person or of an agent."""
        try:
            listed = await self.call("GET", f"/keys/users/{owner_id}/devices")
        except Refused:
            listed = [await self.call("GET", f"/keys/agents/{owner_id}")]
        assert isinstance(listed, list)
        for entry in listed:
            self.device.read_bundle(entry, owner_id)

    async def rotate_key(self, place: Place, members: Iterable[str]) -> None:
        """A new key of a group for these owners."""
        named = list(members)
        for owner_id in named:
            if owner_id not in self.device.pins:
                await self.pin(owner_id)
        version, envelope = self.device.make_group_key(place, named)
        await self.call("PUT", f"/keys/groups/{place.other}", {"key_version": version, "envelope": envelope})

    async def fetch_key(self, place: Place) -> None:
        """The group's key as the relay has it."""
        told = await self.fields("GET", f"/keys/groups/{place.other}")
        self.device.take_group_key(place, str(told["envelope"]))

    # Sending

    async def seal(self, place: Place, payload: Payload) -> dict[str, object]:
        """A `message.send`; a session is begun where there is none to send on."""
        if not place.is_group and not self.device.may_send((place.other, place.other)):
            await self.begin_session(place)
        client_message_id = self.device.new_id()
        return {
            "type": "message.send",
            "client_message_id": client_message_id,
            "conversation_id": place.conversation_id,
            "content_type": payload["type"],
            "encrypted_payload": self.device.seal(place, payload, client_message_id),
        }

    async def begin_session(self, place: Place) -> None:
        """A new session with the agent of a conversation."""
        entry = await self.fields("GET", f"/keys/agents/{place.other}")
        self.device.begin(self.device.read_bundle(entry, place.other))

    async def send(self, frame: Frame) -> Frame:
        """The same bytes until they are answered; the `message.ack`. Raises Refused."""
        identifier, text = str(frame["client_message_id"]), json.dumps(frame)
        self._answers.pop(identifier, None)
        while identifier not in self._answers:
            before = self.connections
            if self._socket is not None:
                with suppress(Closed):  # it goes out over the next connection
                    await self._socket.send(text)
            with trio.move_on_after(RESEND_SECONDS):
                await self.until(partial(self._is_answered_or_anew, identifier, before))
        answer = self._answers[identifier]
        if answer["type"] == "message.error":
            raise Refused(0, str(answer["code"]))
        return answer

    def _is_answered_or_anew(self, client_message_id: str, connections: int) -> bool:
        return client_message_id in self._answers or self.connections > connections

    async def say(self, place: Place, text: str) -> Frame:
        """A text, acknowledged."""
        return await self.send(await self.seal(place, {"type": "text", "text": text}))

    # Hearing

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until something that came makes it true."""
        async with self._news:
            while not condition():
                await self._news.wait()

    async def next(self, *types: str) -> Frame:
        """The oldest frame of one of these types that was not taken yet."""

        def found() -> list[Frame]:
            return [frame for frame in self.frames if frame["type"] in types]

        await self.until(lambda: bool(found()))
        frame = found()[0]
        self.frames.remove(frame)
        return frame

    def open(self, frame: Frame) -> Payload:
        """Its payload. Raises Unreadable."""
        return self.device.open(frame, self.places[str(frame["conversation_id"])])

    async def next_payload(self) -> Payload:
        """The payload of the next message; what is out of step is answered with a new session, pings with pongs."""
        while True:
            frame = await self.next("message.new")
            place = self.places[str(frame["conversation_id"])]
            try:
                payload = self.open(frame)
            except Unreadable as error:
                if error.reason == "duplicate":
                    continue
                if error.reason not in RENEGOTIABLE:
                    raise
                await self.begin_session(place)
                await self.send(await self.seal(place, system("session.renewed")))
                continue
            if payload == system("session.ping"):
                await self.send(await self.seal(place, system("session.pong")))
                continue
            return payload

    async def next_text(self) -> str:
        """The text of the next message."""
        payload = await self.next_payload()
        assert payload["type"] == "text", payload
        return str(payload["text"])

    # The connection

    async def run(self) -> None:
        """Connected until cancelled."""
        wait_seconds = FIRST_WAIT_SECONDS
        while True:
            try:
                async with open_socket(f"ws{self.url.removeprefix('http')}/ws/human") as socket:
                    await self._authenticate(socket)
                    wait_seconds = FIRST_WAIT_SECONDS
                    await self._converse(socket)
            except (Closed, OSError):
                self._socket = None
            await trio.sleep(wait_seconds)
            wait_seconds = min(30.0, 2 * wait_seconds)

    async def _authenticate(self, socket: Socket) -> None:
        await socket.send(json.dumps({"type": "auth", "token": self.token, "device_id": self.device.device_id}))
        with trio.fail_after(5):
            while (answer := json.loads(await socket.receive()))["type"] != "auth.ok":
                if answer["type"] == "auth.error":
                    raise Refused(0, answer["reason"])

    async def _converse(self, socket: Socket) -> None:
        for conversation_id in self.places:
            await self._catch_up(conversation_id)
        self._socket = socket
        self.connections += 1
        while True:
            async with self._news:
                self._news.notify_all()
            frame = json.loads(await socket.receive())
            if frame["type"] == "ping":
                await socket.send(json.dumps({"type": "pong"}))
            elif frame["type"] in ("message.ack", "message.error") and frame.get("client_message_id"):
                self._answers[frame["client_message_id"]] = frame
            elif frame["type"] == "system.prekeys_low":
                await self.register()
            else:
                self._take(frame)

    async def _catch_up(self, conversation_id: str) -> None:
        after = self._last_seq[conversation_id]
        missed = await self.call("GET", f"/conversations/{conversation_id}/messages?after_seq={after}")
        assert isinstance(missed, list)
        for frame in missed:
            if frame["sender_id"] != self.device.owner_id:
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        seq = frame.get("conversation_seq")
        if isinstance(seq, int):
            known = self._last_seq.get(str(frame["conversation_id"]), 0)
            self._last_seq[str(frame["conversation_id"])] = max(known, seq)
        self.frames.append(frame)

    @classmethod
    async def sign_up(cls, url: str, http: httpx2.AsyncClient, name: str) -> Self:
        """A new person with one registered device."""
        client = cls(url, http, Device(""), "")
        made = await client.fields("POST", "/sandbox/users", {"display_name": name})
        client.token, client.device = str(made["access_token"]), Device(str(made["user_id"]))
        await client.register()
        return client


@asynccontextmanager
async def signed_up(url: str, *names: str) -> AsyncIterator[list[Client]]:
    """New people, connected for as long as the block runs."""
    async with httpx2.AsyncClient(base_url=url) as http:
        clients = [await Client.sign_up(url, http, name) for name in names]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.run)
            for client in clients:
                await client.until(lambda client=client: client.connections > 0)  # type: ignore[misc]
            yield clients
            nursery.cancel_scope.cancel()
