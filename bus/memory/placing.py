"""Jobs that no message began (DESIGN §3, `place_job`)."""

from bus.memory.world import World
from bus.steps.placing import MOST_PLACED, Pins, Placed, placed_record
from host.budgets import UNLIMITED_REDIS_BYTES, StoreBudgets


class MemoryPlacing:
    """As `bus.steps.placing.Placing`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.budgets = StoreBudgets.of(UNLIMITED_REDIS_BYTES)

    async def epoch(self) -> int:
        return self._world.epoch

    async def pins(self, conversation_id: str) -> Pins | None:
        at = self._world.conversation(conversation_id)
        return None if at.kind is None or at.person is None else Pins(at.kind, at.person)

    async def place(self, packed: bytes) -> Placed:
        world, record = self._world, placed_record(packed)
        at = world.conversation(record.conversation_id)
        if record.job_id in world.placements:
            return Placed.ALREADY
        if len(at.placed) >= MOST_PLACED or not world.has_room("", self.budgets):
            return Placed.FULL
        world.placements.add(record.job_id)
        world.wrote()
        world.place(at, packed)
        return Placed.PLACED
