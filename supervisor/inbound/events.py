"""From an event of the relay (PROTOCOL §2) to a job, where the handlers' code asks for events of that name.

The relay keeps no events: what it tells while nobody is connected is lost. What it tells twice within a minute, to one supervisor or to
two, is placed once. While Redis is away they wait here, within a bound.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import structlog
import trio

from bus.records.events import EVENTS, Event, content_of
from bus.records.records import NOWHERE, pack_placed_job
from bus.records.sealing import BusKey
from bus.steps.placing import JobTooLarge, Placed, Placing
from bus.steps.policies import PolicyStore
from bus.transport.wire import MENDABLE, RedisFailed
from host.budgets import StoreBudgets
from supervisor.observe.metrics import Metrics
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.relay.frames import FromRelay, PlatformEvent, Relation

MOST_WAITING = 1000
"""Events that wait here, of a few hundred bytes each."""

SAME_SECONDS = 60
"""The same words within so long are one event that came twice."""

WANTED_SECONDS = 1.0
"""For so long it is remembered which events the handlers ask for; most agents ask for none."""

AGAIN_SECONDS = 1.0
MOST_TRIES = 60
"""An event for which there is no room is tried for a minute."""

log = structlog.get_logger()


@dataclass(frozen=True)
class _Heard:
    event: Event
    at_seconds: float
    tries: int = 0


class Events:
    """The events that one supervisor hears."""

    def __init__(
        self,
        placing: Placing,
        policies: PolicyStore,
        *,
        bus_key: BusKey,
        agent_id: str,
        metrics: Metrics,
        budgets: Callable[[], StoreBudgets] | None = None,
    ) -> None:
        """`budgets`: returns the present ones."""
        self._budgets = budgets
        self._placing = placing
        self._policies = policies
        self._bus_key = bus_key
        self._agent_id = agent_id
        self._metrics = metrics
        self._waiting: deque[_Heard] = deque()
        self._more = trio.Event()
        self._wanted: frozenset[str] = frozenset()
        self._wanted_until = -1.0

    @property
    def waiting(self) -> int:
        """How many wait to be placed."""
        return len(self._waiting)

    def heard(self, frame: FromRelay) -> None:
        """Takes note of a frame, if it is an event. Returns at once."""
        event = event_of(frame)
        if event is None:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._metrics.frames_dropped.labels("event_overflow").inc()
            return
        self._waiting.append(_Heard(event, trio.current_time()))
        self._more.set()

    async def run(self) -> None:
        """Places what was heard, until cancelled."""
        trouble = said_trouble("events")
        while True:
            await self._more.wait()
            self._more = trio.Event()
            again: list[_Heard] = []
            while self._waiting:
                try:
                    if not await self._place(self._waiting[0]):
                        again.append(replace(self._waiting[0], tries=self._waiting[0].tries + 1))
                    self._waiting.popleft()
                    trouble.over()
                except MENDABLE as error:
                    trouble.met(error)
                    await trio.sleep(AGAIN_SECONDS)
                except RedisFailed as error:
                    trouble.met(error)
                    self._drop(self._waiting.popleft().event, "event_refused")
            if again:
                await trio.sleep(AGAIN_SECONDS)
                self._waiting.extendleft(reversed(again))
                self._more.set()

    async def _place(self, heard: _Heard) -> bool:
        """Places one event; returns False if there is no room for it yet. Raises RedisFailed."""
        event = heard.event
        if event.name not in await self._wanted_now():
            return True
        now_ms = await self._placing.now_ms()
        word = hashlib.sha256(msgspec.msgpack.encode(event, order="deterministic")).hexdigest()[:16]
        bucket = int(now_ms / 1000 - (trio.current_time() - heard.at_seconds)) // SAME_SECONDS
        if await self._placing.was_placed(_id_of(bucket - 1, word)):
            return True
        pins = None if event.conversation_id is None else await self._placing.pins(event.conversation_id)
        content = content_of(
            event,
            _id_of(bucket, word),
            conversation_id=event.conversation_id if pins and event.conversation_id else NOWHERE,
            kind=pins.kind if pins else "h2a",
            person=pins.person if pins and pins.kind != "group" else "",
        )
        packed = pack_placed_job(
            "event",
            content,
            placed_ms=now_ms,
            key=self._bus_key,
            agent_id=self._agent_id,
            epoch=await self._placing.epoch(),
        )
        if self._budgets is not None:
            self._placing.budgets = self._budgets()
        try:
            placed = await self._placing.place(packed)
        except JobTooLarge:
            self._drop(event, "event_too_large")
            return True
        if placed is Placed.FULL and heard.tries >= MOST_TRIES:
            self._drop(event, "event_full")
            return True
        return placed is not Placed.FULL

    def _drop(self, event: Event, reason: str) -> None:
        self._metrics.frames_dropped.labels(reason).inc()
        log.warning("event: dropped", of=event.name, reason=reason)

    async def _wanted_now(self) -> frozenset[str]:
        if trio.current_time() >= self._wanted_until:
            self._wanted = await self._policies.events()
            self._wanted_until = trio.current_time() + WANTED_SECONDS
        return self._wanted


def event_of(frame: FromRelay) -> Event | None:
    """Returns the event in a frame, None for any other frame."""
    if isinstance(frame, PlatformEvent):
        name, fields = frame.frame_type, frame.fields
    else:
        name = str(type(frame).__struct_config__.tag)
        if name not in EVENTS:
            return None
        payload = getattr(frame, "payload", frame)
        fields = msgspec.to_builtins(payload)
        fields.pop("type", None)
        if isinstance(payload, Relation):
            fields.pop("status", None)
    return Event(
        name=name,
        conversation_id=_text(fields.get("conversation_id")),
        user_id=_text(fields.get("user_id") or fields.get("recalled_by")),
        fields=fields,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _id_of(bucket: int, word: str) -> str:
    return f"event:{bucket}-{word}"
