"""The relay as the supervisor's core sees it, in memory: its REST side and a connection, both obeying the test."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from supervisor.relay.connection import Connection, NotConnected
from supervisor.relay.connection_states import HOLDS, State
from supervisor.relay.frames import Frame, FromRelay, Relation
from supervisor.relay.rest import Json, Page, Rest, RestFailed
from tests.waiting import waiting_for


async def relations_of(rest: Rest) -> list[Relation]:
    """All that it tells of."""
    told = list[Relation]()

    async def keep(relation: Relation) -> None:
        told.append(relation)

    await rest.relations(keep)
    return told


class FakeRest(Rest):
    """Answers from its fields. `fail_next` makes the next calls of one kind fail, each once."""

    def __init__(self) -> None:
        self.related: list[Relation] = []
        self.bundles: dict[str, list[Json]] = {}
        self.agents: dict[str, Json] = {}
        self.group_keys: dict[str, str] = {}
        self.registered: list[Json] = []
        self.left: int | None = None
        self.history: list[FromRelay] = []
        self.page_length = 100
        self.polled_with: list[str | None] = []
        self.calls: list[str] = []
        self._failures: dict[str, list[RestFailed]] = {}
        self._held: dict[str, trio.Event] = {}

    def fail_next(self, call: str, *failures: RestFailed) -> None:
        self._failures.setdefault(call, []).extend(failures or [RestFailed(call, 503, "unavailable")])

    def fail_no_more(self) -> None:
        """Every call succeeds again."""
        self._failures.clear()

    def hold_next(self, call: str) -> trio.Event:
        """The next call of this kind has its answer ready and gives it when the event is set."""
        self._held[call] = trio.Event()
        return self._held[call]

    async def called(self, call: str) -> None:
        self.calls.append(call)
        await trio.lowlevel.checkpoint()
        if self._failures.get(call):
            raise self._failures[call].pop(0)

    async def _let_go(self, call: str) -> None:
        held = self._held.pop(call, None)
        if held is not None:
            await held.wait()

    async def register_keys(self, body: Json) -> int:
        await self.called("register_keys")
        self.registered.append(body)
        if self.left is not None:
            return self.left
        replacing = [number for number, one in enumerate(self.registered) if one.get("replace")]
        return sum(len(_list(one["one_time_prekeys"])) for one in self.registered[max(replacing, default=0) :])

    async def devices(self, user_id: str) -> list[Json]:
        await self.called("devices")
        answer = list(self.bundles.get(user_id, []))
        await self._let_go("devices")
        return answer

    async def agent_keys(self, agent_id: str) -> Json:
        await self.called("agent_keys")
        if agent_id not in self.agents:
            raise RestFailed("agent_keys", 404, "NOT_FOUND")
        return self.agents[agent_id]

    async def group_key(self, group_id: str) -> str:
        await self.called("group_key")
        if group_id not in self.group_keys:
            raise RestFailed("group_key", 404, "NOT_FOUND")
        answer = self.group_keys[group_id]
        await self._let_go("group_key")
        return answer

    async def relations(self, note: Callable[[Relation], Awaitable[None]]) -> None:
        await self.called("relations")
        answer = tuple(self.related)
        await self._let_go("relations")
        for relation in answer:
            await note(relation)

    async def poll(self, cursor: str | None) -> Page:
        await self.called("poll")
        self.polled_with.append(cursor)
        ids = [message_id_of(frame) for frame in self.history]
        start = ids.index(cursor) + 1 if cursor in ids else 0
        frames = self.history[start : start + self.page_length]
        return Page(list(frames), message_id_of(frames[-1]) if frames else None)


class FakeConnection(Connection):
    """Connected and disconnected by the test; keeps what was sent."""

    def __init__(self) -> None:
        self.state = State.DISCONNECTED
        self.number = 0
        self.refusal = None
        self.sent: list[Frame] = []
        self.on_send: trio.Event | None = None
        self._changed = trio.Event()
        self._doubted = trio.Event()

    def doubt(self) -> None:
        self.state = State.DOUBTED
        self._doubted.set()

    def connect(self) -> None:
        self.state = State.CONNECTED
        self.number += 1
        if self._doubted.is_set():
            self._doubted = trio.Event()
        self._notify()

    def disconnect(self) -> None:
        self.state = State.DISCONNECTED
        self._notify()

    async def wait_connected(self) -> int:
        while not self.is_trusted:
            await self._changed.wait()
        return self.number

    async def send(self, frame: Frame) -> None:
        await trio.lowlevel.checkpoint()
        if not HOLDS[self.state].may_send:
            raise NotConnected
        self.sent.append(frame)
        self._notify()

    async def wait_sent(self, count: int, seconds: float = 5.0) -> list[Frame]:
        """The first `count` frames, as soon as there are so many."""
        with waiting_for(f"{count} frames to be sent", seconds):
            while len(self.sent) < count:
                await self._changed.wait()
        return self.sent[:count]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class FreeSlot:
    """A slot that is always held until the test takes it away; `given_up` counts."""

    def __init__(self) -> None:
        self.given_up = 0
        self.is_connected = False
        self.has_company = False
        self.standby_waits = False
        self.doubts: list[tuple[int, bool]] = []
        self._taken_away = trio.Event()

    async def take(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._taken_away.is_set():
            await trio.sleep_forever()

    async def lost(self) -> None:
        await self._taken_away.wait()

    async def give_up(self) -> None:
        await trio.lowlevel.checkpoint()
        self.given_up += 1

    def note_connected(self, connected: bool) -> None:
        self.is_connected = connected

    def note_doubt(self, connection: int) -> None:
        self.doubts.append((connection, True))

    def note_heard(self, connection: int) -> None:
        self.doubts.append((connection, False))

    def take_away(self) -> None:
        self._taken_away.set()


def message_id_of(frame: FromRelay) -> str:
    return str(getattr(frame, "message_id", ""))


def _list(value: object) -> Sequence[object]:
    assert isinstance(value, list)
    return value
