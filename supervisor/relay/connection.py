"""The connection to the relay (PROTOCOL §2): open, authenticate, keep alive, open again. Carries frames, decides nothing of them.

The reader never waits for work: whoever is given a frame puts it somewhere and returns. Deaf is noticed (supervisor/relay/heartbeat.py),
whatever TCP believes: first doubted, and then what is under way here is left to others, then given up.
"""

import enum
import random
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from supervisor.observe.metrics import Metrics
from supervisor.relay.frames import (
    Auth,
    AuthError,
    AuthOk,
    Frame,
    FromRelay,
    MalformedFrame,
    MessageSend,
    Ping,
    Pong,
    StreamDelta,
    StreamDone,
    TypingStart,
    TypingStop,
    UnknownFrame,
    decode_from_relay,
    encode,
)
from supervisor.relay.heartbeat import Heartbeat
from supervisor.relay.relay_date import RelayDate
from supervisor.relay.turnstile import Turnstile
from supervisor.relay.websocket import BinaryMessageRefused, ConnectFailed, ConnectionLost, WebSocket, open_websocket
from supervisor.settings.secrets import Secret
from supervisor.settings.way import DIRECTLY, Way

AUTH_SECONDS = 5.0
SEND_SECONDS = 10.0
BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
REFUSED_RETRY_SECONDS = 60.0
LIMIT_RETRY_SECONDS = 0.5
STEADY_SECONDS = 30.0
"""A connection that ends sooner after auth.ok is a brief one: a single one costs nothing, each further one in a row doubles the pause."""

NORMAL = 1000
GOING_AWAY = 1001
SILENT_CLOSE_SECONDS = 0.2
"""How long a close frame is tried to be sent to a relay that does not answer: nothing of it will."""

FAILURES_WITH_SLOT = 3
"""After so many in a row a slot is worth more to another supervisor, which may reach the relay."""

OnFrame = Callable[[FromRelay], None]
OnConnected = Callable[[RelayDate | None], None]

log = structlog.get_logger()


class State(enum.Enum):
    """Of the connection; what the status page shows."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"


class NotConnected(Exception):
    """There is no authenticated connection to send over."""


class _Refused(Exception):
    """The relay has refused our authentication."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RelayAddress(msgspec.Struct, frozen=True):
    """Where the relay is, who we are there, and the way to it."""

    base_url: str
    agent_id: str
    token: Secret[str]
    way: Way = DIRECTLY

    @property
    def websocket_url(self) -> str:
        """The agent's WebSocket."""
        parts = urlsplit(self.base_url)
        scheme = {"http": "ws", "https": "wss"}[parts.scheme]
        return f"{scheme}://{parts.netloc}{parts.path}/ws/agent?agent_id={self.agent_id}"


class SlotHolder(Protocol):
    """What allows this supervisor to be connected (supervisor/relay/slots.py)."""

    async def take(self) -> None:
        """Wait until it is held."""

    async def lost(self) -> None:
        """Wait until it is held no longer."""

    async def give_up(self) -> None:
        """Others may have it."""

    def note_connected(self, connected: bool) -> None:
        """The connection is authenticated, or no longer."""

    def note_doubt(self, connection: int) -> None:
        """Of this connection, by its number, it is not known whether the relay still pushes into it in vain: others should ask."""

    def note_heard(self, connection: int) -> None:
        """It was heard after all."""

    @property
    def has_company(self) -> bool:
        """Another supervisor is connected, or waits for a slot."""

    @property
    def standby_waits(self) -> bool:
        """Another supervisor waits for a slot."""


class Connection:
    """One supervisor's connection. `number` counts authenticated connections; it changes with each."""

    def __init__(self, address: RelayAddress, metrics: Metrics, slot: SlotHolder) -> None:
        self._address = address
        self._metrics = metrics
        self._slot = slot
        self._socket: WebSocket | None = None
        self._heartbeat: Heartbeat | None = None
        self._turnstile = Turnstile()
        self._authenticated = trio.Event()
        self._draining = False
        self._running = trio.CancelScope()
        self._ended = trio.Event()
        self._ended.set()
        self._pong_wanted = trio.Event()
        self._connected_at = 0.0
        self._doubted = trio.Event()
        self._is_deaf = False
        self.state = State.DISCONNECTED
        self.number = 0
        self.refusal: str | None = None
        """Why the relay last refused us; None once it accepted."""

    @property
    def heard_seconds_ago(self) -> float | None:
        """How long the relay has been silent; None while disconnected."""
        return None if self._socket is None else trio.current_time() - self._socket.heard_at

    @property
    def is_trusted(self) -> bool:
        """Connected, and no doubt about it: what may be left to others is begun here."""
        return self.state is State.CONNECTED and not self._doubted.is_set()

    async def wait_connected(self) -> int:
        """Wait for an authenticated connection that is not doubted; its number."""
        while not self.is_trusted:
            await self._authenticated.wait()
        return self.number

    async def wait_doubted(self) -> None:
        """Wait until it is doubted whether the relay hears us."""
        await self._doubted.wait()

    async def send(self, frame: Frame) -> None:
        """Send over the authenticated connection, whole messages before deltas before typing; raises NotConnected."""
        async with self._turnstile.turn(_RANKS.get(type(frame), 0)):
            if self._socket is None or self.state is not State.CONNECTED:
                raise NotConnected
            socket, text = self._socket, encode(frame)
            if self._heartbeat is not None:
                self._heartbeat.sent(len(text), is_acknowledged=isinstance(frame, MessageSend | StreamDone))
            try:
                with trio.fail_after(SEND_SECONDS):
                    await socket.send(text)
            except (ConnectionLost, trio.TooSlowError):
                if self._socket is socket:
                    self._disconnected()  # now, not when its closing handshake has ended
                raise NotConnected from None

    async def run(self, on_frame: OnFrame, on_connected: OnConnected) -> None:
        """Keep a connection while a slot is held, until closed or cancelled.

        `on_frame` is given every frame of an authenticated connection but pings and pongs; `on_connected` the relay's date, before
        anybody can send. Both run in the reader and must return at once.
        """
        self._ended = trio.Event()
        try:
            with self._running:
                await self._keep(on_frame, on_connected)
        finally:
            self._ended.set()

    async def _keep(self, on_frame: OnFrame, on_connected: OnConnected) -> None:
        failures = brief = 0
        while not self._draining:
            await self._slot.take()
            before = self.number
            pause = await self._run_once(failures, on_frame, on_connected)
            self._disconnected()
            if self._draining:
                return
            if self.number == before:
                failures += 1
            else:  # auth.ok resets the backoff, but a relay that hangs up after each is not asked twice a second for ever
                is_steady = trio.current_time() - self._connected_at >= STEADY_SECONDS
                brief = 0 if is_steady else brief + 1
                failures = max(1, brief)
            if pause is None:
                backoff = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
                pause = random.uniform(0, backoff)  # noqa: S311 - jitter
            is_in_vain = pause > LIMIT_RETRY_SECONDS and (self.refusal is not None or failures > FAILURES_WITH_SLOT)
            if is_in_vain or (self._is_deaf and self._slot.standby_waits):
                await self._slot.give_up()
            await trio.sleep(pause)

    async def close(self) -> None:
        """Close with 1000 and stay closed; returns after the peer's close frame, or the adapter's bound.

        A connection that is only being tried is given up.
        """
        self._draining = True
        if self._socket is not None:
            await self._socket.close(1000, "draining")
        else:
            self._running.cancel()
        await self._ended.wait()

    async def _run_once(self, failures: int, on_frame: OnFrame, on_connected: OnConnected) -> float | None:
        """One connection from start to end; how long to wait before the next, None for the usual backoff."""
        self._set_state(State.CONNECTING, attempt=failures + 1)
        try:
            async with open_websocket(self._address.websocket_url, way=self._address.way) as socket:
                await self._authenticate(socket)
                if self._draining:
                    return None
                self._connected(socket)
                on_connected(socket.date)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._leave_when_gone, socket, nursery.cancel_scope)
                    nursery.start_soon(self._answer_pings)
                    nursery.start_soon(self._leave_without_slot, socket)
                    lost = await self._read_until_lost(socket, on_frame)
                    self._note_lost(lost)
                    nursery.cancel_scope.cancel()
        except ConnectFailed as error:
            log.warning("connection: failed", reason=error.reason)
        except ConnectionLost as error:
            log.warning("connection: lost", code=error.code, reason=error.reason)
        except trio.TooSlowError:
            log.warning("connection: failed", reason=f"no answer to authentication within {AUTH_SECONDS:.0f} s")
        except _Refused as error:
            return self._refused(error.reason)
        return None

    async def _leave_without_slot(self, socket: WebSocket) -> None:
        await self._slot.lost()
        log.warning("connection: another supervisor has the slot")
        await socket.close(1000, "standby")

    def _refused(self, reason: str) -> float:
        if reason != self.refusal:
            log.error("connection: refused", reason=reason, remedy=_REMEDIES.get(reason, "see the relay's message"))
        self.refusal = reason
        return LIMIT_RETRY_SECONDS if reason == "connection_limit" else REFUSED_RETRY_SECONDS

    async def _authenticate(self, socket: WebSocket) -> None:
        with trio.fail_after(AUTH_SECONDS):
            await socket.send(encode(Auth(token=self._address.token.reveal(), agent_id=self._address.agent_id)))
            while True:
                frame = await self._receive(socket)
                if isinstance(frame, AuthOk):
                    return
                if isinstance(frame, AuthError):
                    raise _Refused(frame.reason[:64])

    def _connected(self, socket: WebSocket) -> None:
        self._socket = socket
        self._is_deaf = False
        self._connected_at = trio.current_time()
        self._pong_wanted = trio.Event()
        self.number += 1
        self.refusal = None
        self._set_state(State.CONNECTED, connection=self.number)
        self._slot.note_connected(True)
        self._authenticated.set()

    def _disconnected(self) -> None:
        if self.state is State.CONNECTED:
            self._metrics.reconnects.inc()
            self._slot.note_connected(False)
        self._authenticated, self._doubted = _unset(self._authenticated), _unset(self._doubted)
        self._socket = self._heartbeat = None
        self.state = State.DISCONNECTED
        self._metrics.connection_status.set(0)

    async def _read_until_lost(self, socket: WebSocket, on_frame: OnFrame) -> ConnectionLost:
        while True:
            try:
                self._hear(await self._receive(socket), on_frame)
            except ConnectionLost as error:
                return error

    def _note_lost(self, lost: ConnectionLost) -> None:
        if self._draining or lost.code == NORMAL:
            log.info("connection: closed", code=lost.code)
        else:
            log.warning("connection: lost", code=lost.code, reason=lost.reason)

    def _hear(self, frame: FromRelay | None, on_frame: OnFrame) -> None:
        if isinstance(frame, Ping):
            self._pong_wanted.set()
        elif frame is not None and not isinstance(frame, Pong):
            on_frame(frame)

    async def _answer_pings(self) -> None:
        """One pong for all pings that came while the last one was sent: the reader never waits for a line that is slow the other way."""
        while True:
            await self._pong_wanted.wait()
            self._pong_wanted = trio.Event()
            try:
                await self.send(Pong())
            except NotConnected:
                return  # the reader hears of it too

    async def _receive(self, socket: WebSocket) -> FromRelay | None:
        """The next frame; None for one that is passed over. Raises ConnectionLost."""
        try:
            return self._decode(await socket.receive())
        except BinaryMessageRefused:
            self._metrics.frames_dropped.labels("binary").inc()
            return None

    def _decode(self, text: str) -> FromRelay | None:
        try:
            frame = decode_from_relay(text)
        except MalformedFrame as error:
            self._metrics.frames_dropped.labels("malformed").inc()
            log.warning("frame: malformed", frame_type=error.frame_type, field=error.field)
            return None
        if isinstance(frame, UnknownFrame):
            self._metrics.frames_dropped.labels("unknown_type").inc()
            return None
        return frame

    async def _leave_when_gone(self, socket: WebSocket, scope: trio.CancelScope) -> None:
        heartbeat = self._heartbeat = Heartbeat(socket, has_company=lambda: self._slot.has_company, doubt=self._doubt)
        await heartbeat.run()
        log.warning("connection: silent", seconds=round(trio.current_time() - socket.heard_at, 1))
        self._doubt(True)
        self._is_deaf = True
        await socket.close(GOING_AWAY, "silent", within_seconds=SILENT_CLOSE_SECONDS)
        scope.cancel()

    def _doubt(self, is_doubted: bool) -> None:
        if is_doubted == self._doubted.is_set():
            return
        if is_doubted:
            log.info("connection: in doubt, others do what is under way here", connection=self.number)
            self._authenticated = _unset(self._authenticated)
            self._doubted.set()
            self._slot.note_doubt(self.number)
        else:
            log.info("connection: heard after all", connection=self.number)
            self._doubted = _unset(self._doubted)
            self._authenticated.set()
            self._slot.note_heard(self.number)

    def _set_state(self, state: State, **facts: int) -> None:
        self.state = state
        self._metrics.connection_status.set(1 if state is State.CONNECTED else 0)
        log.info(f"connection: {state.value}", **facts)


def _unset(event: trio.Event) -> trio.Event:
    """One that is not set; whoever waits goes on waiting on the same."""
    return trio.Event() if event.is_set() else event


_RANKS: Mapping[type, int] = {StreamDelta: 1, TypingStart: 2, TypingStop: 2}
"""Who goes first when the line is slow; what is not named comes before all."""

_REMEDIES = {
    "invalid_token": "check HASHEE_AGENT_ID and HASHEE_AGENT_TOKEN",
    "connection_limit": "the relay counts other connections of this agent, maybe dead ones; tried again twice a second",
}
