"""An agent that echoes (wire §2 to §6): publishes keys, knows its relations, polls by a cursor, answers all devices of whoever wrote.

`/stream` before a text has it grow. It keeps its state in memory and takes one message at a time.
"""

import httpx2

from tests.second_endpoint.device import RENEGOTIABLE, Device, Frame, Place, system
from tests.second_endpoint.encoding import from_base64
from tests.second_endpoint.end import End, Refused
from tests.second_endpoint.envelope import Payload
from tests.second_endpoint.errors import Unreadable
from tests.second_endpoint.keys import Bundle, Pair

MESSAGES = ("message.new", "artifact_response")
STATUSES = {
    "relation.established": "active",
    "relation.restored": "active",
    "relation.suspended": "suspended",
    "relation.revoked": "revoked",
}


class Agent(End):
    """`device` has the agent's id as owner and as device."""

    def __init__(self, url: str, http: httpx2.AsyncClient, device: Device, token: str) -> None:
        super().__init__(url, http, device, token)
        self.cursor = ""
        self.listed: dict[str, frozenset[str]] = {}
        self.unreadable: list[str] = []
        self.refused: list[str] = []
        self.gaps = 0
        self._next: dict[str, int] = {}
        self._known: set[str] = set()
        self._wants_poll = False

    @property
    def door(self) -> str:
        return f"/ws/agent?agent_id={self.device.owner_id}"

    @property
    def named(self) -> dict[str, str]:
        return {"agent_id": self.device.owner_id}

    async def publish(self, one_time: int = 100) -> None:
        body = self.device.registration(one_time)
        await self.call("POST", f"/agents/{self.device.owner_id}/keys/register", body)

    # Who may talk to it

    async def catch_up(self) -> None:
        for relation in await self.entries("GET", f"/agents/{self.device.owner_id}/relations"):
            self._note(relation, str(relation.get("status") or "active"))
        await self.poll()

    def heard(self, frame: Frame) -> None:
        kind, payload = str(frame["type"]), frame.get("payload")
        if kind in STATUSES and isinstance(payload, dict):
            self._note(payload, STATUSES[kind])
        elif kind in MESSAGES:
            self._pushed(frame)

    def _pushed(self, frame: Frame) -> None:
        """In its turn it is taken; beyond a gap the poll brings it and what was missed before it."""
        if int(str(frame["conversation_seq"])) <= self._next.get(str(frame["conversation_id"]), 1):
            self._queue(frame)
        else:
            self.gaps += 1
            self._wants_poll = True

    def _queue(self, frame: Frame) -> None:
        """Once, whether it was pushed, polled or both: what could not be read is no duplicate of anything that was."""
        self._is_numbered(str(frame["conversation_id"]), frame)
        if frame["message_id"] not in self._known:
            self._known.add(str(frame["message_id"]))
            self.frames.append(frame)

    def _is_numbered(self, conversation_id: str, told: Frame) -> None:
        following = int(str(told["conversation_seq"])) + 1
        self._next[conversation_id] = max(following, self._next.get(conversation_id, 1))

    def _note(self, relation: Frame, status: str) -> None:
        owner_id, conversation_id = str(relation["user_id"]), relation.get("conversation_id")
        if status != "active" or not isinstance(conversation_id, str):
            self.places = {known: place for known, place in self.places.items() if place.other != owner_id}
            return
        self.places[conversation_id] = Place(conversation_id, owner_id)
        if isinstance(relation.get("public_key"), str) and owner_id not in self.device.pins:
            x25519, ed25519 = from_base64(relation["public_key"]), from_base64(relation["signing_public_key"])
            self.device.pins[owner_id] = Pair.checked(x25519, ed25519)

    async def devices(self, owner_id: str) -> dict[str, Bundle]:
        """The owner's devices that count."""
        found = {}
        for entry in await self.entries("GET", f"/keys/users/{owner_id}/devices"):
            bundle = Bundle.read(entry, owner_id, self.device.pins[owner_id])
            found[bundle.device_id] = bundle
        self.listed[owner_id] = frozenset(found)
        return found

    # What was said

    async def poll(self) -> None:
        """Everything after the cursor, until there is nothing more."""
        while True:
            asked = f"&cursor={self.cursor}" if self.cursor else ""
            page = await self.entries("GET", f"/agents/{self.device.owner_id}/messages/poll?limit=3{asked}")
            if not page:
                return
            for frame in page:
                self._queue(frame)
            self.cursor = str(page[-1]["message_id"])

    async def serve(self) -> None:
        """Answer until cancelled."""
        while True:
            await self.until(lambda: bool(self.frames) or self._wants_poll)
            if self._wants_poll:
                self._wants_poll = False
                await self.poll()
            if not self.frames:
                continue
            frame = self.frames.pop(0)
            try:
                await self._take(frame)
            except Unreadable as error:
                if error.reason != "duplicate":
                    self.unreadable.append(error.reason)
                if error.reason in RENEGOTIABLE and str(frame["conversation_id"]) in self.places:
                    await self._renew(self.places[str(frame["conversation_id"])], str(frame["sender_device_id"]))

    async def _take(self, frame: Frame) -> None:
        place = self.places.get(str(frame["conversation_id"]))
        if place is None:
            raise Unreadable("no_grant")
        device_id = self.device.verified(frame, place).ids.sender_device
        if device_id not in self.listed.get(place.other, ()) and device_id not in await self.devices(place.other):
            raise Unreadable("unknown_sender")
        payload = self.device.open(frame, place)
        if payload == system("session.ping"):
            await self._say(place, system("session.pong"))
        elif payload["type"] == "text" and str(payload["text"]).startswith("/stream "):
            await self._show(place, "echo: " + str(payload["text"]).removeprefix("/stream "))
        elif payload["type"] == "text":
            await self._say(place, {"type": "text", "text": f"echo: {payload['text']}"})

    async def _renew(self, place: Place, device_id: str) -> None:
        self.device.begin((await self.devices(place.other))[device_id])
        await self._say(place, system("session.renewed"))

    async def _sealed(self, place: Place, payload: Payload, client_message_id: str) -> str:
        """For every listed device; a session is begun where there is none to send on."""
        if not all(self.device.may_send((place.other, one)) for one in self.listed[place.other]):
            for device_id, bundle in (await self.devices(place.other)).items():
                if not self.device.may_send((place.other, device_id)):
                    self.device.begin(bundle)
        return self.device.seal(place, payload, client_message_id, sorted(self.listed[place.other]))

    async def _say(self, place: Place, payload: Payload, **stream: str) -> None:
        client_message_id = self.device.new_id()
        frame = {
            "type": "stream.done" if stream else "message.send",
            **stream,
            "client_message_id": client_message_id,
            "conversation_id": place.conversation_id,
            "content_type": payload["type"],
            "encrypted_payload": await self._sealed(place, payload, client_message_id),
        }
        try:
            self._is_numbered(place.conversation_id, await self.send(frame))
        except Refused as error:
            self.refused.append(error.code)

    async def _show(self, place: Place, text: str) -> None:
        """The text word by word, then whole."""
        growing, start = self.device.begin_stream(place)
        named = {"stream_id": growing.stream_id, "conversation_id": place.conversation_id}
        sealed = await self._sealed(place, start, self.device.new_id())
        await self.post({"type": "stream.start", **named, "encrypted_payload": sealed})
        for word in text.split(" "):
            seq = growing.pieces
            growing, sealed = self.device.seal_delta(growing, word if seq == 0 else f" {word}")
            await self.post({"type": "stream.delta", **named, "seq": seq, "encrypted_payload": sealed})
        await self._say(place, {"type": "text", "text": text}, stream_id=growing.stream_id)
