"""Timers: what is due when, and making what is due a job of its conversation, once each time.

Redis' clock counts. Timers are set and dropped with the end of a job (settle.lua); here they are counted and fired.
"""

import enum
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.records.records import NOWHERE, BadRecord, NewerRecord
from bus.records.sealing import BusKey
from bus.records.timers import EVERY, Timer, keyed_id, open_timer, pack_job_of, pack_timer
from bus.steps.placing import MOST_PLACED
from bus.steps.write_count import epoch_now
from bus.transport.client import Commands
from bus.transport.clock import redis_ms
from bus.transport.wire import Value
from host.budgets import UNLIMITED_REDIS_BYTES, StoreBudgets

MOST_TIMERS = 1000
"""Of one conversation: nobody sets more by hand, and a handler that sets them without end is found."""
AT_ONCE = 100
"""Timers that are read at once, with their records of up to 6 KiB."""
AGAIN_MS = 10_000
"""After so long a due timer that could not be fired is looked at again; meanwhile those behind it have their turn."""


class Fired(enum.Enum):
    """The outcomes of `fire`."""

    FIRED = b"fired"
    CHANGED = b"changed"
    """It was set anew, dropped or fired since it was read."""

    EARLY = b"early"
    FULL = b"full"
    """Nothing was changed, since too much waits in its conversation: try again later."""


class Alarm(msgspec.Struct, frozen=True):
    """When which timer is due."""

    conversation_id: str
    timer_id: str
    due_ms: int


class Timers:
    """The timers of one agent."""

    def __init__(self, client: Commands, keys: Keys, bus_key: BusKey, budgets: StoreBudgets | None = None) -> None:
        self._client = client
        self._keys = keys
        self._bus_key = bus_key
        self.budgets = budgets or StoreBudgets.of(UNLIMITED_REDIS_BYTES)

    async def now_ms(self) -> int:
        """Returns Redis' time."""
        return await redis_ms(self._client)

    async def due(self, until_ms: int, count: int = AT_ONCE) -> list[Alarm]:
        """Returns the first `count` that are due by then, the longest due first."""
        command = ("ZRANGE", self._keys.alarms, "-inf", until_ms, "BYSCORE", "LIMIT", 0, count, "WITHSCORES")
        rows = cast("list[bytes]", await self._client.command(*command))
        return [_alarm(member, score) for member, score in zip(rows[::2], rows[1::2], strict=True)]

    async def read(self, alarm: Alarm) -> bytes | None:
        """Returns a timer's record; None if there is only its alarm."""
        answer = await self._client.command("HGET", self._keys.timers(alarm.conversation_id), alarm.timer_id)
        return cast("bytes | None", answer)

    def opened(self, packed: bytes, alarm: Alarm) -> Timer:
        """Returns the timer in its record. Raises BadRecord; NewerRecord for one of a later version."""
        return open_timer(
            packed, alarm.conversation_id, alarm.timer_id, key=self._bus_key, agent_id=self._keys.agent_id
        )

    async def fire(self, packed: bytes, timer: Timer, now_ms: int) -> Fired:
        """Makes a timer that is due a job of its conversation; a daily one is due again on a later date. Raises NoSuchTime."""
        epoch = await epoch_now(self._client, self._keys)
        job = pack_job_of(timer, now_ms, key=self._bus_key, agent_id=self._keys.agent_id, epoch=epoch)
        again = timer.next_after(now_ms)
        next_ms, record = ("", b"") if again is None else (again.due_ms, self.pack(again))
        answer: Value = await self._client.script(
            "fire",
            self._own(timer.conversation_id, self._keys.behind),
            *(timer.conversation_id, timer.id, packed, timer.job_id, job, timer.kind, next_ms, record),
            *(MOST_PLACED, self.budgets.waiting_bytes, self.budgets.ledger_entries),
        )
        return Fired(answer)

    def pack(self, timer: Timer) -> bytes:
        """Seals a timer into its record."""
        return pack_timer(timer, key=self._bus_key, agent_id=self._keys.agent_id)

    async def declare(self, name: str, every_seconds: int, now_ms: int) -> bool:
        """Sets the timer of a function that runs by itself, in no conversation, unless it stands as it is; returns whether it was set."""
        alarm = Alarm(NOWHERE, keyed_id(NOWHERE, EVERY + name), 0)
        packed = await self.read(alarm)
        if packed is not None and self._period_of(packed, alarm) == every_seconds * 1000:
            return False
        timer = Timer(
            id=alarm.timer_id,
            conversation_id=NOWHERE,
            due_ms=now_ms + every_seconds * 1000,
            kind="reminder",
            name=EVERY + name,
            every_ms=every_seconds * 1000,
        )
        words = (NOWHERE, timer.id, packed or b"", timer.due_ms, self.pack(timer))
        return await self._client.script("set_timer", self._own(NOWHERE), *words) == 1

    def _period_of(self, packed: bytes, alarm: Alarm) -> int:
        """Returns the period of a declared timer; 0 for a damaged one, which is set anew. Raises NewerRecord."""
        try:
            return self.opened(packed, alarm).every_ms
        except NewerRecord:
            raise
        except BadRecord:
            return 0

    async def forget(self, packed: bytes | None, alarm: Alarm) -> None:
        """Removes a timer that nobody can read, or an alarm that is left of one (`packed`: None)."""
        words = (alarm.conversation_id, alarm.timer_id, packed or b"")
        await self._client.script("forget_timer", self._own(alarm.conversation_id), *words)

    async def postpone(self, alarm: Alarm, until_ms: int) -> None:
        """Has a due timer that could not be fired looked at later; when it was due its record says."""
        member = f"{alarm.conversation_id}\x00{alarm.timer_id}"
        await self._client.command("ZADD", self._keys.alarms, "XX", "GT", until_ms, member)

    async def count(self, conversation_id: str) -> int:
        """Returns how many there are in a conversation."""
        return cast(int, await self._client.command("HLEN", self._keys.timers(conversation_id)))

    def _own(self, conversation_id: str, *more: str) -> tuple[str, ...]:
        keys = self._keys
        return (*keys.board(conversation_id), keys.timers(conversation_id), keys.alarms, *more)


def _alarm(member: bytes, score: bytes) -> Alarm:
    conversation_id, _, timer_id = member.decode("utf-8", "replace").partition("\x00")
    return Alarm(conversation_id, timer_id, int(float(score)))
