"""The two WebSocket doors, `/ws/agent` and `/ws/human`: authentication, the heartbeat, and the tasks of a connection.

The first frame must authenticate within 5 s. A client is heard by its frames (a JSON `pong` at the least): the ASGI
server answers and swallows WebSocket pings and pongs by itself, so both kinds of ping are sent.
"""

from collections.abc import Callable
from contextlib import suppress

import msgspec
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect

from sandbox.relay.faults import FaultKind
from sandbox.relay.hub import Connection, Hub
from sandbox.relay.sessions import AgentSession, PersonSession, Sending
from sandbox.relay.streams import Streams
from supervisor.relay.frames import (
    Auth,
    AuthError,
    AuthOk,
    Frame,
    FromAgent,
    FromPerson,
    MalformedFrame,
    Ping,
    UnknownFrame,
    decode_from_agent,
    decode_from_person,
    encode,
)

AUTH_SECONDS = 5.0
PING_SECONDS = 30.0
DEAD_AFTER_PINGS = 3.0

GOING_AWAY, POLICY, SILENT = 1001, 1008, 1011


class Heartbeat(msgspec.Struct, frozen=True):
    ping_seconds: float = PING_SECONDS
    auth_seconds: float = AUTH_SECONDS


class Doors:
    def __init__(self, hub: Hub, sending: Sending, streams: Streams, heartbeat: Heartbeat) -> None:
        self._hub = hub
        self._sending = sending
        self._streams = streams
        self._heartbeat = heartbeat

    async def agent(self, socket: WebSocket) -> None:
        await socket.accept()
        auth = await self._first_frame(socket, decode_from_agent)
        if auth is None:
            return
        named = socket.query_params.get("agent_id")
        agent = self._hub.state.agent_by_token(auth.token)
        refused = agent is not None and self._armed(FaultKind.REFUSE_AUTH, agent.agent_id)
        if agent is None or refused or auth.agent_id != agent.agent_id or named != agent.agent_id:
            self._hub.stats.count("auth_failures", named if named in self._hub.state.agents else None)
            await self._refuse(socket, AuthError("invalid_token", "the token is not valid", "auth.invalid_token"))
            return
        if self._hub.is_full(agent.agent_id) or self._armed(FaultKind.CONNECTION_LIMIT, agent.agent_id):
            self._hub.stats.count("connection_limit", agent.agent_id)
            error = AuthError("connection_limit", "three connections are live already", "auth.connection_limit")
            await self._refuse(socket, error)
            return
        connection = Connection(agent.agent_id, agent.agent_id)
        session = AgentSession(agent, connection, self._sending, self._streams)
        await self._serve(socket, connection, session.hear)

    async def human(self, socket: WebSocket) -> None:
        await socket.accept()
        auth = await self._first_frame(socket, decode_from_person)
        if auth is None:
            return
        person = self._hub.state.person_by_token(auth.token)
        known = {keys.device_id for keys in self._hub.state.devices_of(person.user_id)} if person else set()
        if person is None or auth.device_id not in known or self._armed(FaultKind.REFUSE_AUTH, person.user_id):
            self._hub.stats.count("auth_failures", person.user_id if person else None)
            await self._refuse(socket, AuthError("invalid_token", "no such person or device", "auth.invalid_token"))
            return
        connection = Connection(person.user_id, auth.device_id)
        session = PersonSession(person, connection, self._sending)
        await self._serve(socket, connection, session.hear)

    def _armed(self, kind: FaultKind, owner_id: str) -> bool:
        return self._hub.fault(kind, owner_id) is not None

    async def _first_frame(
        self, socket: WebSocket, decode: Callable[[str], FromAgent | FromPerson | UnknownFrame]
    ) -> Auth | None:
        try:
            with trio.fail_after(self._heartbeat.auth_seconds):
                frame = decode(await _receive_text(socket))
        except (trio.TooSlowError, MalformedFrame):
            frame = None
        except WebSocketDisconnect:
            return None
        if isinstance(frame, Auth):
            return frame
        self._hub.stats.count("auth_missing")
        await _close(socket, POLICY, "the first frame must be auth")
        return None

    async def _refuse(self, socket: WebSocket, error: AuthError) -> None:
        await _send(socket, error)
        await _close(socket, POLICY, error.reason)

    async def _serve(self, socket: WebSocket, connection: Connection, hear: Callable[[str], None]) -> None:
        connection.push(AuthOk())
        self._hub.join(connection)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, socket, connection, hear)
                nursery.start_soon(self._beat, connection)
                nursery.start_soon(_write, socket, connection)
                await connection.ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._hub.leave(connection)
        await _close(socket, connection.close_code, "")

    async def _read(self, socket: WebSocket, connection: Connection, hear: Callable[[str], None]) -> None:
        try:
            while True:
                text = await _receive_text(socket)
                connection.heard_at = trio.current_time()
                self._hear(connection, text, hear)
        except WebSocketDisconnect as left:
            self._hub.stats.count(f"closed_by_client_{left.code}", connection.owner_id)
        finally:
            connection.end(GOING_AWAY)

    def _hear(self, connection: Connection, text: str, hear: Callable[[str], None]) -> None:
        try:
            hear(text)
        except MalformedFrame as malformed:
            self._hub.stats.count(f"malformed_frames.{malformed.frame_type}", connection.owner_id)

    async def _beat(self, connection: Connection) -> None:
        while True:
            await trio.sleep(self._heartbeat.ping_seconds)
            if trio.current_time() - connection.heard_at > DEAD_AFTER_PINGS * self._heartbeat.ping_seconds:
                self._hub.stats.count("silent_connections", connection.owner_id)
                connection.end(SILENT)
                return
            connection.push(Ping())


async def _write(socket: WebSocket, connection: Connection) -> None:
    async for text in connection.outgoing:
        try:
            await socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            # Starlette's word for a send after the client's close frame: the reader ends the connection.
            return


async def _receive_text(socket: WebSocket) -> str:
    """The next text. A binary message reads as an empty one, which is malformed."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1005)
    text = message.get("text")
    return text if isinstance(text, str) else ""


async def _send(socket: WebSocket, frame: Frame) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_text(encode(frame))


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.close(code, reason)
