"""The connection to the relay (PROTOCOL §2): open, authenticate, keep alive, open again. Carries frames, decides nothing of them.

The reader never waits for work: whoever is given a frame puts it somewhere and returns. A relay that no longer answers is noticed by
supervisor/relay/heartbeat.py, whatever TCP believes: the connection is doubted first, and others do what is under way here; then it is
given up. Its states and moves are the tables in supervisor/relay/connection_states.py.
"""

import math
import random
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from supervisor.observe.metrics import Metrics
from supervisor.relay.connection_states import HOLDS, Move, State, Told, step
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
from supervisor.relay.heartbeat import RelayHeartbeat
from supervisor.relay.relay_date import RelayDate
from supervisor.relay.turnstile import Turnstile
from supervisor.relay.websocket import BinaryMessageRefused, ConnectFailed, ConnectionLost, WebSocket, open_websocket
from supervisor.settings.secrets import Secret
from supervisor.settings.way import DIRECTLY, Way

AUTH_SECONDS = 5.0
"""For our first frame and the relay's answer to it (PROTOCOL §2)."""

SEND_SECONDS = 10.0
"""A relay that takes nothing for so long is gone: the frame goes out over the next connection."""

SEND_LOOK_SECONDS = 1.0
"""Between two looks whether a send is stuck. A deadline for each send would cost a hundredth of a message."""

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The longest pause after the first, second, … failure in a row (PROTOCOL §2), each with full jitter."""

REFUSED_RETRY_SECONDS = 60.0
"""After `invalid_token`, which only an owner can mend: PROTOCOL §2 wants it tried slowly."""

LIMIT_RETRY_SECONDS = 0.5
"""After `connection_limit`: the connection that is in our way may be a dead one, which the relay can notice at any moment."""

STEADY_SECONDS = 30.0
"""A connection that ends sooner after auth.ok is a brief one: a single one costs nothing, each further one in a row doubles the pause."""

NORMAL = 1000
GOING_AWAY = 1001
"""Close codes (RFC 6455 §7.4.1)."""

SILENT_CLOSE_SECONDS = 0.2
"""How long we try to send a close frame to a relay that does not answer, and so will not answer the close frame either."""

FAILURES_WITH_SLOT = 3
"""After so many in a row a slot is worth more to another supervisor, which may reach the relay."""

MOST_REASON_CHARACTERS = 64
"""Of the relay's reason for a refusal, which is shown and logged."""

OnFrame = Callable[[FromRelay], None]
OnConnected = Callable[[RelayDate | None], None]

log = structlog.get_logger()


class NotConnected(Exception):
    """Raised when there is no authenticated connection to send over."""


class RelayAddress(msgspec.Struct, frozen=True):
    """Where the relay is, who we are there, and the way to it."""

    base_url: str
    agent_id: str
    token: Secret[str]
    way: Way = DIRECTLY

    @property
    def websocket_url(self) -> str:
        """Returns the address of the agent's WebSocket."""
        parts = urlsplit(self.base_url)
        scheme = {"http": "ws", "https": "wss"}[parts.scheme]
        return f"{scheme}://{parts.netloc}{parts.path}/ws/agent?agent_id={self.agent_id}"


class SlotHolder(Protocol):
    """What allows this supervisor to be connected (supervisor/relay/slots.py)."""

    async def take(self) -> None:
        """Waits until the slot is held."""

    async def lost(self) -> None:
        """Waits until the slot is held no longer."""

    async def give_up(self) -> None:
        """Leaves the slot to others, until the next `take`."""

    def note_connected(self, connected: bool) -> None:
        """Tells the others whether the connection is authenticated."""

    def note_doubt(self, connection: int) -> None:
        """Tells the others that the relay may push into this connection (by its number) in vain, so that they poll."""

    def note_heard(self, connection: int) -> None:
        """Tells the others that this connection was heard after all."""

    @property
    def has_company(self) -> bool:
        """Whether another supervisor is connected, or waits for a slot."""

    @property
    def standby_waits(self) -> bool:
        """Whether another supervisor waits for a slot."""


class Connection:
    """One supervisor's connection. `number` counts authenticated connections; it changes with each."""

    def __init__(self, address: RelayAddress, metrics: Metrics, slot: SlotHolder) -> None:
        self._address = address
        self._metrics = metrics
        self._slot = slot
        self._socket: WebSocket | None = None
        self._heartbeat: RelayHeartbeat | None = None
        self._turnstile = Turnstile()
        self._trusted = trio.Event()
        self._doubted = trio.Event()
        self._running = trio.CancelScope()
        self._ended = trio.Event()
        self._ended.set()
        self._pong_wanted = trio.Event()
        self._connected_at = 0.0
        self._sending_since = math.inf
        self._was_deaf = False
        self.state = State.DISCONNECTED
        self.number = 0
        self.refusal: str | None = None
        """Why the relay last refused us; None once it accepted."""
        self.problem = ""
        """Why the last attempt failed, or the last connection was lost; '' while the relay has accepted one."""

    @property
    def shown(self) -> str:
        """The state's word for the status page: disconnected, connecting or connected."""
        return HOLDS[self.state].shown

    @property
    def is_connected(self) -> bool:
        """Whether the relay counts us as connected, doubted or not."""
        return HOLDS[self.state].is_connected

    @property
    def is_trusted(self) -> bool:
        """Whether it is connected without any doubt, so that new work may be begun on it."""
        return HOLDS[self.state].is_trusted

    @property
    def heard_seconds_ago(self) -> float | None:
        """How long the relay has been silent; None while disconnected."""
        return None if self._socket is None else trio.current_time() - self._socket.heard_at

    async def wait_connected(self) -> int:
        """Waits for a connection that is trusted. Returns its number."""
        while not self.is_trusted:
            await self._trusted.wait()
        return self.number

    async def wait_doubted(self) -> None:
        """Waits until it is doubted whether the relay hears us."""
        await self._doubted.wait()

    async def send(self, frame: Frame) -> None:
        """Sends over the authenticated connection, whole messages before deltas before typing. Raises NotConnected."""
        async with self._turnstile.turn(_RANKS.get(type(frame), 0)):
            if self._socket is None or not HOLDS[self.state].may_send:
                raise NotConnected
            socket, text = self._socket, encode(frame)
            self._sending_since = now = trio.current_time()
            if self._heartbeat is not None:
                self._heartbeat.sent(len(text), now, is_acknowledged=isinstance(frame, MessageSend | StreamDone))
            try:
                await socket.send(text)
            except ConnectionLost:
                if self._socket is socket and HOLDS[self.state].may_send:
                    self._move(Move.LOSE)  # now, not when its closing handshake has ended
                raise NotConnected from None
            finally:
                self._sending_since = math.inf

    async def run(self, on_frame: OnFrame, on_connected: OnConnected) -> None:
        """Keeps a connection while a slot is held, until closed or cancelled.

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
        while not self._is_leaving:
            await self._slot.take()
            if self._is_leaving:
                return
            before = self.number
            self._move(Move.TRY)
            log.info("connection: connecting", attempt=failures + 1)
            await self._run_once(on_frame, on_connected)
            self._move(Move.LOSE)
            if self._is_leaving:
                return
            if self.number == before:
                failures += 1
            else:  # auth.ok resets the backoff, but a relay that hangs up after each is not asked twice a second for ever
                is_steady = trio.current_time() - self._connected_at >= STEADY_SECONDS
                brief = 0 if is_steady else brief + 1
                failures = max(1, brief)
            pause = self._pause_seconds(failures)
            is_in_vain = pause > LIMIT_RETRY_SECONDS and (self.refusal is not None or failures > FAILURES_WITH_SLOT)
            if is_in_vain or (self._was_deaf and self._slot.standby_waits):
                await self._slot.give_up()
            await trio.sleep(pause)

    def _pause_seconds(self, failures: int) -> float:
        """Returns how long to wait before the next attempt, after so many failures in a row."""
        if self.state is State.REFUSED:
            return LIMIT_RETRY_SECONDS if self.refusal == "connection_limit" else REFUSED_RETRY_SECONDS
        backoff = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
        return random.uniform(0, backoff)  # noqa: S311 - jitter

    async def close(self) -> None:
        """Closes with 1000 for good; returns after the peer's close frame or CLOSE_TIMEOUT_SECONDS. An attempt is given up."""
        self._move(Move.CLOSE)
        if self._socket is not None:
            await self._socket.close(NORMAL, "draining")
        else:
            self._running.cancel()
        await self._ended.wait()

    @property
    def _is_leaving(self) -> bool:
        return self.state in (State.DRAINING, State.CLOSED)

    async def _run_once(self, on_frame: OnFrame, on_connected: OnConnected) -> None:
        """Runs one connection from its start to its end."""
        try:
            async with open_websocket(self._address.websocket_url, way=self._address.way) as socket:
                refusal = await self._authenticate(socket)
                if self._is_leaving:
                    return
                if refusal is not None:
                    return self._refused(refusal)
                self._connected(socket)
                on_connected(socket.date)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._leave_when_gone, socket, nursery.cancel_scope)
                    nursery.start_soon(self._leave_when_stuck, socket)
                    nursery.start_soon(self._answer_pings)
                    nursery.start_soon(self._leave_without_slot, socket)
                    lost = await self._read_until_lost(socket, on_frame)
                    self._note_lost(lost)
                    nursery.cancel_scope.cancel()
        except ConnectFailed as error:
            self._note_failed(error.reason)
        except ConnectionLost as error:
            self._tell_lost(error)
        except trio.TooSlowError:
            self._note_failed(f"no answer to authentication within {AUTH_SECONDS:.0f} s")

    def _note_failed(self, reason: str) -> None:
        self.problem = reason
        log.warning("connection: failed", reason=reason)

    def _tell_lost(self, lost: ConnectionLost) -> None:
        self.problem = f"lost: {lost.reason or lost.code}"
        log.warning("connection: lost", code=lost.code, reason=lost.reason)

    async def _leave_when_stuck(self, socket: WebSocket) -> None:
        """Ends a connection that has taken nothing for SEND_SECONDS: whoever sends hears of it, and whoever reads."""
        is_stuck = False
        while not is_stuck:
            await trio.sleep(SEND_LOOK_SECONDS)
            is_stuck = trio.current_time() - self._sending_since >= SEND_SECONDS
        log.warning("connection: takes nothing", seconds=SEND_SECONDS)
        self._move(Move.LOSE)
        await socket.close(GOING_AWAY, "takes nothing", within_seconds=0.0)

    async def _leave_without_slot(self, socket: WebSocket) -> None:
        await self._slot.lost()
        log.warning("connection: another supervisor has the slot")
        await socket.close(NORMAL, "standby")

    async def _authenticate(self, socket: WebSocket) -> str | None:
        """Returns None once accepted, else the relay's reason. Raises ConnectionLost, TooSlowError."""
        with trio.fail_after(AUTH_SECONDS):
            await socket.send(encode(Auth(token=self._address.token.reveal(), agent_id=self._address.agent_id)))
            while True:
                frame = await self._receive(socket)
                if isinstance(frame, AuthOk):
                    return None
                if isinstance(frame, AuthError):
                    return frame.reason[:MOST_REASON_CHARACTERS]

    def _refused(self, reason: str) -> None:
        if reason != self.refusal:
            log.error("connection: refused", reason=reason, remedy=_REMEDIES.get(reason, "see the relay's message"))
        self.refusal = reason
        self._move(Move.REFUSE)

    def _connected(self, socket: WebSocket) -> None:
        self._socket = socket
        self._was_deaf = False
        self._connected_at = trio.current_time()
        self._pong_wanted = trio.Event()
        self.number += 1
        self.refusal, self.problem = None, ""
        log.info("connection: connected", connection=self.number)
        self._move(Move.ACCEPT)

    def _move(self, move: Move) -> None:
        """Changes the state by the table, and tells everybody who follows it. Raises ImpossibleMove."""
        taken = step(self.state, move)
        self.state, holds = taken.to, HOLDS[taken.to]
        if not holds.is_connected:
            self._socket = self._heartbeat = None
        self._metrics.connection_status.set(1 if holds.is_connected else 0)
        self._trusted = _like(self._trusted, holds.is_trusted)
        self._doubted = _like(self._doubted, self.state is State.DOUBTED)
        match taken.told:
            case Told.CONNECTED:
                self._slot.note_connected(True)
            case Told.DISCONNECTED:
                self._metrics.reconnects.inc()
                self._slot.note_connected(False)
            case Told.DOUBTED:
                log.info("connection: in doubt, others do what is under way here", connection=self.number)
                self._slot.note_doubt(self.number)
            case Told.HEARD:
                log.info("connection: heard after all", connection=self.number)
                self._slot.note_heard(self.number)

    async def _read_until_lost(self, socket: WebSocket, on_frame: OnFrame) -> ConnectionLost:
        while True:
            try:
                self._hear(await self._receive(socket), on_frame)
            except ConnectionLost as error:
                return error

    def _note_lost(self, lost: ConnectionLost) -> None:
        if self._is_leaving or lost.code == NORMAL:
            log.info("connection: closed", code=lost.code)
        else:
            self._tell_lost(lost)

    def _hear(self, frame: FromRelay | None, on_frame: OnFrame) -> None:
        if isinstance(frame, Ping):
            self._pong_wanted.set()
        elif frame is not None and not isinstance(frame, Pong):
            on_frame(frame)

    async def _answer_pings(self) -> None:
        """Sends one pong for all pings that came while the last one was sent, so that the reader never waits for a slow line."""
        while True:
            await self._pong_wanted.wait()
            self._pong_wanted = trio.Event()
            try:
                await self.send(Pong())
            except NotConnected:
                return  # the reader hears of it too

    async def _receive(self, socket: WebSocket) -> FromRelay | None:
        """Returns the next frame, None for one that is passed over. Raises ConnectionLost."""
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
        heartbeat = self._heartbeat = RelayHeartbeat(
            socket,
            has_company=lambda: self._slot.has_company,
            doubt=lambda is_doubted: self._move(Move.DOUBT if is_doubted else Move.TRUST),
        )
        await heartbeat.run()
        log.warning("connection: silent", seconds=round(trio.current_time() - socket.heard_at, 1))
        self._move(Move.DOUBT)
        self._was_deaf = True
        await socket.close(GOING_AWAY, "silent", within_seconds=SILENT_CLOSE_SECONDS)
        scope.cancel()


def _like(event: trio.Event, is_set: bool) -> trio.Event:
    """Returns an event that is set or not; the same one unless it would have to be unset, so that whoever waits goes on waiting."""
    if not is_set:
        return trio.Event() if event.is_set() else event
    event.set()
    return event


_RANKS: Mapping[type, int] = {StreamDelta: 1, TypingStart: 2, TypingStop: 2}
"""Who goes first when the line is slow; what is not named comes before all."""

_REMEDIES = {
    "invalid_token": "check HASHEE_AGENT_ID and HASHEE_AGENT_TOKEN",
    "connection_limit": "the relay counts other connections of this agent, maybe dead ones; tried again twice a second",
}
