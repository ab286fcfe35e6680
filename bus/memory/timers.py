"""Timers (DESIGN §3, `fire`)."""

from bus.memory.world import World
from bus.records.records import NOWHERE
from bus.records.sealing import BusKey
from bus.records.timers import EVERY, Timer, keyed_id, open_timer, pack_job_of, pack_timer
from bus.steps.placing import MOST_PLACED
from bus.steps.timers import AT_ONCE, Alarm, Fired
from host.budgets import UNLIMITED_REDIS_BYTES, StoreBudgets


class MemoryTimers:
    """As `bus.steps.timers.Timers`."""

    def __init__(self, world: World, agent_id: str, bus_key: BusKey) -> None:
        self._world = world
        self._agent_id = agent_id
        self._bus_key = bus_key
        self.budgets = StoreBudgets.of(UNLIMITED_REDIS_BYTES)

    async def now_ms(self) -> int:
        return self._world.now_ms

    async def due(self, until_ms: int, count: int = AT_ONCE) -> list[Alarm]:
        found = sorted((due, *where) for where, (due, _) in self._world.timers.items() if due <= until_ms)
        return [Alarm(conversation_id, timer_id, due) for due, conversation_id, timer_id in found[:count]]

    async def read(self, alarm: Alarm) -> bytes | None:
        return self._world.timers.get((alarm.conversation_id, alarm.timer_id), (0, None))[1]

    def opened(self, packed: bytes, alarm: Alarm) -> Timer:
        return open_timer(packed, alarm.conversation_id, alarm.timer_id, key=self._bus_key, agent_id=self._agent_id)

    async def declare(self, name: str, every_seconds: int, now_ms: int) -> bool:
        """Nobody's declared timer is damaged here, or of a later version."""
        timer_id = keyed_id(NOWHERE, EVERY + name)
        packed = await self.read(alarm := Alarm(NOWHERE, timer_id, 0))
        if packed is not None and self.opened(packed, alarm).every_ms == every_seconds * 1000:
            return False
        due_ms, every_ms = now_ms + every_seconds * 1000, every_seconds * 1000
        timer = Timer(
            id=timer_id,
            conversation_id=NOWHERE,
            due_ms=due_ms,
            kind="reminder",
            name=EVERY + name,
            every_ms=every_ms,
        )
        packed = pack_timer(timer, key=self._bus_key, agent_id=self._agent_id)
        self._world.timers[NOWHERE, timer_id] = (due_ms, packed)
        self._world.wrote()
        return True

    async def fire(self, packed: bytes, timer: Timer, now_ms: int) -> Fired:
        world, where = self._world, (timer.conversation_id, timer.id)
        due_ms, record = world.timers.get(where, (0, b""))
        if record != packed:
            return Fired.CHANGED
        if due_ms > world.now_ms:
            return Fired.EARLY
        at = world.conversation(timer.conversation_id)
        if len(at.placed) >= MOST_PLACED or not world.has_room("", self.budgets):
            return Fired.FULL
        world.wrote()
        del world.timers[where]
        again = timer.next_after(now_ms)
        if again is not None:
            world.timers[where] = (again.due_ms, pack_timer(again, key=self._bus_key, agent_id=self._agent_id))
        world.place(at, pack_job_of(timer, now_ms, key=self._bus_key, agent_id=self._agent_id))
        return Fired.FIRED

    async def forget(self, packed: bytes | None, alarm: Alarm) -> None:
        if await self.read(alarm) == packed:
            self._world.timers.pop((alarm.conversation_id, alarm.timer_id), None)

    async def postpone(self, alarm: Alarm, until_ms: int) -> None:
        where = (alarm.conversation_id, alarm.timer_id)
        if where in self._world.timers:
            due_ms, record = self._world.timers[where]
            self._world.timers[where] = (max(due_ms, until_ms), record)

    async def count(self, conversation_id: str) -> int:
        return sum(1 for one, _ in self._world.timers if one == conversation_id)
