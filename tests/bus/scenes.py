"""One agent's bus with supervisors and workers on demand, in memory or in a real Redis; a test cannot tell which.

Nothing here waits: `take` answers None where there is nothing, and time passes when a test says so (in Redis by moving all that lies
there into the past). So the operations can also be run outside trio, by `at_once`.
"""

import copy
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import msgspec

from bus.memory.inbound import MemoryNotes, MemoryQuarantine, MemoryStore
from bus.memory.outbound import MemoryOutbox
from bus.memory.outside import MemoryOutside
from bus.memory.placing import MemoryPlacing
from bus.memory.recovery import MemoryLetters, MemoryRecovery
from bus.memory.timers import MemoryTimers
from bus.memory.work import MemorySteps
from bus.memory.world import Counted, World
from bus.records.records import Job
from bus.steps.policies import Policies
from bus.steps.store import MOST_WAITING_IN_ALL
from bus.steps.write_count import Found, Proof, WriteCount
from bus.transport.readers import StreamEntry
from tests.bus.builders import AGENT, BUS_KEY
from tests.bus.traits import (
    Inbound,
    KeptSteps,
    Letters,
    Outbound,
    Outside,
    Placing,
    Reclaiming,
    Timers,
    Unread,
    Waiting,
)

Result = TypeVar("Result")

SERVER = Proof("server")
RESTING_FIELDS = frozenset({"next", "kind", "person", "t0", "t1", "t2", "td", "history", "history_from"})
RESTING_KINDS = frozenset(
    {
        *("conv", "ids", "taken", "session", "message", "one_time_prekeys"),  # of each conversation and peer
        *(
            "gen",
            "epoch",
            "continuity",
            "cursor",
            "policy",
            "budget",
            "jobs",
            "replies",
            "ledger",
            "dead",
            "waiting",
            "rate",
            "reclaimer",
            "load",
            "prekey_state",
            "cards",
            "placements",
            "behind",
            "state",
            "history",
            "histories",
            "store",
            "timers",
            "alarms",
            "send_keys",
        ),
    }
)


def at_once(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(Result, end.value)
    raise AssertionError("it waits")


class Facts(msgspec.Struct, frozen=True):
    """What a bus says of itself, and what it should say by what lies in it."""

    write_count: int
    waiting: int
    in_mailboxes: int
    busy: frozenset[str]
    at_work: frozenset[str]
    counted: dict[str, int] = {}
    waits: dict[str, int] = {}


class Worker(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> KeptSteps: ...

    async def take(self) -> Job | None: ...

    async def renew(self, *entry_ids: str) -> tuple[list[str], list[str]]:
        """Those that are lost, those that are superseded."""


class Supervisor(Protocol):
    name: str
    store: Inbound
    outbox: Outbound
    outside: Outside
    recovery: Reclaiming
    dead: Letters
    quarantine: Unread
    notes: Waiting
    placing: Placing
    timers: Timers
    write_count: WriteCount

    async def take_reply(self) -> StreamEntry | None: ...

    async def check(self, proof: Proof = SERVER, *, certainly_back: bool = False) -> Found:
        """At the start and after a reconnect: has Redis gone back?"""


class Scene(Protocol):
    async def supervisor(self, name: str, *, most_waiting_in_all: int = MOST_WAITING_IN_ALL) -> Supervisor: ...

    async def worker(self, name: str, policies: Policies | None = None) -> Worker: ...

    async def time_passes(self, milliseconds: int) -> None: ...

    async def add_prekey(self, number: int) -> None: ...

    async def remember(self) -> object: ...

    async def go_back(self, remembered: object) -> None: ...

    async def lose_dead_letters(self) -> None:
        """Somebody deletes them by hand."""

    async def facts(self) -> Facts: ...

    async def used_today(self, subject: str) -> tuple[int, int]:
        """The messages and tokens that are counted of a subject of budgets."""

    async def leftovers(self) -> list[str]:
        """What lies there though everything is answered."""

    def close(self) -> None: ...


# In memory


@dataclass
class MemoryWorker:
    name: str
    steps: MemorySteps

    async def take(self) -> Job | None:
        return await self.steps.take()

    async def renew(self, *entry_ids: str) -> tuple[list[str], list[str]]:
        return await self.steps.renew(*entry_ids)


class MemorySupervisor:
    def __init__(self, world: World, name: str, most_waiting_in_all: int) -> None:
        self.name = name
        self._world = world
        self.write_count = WriteCount()
        self.store: Inbound = MemoryStore(world, self.write_count, most_waiting_in_all)
        self._outbox = MemoryOutbox(world, name, self.write_count)
        self.outbox: Outbound = self._outbox
        self.outside: Outside = MemoryOutside(world)
        self.recovery: Reclaiming = MemoryRecovery(world, name)
        self.dead: Letters = MemoryLetters(world)
        self.quarantine: Unread = MemoryQuarantine(world)
        self.notes: Waiting = MemoryNotes(world)
        self.placing: Placing = MemoryPlacing(world)
        self.timers: Timers = MemoryTimers(world, AGENT, BUS_KEY)

    async def take_reply(self) -> StreamEntry | None:
        return await self._outbox.take()

    async def check(self, proof: Proof = SERVER, *, certainly_back: bool = False) -> Found:
        world, mine = self._world, self.write_count
        found = Found.OLDER if certainly_back or mine.is_doubted else self._found(proof)
        world.server = proof.server
        if found is not Found.SAME:
            if world.epoch <= mine.epoch:
                world.epoch = mine.epoch + 1
            world.write_count = max(world.write_count, mine.highest) + 1
            world.commits = max(world.commits, mine.commits, proof.commits)
        mine.epoch, mine.is_doubted = max(mine.epoch, world.epoch), False
        mine.seen(world.write_count)
        mine.committed(world.commits)
        return found

    def _found(self, proof: Proof) -> Found:
        world, mine = self._world, self.write_count
        if world.write_count < mine.highest or world.epoch < mine.epoch or world.commits < mine.commits:
            return Found.OLDER
        if world.server == proof.server or (world.server is None and world.write_count == 0):
            return Found.SAME
        if world.server in proof.may_follow:
            return Found.OLDER if world.commits < proof.commits else Found.SAME
        return Found.UNPROVEN if world.server is None else Found.OTHER


class MemoryScene:
    def __init__(self) -> None:
        self._world = World()

    async def supervisor(self, name: str, *, most_waiting_in_all: int = MOST_WAITING_IN_ALL) -> Supervisor:
        return MemorySupervisor(self._world, name, most_waiting_in_all)

    async def worker(self, name: str, policies: Policies | None = None) -> Worker:
        self._world.policies = policies or Policies()
        return MemoryWorker(name, MemorySteps(self._world, AGENT, BUS_KEY, name, self._world.policies))

    def counted(self, subject: str) -> Counted:
        """What is counted of a subject of budgets."""
        return self._world.budget(subject)

    async def used_today(self, subject: str) -> tuple[int, int]:
        counted = self.counted(subject)
        return counted.messages, counted.tokens

    async def time_passes(self, milliseconds: int) -> None:
        self._world.now_ms += milliseconds

    async def lose_dead_letters(self) -> None:
        self._world.dead.clear()

    async def add_prekey(self, number: int) -> None:
        self._world.one_time_prekeys.add(number)

    async def remember(self) -> object:
        return copy.deepcopy(self._world)

    async def go_back(self, remembered: object) -> None:
        entries, now_ms = self._world.entries, self._world.now_ms
        vars(self._world).update(vars(copy.deepcopy(cast(World, remembered))))
        self._world.entries, self._world.now_ms = entries, now_ms  # clocks do not go back

    async def facts(self) -> Facts:
        world = self._world
        busy = frozenset(
            name
            for name, at in world.conversations.items()
            if at.has_job or at.reply is not None or at.sent is not None
        )
        loads = dict(world.loads())
        return Facts(world.write_count, world.waiting_in_all(), world.waiting_in_all(), busy, busy, loads, loads)

    async def leftovers(self) -> list[str]:
        return [
            name
            for name, at in self._world.conversations.items()
            if at.waiting
            or at.placed
            or at.together
            or at.emitted
            or at.emitted_before_death
            or at.journal
            or at.waits
            or at.out_box
            or at.stream
            or at.own
        ] + [*self._world.notes, *(["outside"] if self._world.line else [])]

    def close(self) -> None:
        """Nothing is open."""


# In Redis
