"""A person's client (wire §9): signs up, meets agents, makes groups, talks, catches up by the conversation's numbers."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Self

import httpx2
import trio

from tests.second_endpoint.device import RENEGOTIABLE, Device, Frame, Place, system
from tests.second_endpoint.end import End, Refused
from tests.second_endpoint.envelope import Payload
from tests.second_endpoint.errors import Unreadable


class Client(End):
    """Made by `signed_up`."""

    def __init__(self, url: str, http: httpx2.AsyncClient, device: Device, token: str) -> None:
        super().__init__(url, http, device, token)
        self._last_seq: dict[str, int] = {}

    @property
    def door(self) -> str:
        return "/ws/human"

    @property
    def named(self) -> dict[str, str]:
        return {"device_id": self.device.device_id}

    async def publish(self, one_time: int = 100) -> None:
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
            listed = await self.entries("GET", f"/keys/users/{owner_id}/devices")
        except Refused:
            listed = [await self.fields("GET", f"/keys/agents/{owner_id}")]
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

    # Talking

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

    async def say(self, place: Place, text: str) -> Frame:
        """A text, acknowledged."""
        return await self.send(await self.seal(place, {"type": "text", "text": text}))

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

    async def catch_up(self) -> None:
        for conversation_id in list(self._last_seq):
            await self._catch_up_in(conversation_id)

    async def _catch_up_in(self, conversation_id: str) -> None:
        after = self._last_seq[conversation_id]
        while missed := await self.entries("GET", f"/conversations/{conversation_id}/messages?after_seq={after}"):
            for frame in missed:
                if frame["sender_id"] != self.device.owner_id:
                    self.heard(frame)
            after = int(str(missed[-1]["conversation_seq"]))

    def heard(self, frame: Frame) -> None:
        seq = frame.get("conversation_seq")
        if isinstance(seq, int):
            known = self._last_seq.get(str(frame["conversation_id"]), 0)
            self._last_seq[str(frame["conversation_id"])] = max(known, seq)
        super().heard(frame)

    @classmethod
    async def sign_up(cls, url: str, http: httpx2.AsyncClient, name: str) -> Self:
        """A new person with one registered device."""
        client = cls(url, http, Device(""), "")
        made = await client.fields("POST", "/sandbox/users", {"display_name": name})
        client.token, client.device = str(made["access_token"]), Device(str(made["user_id"]))
        await client.publish()
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
