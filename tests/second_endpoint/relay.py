"""A relay, as the page has it (wire §2 to §5): in memory, in this process, with a person's and an agent's door.

It checks less than a relay should: it is here to see whether an agent gets along with one that is not the product's own.
"""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import trio

from tests.second_endpoint.web_socket import Closed, Socket

JsonObject = dict[str, object]

PASSED_ON = ("typing.start", "typing.stop", "stream.start", "stream.delta", "stream.abort")
DEVICE_FIELDS = ("device_id", "public_key", "signing_public_key", "signed_prekey")


class Refusal(Exception):
    """An error's status and code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass
class Conversation:
    """Who is in it, and what was said. `group_id` None: of one person and the agent."""

    conversation_id: str
    agent_id: str
    people: list[str]
    group_id: str | None = None
    count: int = 0

    @property
    def owners(self) -> list[str]:
        return [self.agent_id, *self.people]


@dataclass
class Relay:
    """All that it knows. `heard`: every frame of an agent, for tests."""

    url: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    agents: set[str] = field(default_factory=set)
    devices: dict[str, dict[str, JsonObject]] = field(default_factory=dict)
    one_time: dict[tuple[str, str], list[JsonObject]] = field(default_factory=dict)
    conversations: dict[str, Conversation] = field(default_factory=dict)
    group_keys: dict[str, JsonObject] = field(default_factory=dict)
    messages: list[JsonObject] = field(default_factory=list)
    acks: dict[tuple[str, str], JsonObject] = field(default_factory=dict)
    doors: dict[str, list[Socket]] = field(default_factory=dict)
    heard: list[JsonObject] = field(default_factory=list)
    deaf_to_pushes: bool = False

    def add_agent(self) -> tuple[str, str]:
        """An agent's id and token."""
        agent_id, token = str(uuid.uuid4()), "hsk_" + uuid.uuid4().hex + "00000000"
        self.agents.add(agent_id)
        self.tokens[token] = agent_id
        return agent_id, token

    # REST

    async def answer(self, method: str, target: str, token: str, body: JsonObject) -> object:
        """What stands in `data`. Raises Refusal."""
        parts = urlsplit(target)
        path, query = parts.path.strip("/").split("/"), dict(parse_qsl(parts.query))
        if path[0] == "sandbox":
            return await self._make(path[1], body)
        asker = self.tokens.get(token)
        if asker is None:
            raise Refusal(401, "INVALID_TOKEN")
        match method, path:
            case "POST", ["agents", _, "keys", "register"] | ["users", "me", "devices"]:
                return self._register(asker, body)
            case "GET", ["keys", "agents", owner_id] if owner_id in self.agents and owner_id in self.devices:
                return {"owner_id": owner_id, **self._bundle(owner_id, owner_id)}
            case "GET", ["keys", "users", owner_id, "devices"] if (
                owner_id in self.devices and owner_id not in self.agents
            ):
                return [self._bundle(owner_id, device_id) for device_id in self.devices[owner_id]]
            case "GET", ["keys", "groups", group_id] if group_id in self.group_keys:
                return self.group_keys[group_id]
            case "PUT", ["keys", "groups", group_id]:
                return await self._rotate(group_id, body)
            case "GET", ["agents", _, "relations"]:
                return [
                    self._relation(one)
                    for one in self.conversations.values()
                    if one.agent_id == asker and not one.group_id
                ]
            case "GET", ["agents", _, "messages", "poll"]:
                return self._page(asker, query.get("cursor"), int(query.get("limit", "50")))
            case "GET", ["conversations", conversation_id, "messages"]:
                after = int(query.get("after_seq", "0"))
                found = [one for one in self.messages if one["conversation_id"] == conversation_id]
                return [one for one in found if int(str(one["conversation_seq"])) > after]
        raise Refusal(404, "NOT_FOUND")

    async def _make(self, what: str, body: JsonObject) -> JsonObject:
        if what == "users":
            user_id, token = str(uuid.uuid4()), uuid.uuid4().hex
            self.tokens[token] = user_id
            return {"user_id": user_id, "access_token": token}
        members = body.get("members", [body.get("user_id")])
        assert isinstance(members, list)
        group_id = str(uuid.uuid4()) if what == "groups" else None
        made = Conversation(str(uuid.uuid4()), str(body["agent_id"]), members, group_id)
        self.conversations[made.conversation_id] = made
        if group_id is None:
            await self._tell([made.agent_id], {"type": "relation.established", "payload": self._relation(made)})
            return {"conversation_id": made.conversation_id}
        return {"conversation_id": made.conversation_id, "group_id": group_id}

    def _register(self, owner_id: str, body: JsonObject) -> JsonObject:
        device_id, fresh = str(body["device_id"]), body["one_time_prekeys"]
        assert isinstance(fresh, list)
        self.devices.setdefault(owner_id, {})[device_id] = {name: body[name] for name in DEVICE_FIELDS}
        left = self.one_time.setdefault((owner_id, device_id), [])
        if body.get("replace") is True:
            left.clear()
        left += fresh
        return {"one_time_prekeys_left": len(left)}

    def _bundle(self, owner_id: str, device_id: str) -> JsonObject:
        left = self.one_time[owner_id, device_id]
        return {**self.devices[owner_id][device_id], "one_time_prekey": left.pop(0) if left else None}

    async def _rotate(self, group_id: str, body: JsonObject) -> JsonObject:
        self.group_keys[group_id] = {"group_id": group_id, **body}
        rotated = {"type": "system.group_key_rotated", "group_id": group_id, "key_version": body["key_version"]}
        [group] = [one for one in self.conversations.values() if one.group_id == group_id]
        await self._tell(group.owners, rotated)
        return {"key_version": body["key_version"]}

    def _relation(self, conversation: Conversation) -> JsonObject:
        [user_id] = conversation.people
        shown = next(iter(self.devices.get(user_id, {}).values()), {})
        return {
            "user_id": user_id,
            "display_name": None,
            "public_key": shown.get("public_key"),
            "signing_public_key": shown.get("signing_public_key"),
            "conversation_id": conversation.conversation_id,
            "scopes": [],
            "status": "active",
        }

    def _page(self, agent_id: str, cursor: str | None, limit: int) -> list[JsonObject]:
        kept = [one for one in self.messages if agent_id in self._owners_of(one) and one["sender_id"] != agent_id]
        named = [one["message_id"] for one in kept]
        if cursor is not None and cursor not in named:
            raise Refusal(400, "INVALID_CURSOR")
        start = 0 if cursor is None else named.index(cursor) + 1
        return kept[start : start + limit]

    def _owners_of(self, frame: JsonObject) -> list[str]:
        return self.conversations[str(frame["conversation_id"])].owners

    # Frames

    async def serve(self, socket: Socket, target: str) -> None:
        """One WebSocket, from its first frame on. Raises Closed."""
        auth = json.loads(await socket.receive())
        owner_id, device_id = self.tokens.get(auth["token"], ""), auth.get("device_id", auth.get("agent_id"))
        if auth["type"] != "auth" or not owner_id or (target.startswith("/ws/agent") and auth["agent_id"] != owner_id):
            await socket.send(
                json.dumps({"type": "auth.error", "reason": "invalid_token", "message": "", "i18n_key": ""})
            )
            return
        await socket.send(json.dumps({"type": "auth.ok"}))
        self.doors.setdefault(owner_id, []).append(socket)
        try:
            while True:
                frame = json.loads(await socket.receive())
                if owner_id in self.agents:
                    self.heard.append(frame)
                await self._take(socket, owner_id, str(device_id), frame)
        finally:
            self.doors[owner_id].remove(socket)

    async def _take(self, socket: Socket, owner_id: str, device_id: str, frame: JsonObject) -> None:
        kind = frame["type"]
        if kind == "ping":
            await socket.send(json.dumps({"type": "pong"}))
        elif kind in PASSED_ON:
            await self._tell(self._people_of(frame, owner_id), {**frame, "sender_id": owner_id})
        elif kind in ("message.send", "stream.done"):
            await self._store(socket, owner_id, device_id, frame)

    def _people_of(self, frame: JsonObject, owner_id: str) -> list[str]:
        return [one for one in self._owners_of(frame) if one not in (owner_id, *self.agents)]

    async def _store(self, socket: Socket, owner_id: str, device_id: str, frame: JsonObject) -> None:
        sent = owner_id, str(frame["client_message_id"])
        conversation = self.conversations[str(frame["conversation_id"])]
        is_new = sent not in self.acks
        if is_new:
            conversation.count += 1
            self.acks[sent] = {
                "type": "message.ack",
                "client_message_id": sent[1],
                "message_id": str(uuid.uuid4()),
                "conversation_seq": conversation.count,
            }
        ack = self.acks[sent]
        await socket.send(json.dumps(ack))
        if not is_new:
            return
        stored: JsonObject = {
            "type": "message.new",
            "conversation_id": conversation.conversation_id,
            "message_id": ack["message_id"],
            "sender_id": owner_id,
            "sender_type": "agent" if owner_id in self.agents else "human",
            "content_type": frame["content_type"],
            "encrypted_payload": frame["encrypted_payload"],
            "conversation_seq": ack["conversation_seq"],
            "created_at": datetime.now(UTC).isoformat(),
            "conversation_type": "group" if conversation.group_id else "h2a",
            "sender_device_id": device_id,
            "sender_display_name": None,
            "a_field_of_next_year": [["unheard of"], 1.5, None],
        }
        self.messages.append(stored)
        await self._tell([one for one in conversation.owners if one != owner_id], stored)

    async def _tell(self, owners: list[str], frame: JsonObject) -> None:
        text = json.dumps(frame)
        for owner_id in owners:
            sockets = self.doors.get(owner_id, [])
            if owner_id in self.agents:
                sockets = [] if self.deaf_to_pushes else sockets[:1]
            for socket in list(sockets):
                await socket.try_send(text)


# HTTP, as far as it is needed


@asynccontextmanager
async def relay_here() -> AsyncIterator[Relay]:
    """A relay on a port of its own for as long as the block runs."""
    relay = Relay()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        relay.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"

        async def connected(stream: trio.SocketStream) -> None:
            await _serve(relay, stream)

        nursery.start_soon(trio.serve_listeners, connected, [listener])
        yield relay
        nursery.cancel_scope.cancel()


async def _serve(relay: Relay, stream: trio.SocketStream) -> None:
    received = b""
    try:
        while True:
            while b"\r\n\r\n" not in received:
                received += await _more(stream)
            if b"upgrade: websocket" in received.lower():
                socket = Socket(stream, is_server=True)
                await relay.serve(socket, await socket.accept(received))
                return
            head, _, received = received.partition(b"\r\n\r\n")
            asked, *lines = head.decode("ascii").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            size = int(headers.get("content-length", "0"))
            while len(received) < size:
                received += await _more(stream)
            body, received = received[:size], received[size:]
            await stream.send_all(await _said(relay, asked, headers.get("authorization", ""), body))
    except (Closed, trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def _more(stream: trio.SocketStream) -> bytes:
    received = await stream.receive_some()
    if not received:
        raise Closed(None)
    return bytes(received)


async def _said(relay: Relay, asked: str, authorization: str, body: bytes) -> bytes:
    method, target, _ = asked.split(" ")
    status, said = 200, b""
    try:
        told = json.loads(body) if body else {}
        data = await relay.answer(method, target, authorization.removeprefix("Bearer "), told)
        said = json.dumps({"data": data, "next_cursor": None} if isinstance(data, list) else {"data": data}).encode()
    except Refusal as refusal:
        error = {"code": refusal.code, "message": "", "i18n_key": "", "params": {}}
        status, said = refusal.status, json.dumps({"error": error}).encode()
    head = f"HTTP/1.1 {status} _\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n"
    return head.encode() + said
