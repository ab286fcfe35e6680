"""Operations on connection slots, which bound how many supervisors of an agent are connected to the relay at a time (DESIGN §4).

A slot is a lease on Redis' clock, so that hosts need not agree on the time. Its holder's record outlives the lease: a lease that ran
out without being given up leaves a ghost, a connection into which the relay may still push.
"""

from collections.abc import Iterable
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.transport.client import RedisClient
from bus.transport.wire import Value
from host.unreadable import UNREADABLE

LEASE_SECONDS = 5.0
GHOST_SECONDS = 90.0  # the relay calls a silent connection dead after that (PROTOCOL §2)
GHOST_POLL_SECONDS = 2.0  # a message that was pushed into a dead connection waits so long; only while there is a ghost


class Holder(msgspec.Struct, frozen=True):
    """A supervisor that holds or wants a slot. `holder`: its name (host/instance.py). `since_ms`: by its host's clock, for people.

    `leaves`: it drains. `deaf`: the relay does not answer it, or did not when it was last connected, so it would poll in vain. `yields`:
    it gave its slot up and lets others take one first.
    """

    holder: str
    host: str
    version: str
    since_ms: int
    connected: bool = False
    leaves: bool = False
    deaf: bool = False
    yields: bool = False


class Slot(msgspec.Struct, frozen=True):
    """One slot as it was before the operation. `holder` is known also after its lease has run out (`leased` is false then)."""

    number: int
    leased: bool
    holder: Holder | None


class HeldSlot(msgspec.Struct, frozen=True):
    """The result of `hold`. `number`: our slot, 0 if others have all. `poll`: poll the relay for what was pushed into a ghost."""

    number: int
    poll: bool
    standby_waits: bool
    slots: tuple[Slot, ...]


class SlotStore:
    """The slots of one agent, 1 to `most`."""

    def __init__(self, client: RedisClient, keys: Keys, most: int) -> None:
        self._client = client
        self._keys = keys
        self._leases = [keys.slot(number) for number in range(1, most + 1)]

    async def hold(self, me: Holder, abandoned: Iterable[str] = ()) -> HeldSlot:
        """Takes a slot or renews ours. `abandoned`: holders whose lease was seen to have run out; their slots may be taken."""
        keys = [self._keys.slots, self._keys.ghosts, self._keys.ghost_poll, self._keys.standby, *self._leases]
        answer = await self._client.script(
            "slot_hold",
            keys,
            me.holder,
            msgspec.json.encode(me),
            int(LEASE_SECONDS * 1000),
            int(GHOST_SECONDS * 1000),
            int(GHOST_POLL_SECONDS * 1000),
            *abandoned,
        )
        number, poll, standby, *rows = cast("list[Value]", answer)
        slots = tuple(
            Slot(place, leased == 1, holder_of(cast(bytes, record)))
            for place, (leased, record) in enumerate(zip(rows[::2], rows[1::2], strict=True), start=1)
        )
        return HeldSlot(cast(int, number), poll == 1, standby == 1, slots)

    async def doubt(self, ghost: str, *, is_doubted: bool) -> None:
        """Notes or clears the doubt that the relay pushes in vain into this connection; while it is doubted another supervisor polls."""
        ghost_ms = int(GHOST_SECONDS * 1000) if is_doubted else 0
        await self._client.script("slot_doubt", [self._keys.ghosts, self._keys.ghost_poll], ghost, ghost_ms)

    async def connected(self) -> list[str]:
        """Returns the names of holders that were connected by their last word; one of them may be gone."""
        records = cast("list[bytes]", await self._client.command("HVALS", self._keys.slots))
        return [holder.holder for record in records if (holder := holder_of(record)) is not None and holder.connected]

    async def give_up(self, holder: str, number: int) -> bool:
        """Frees our slot at once, after our connection was closed."""
        return await self._free(holder, number, 0)

    async def free_dead(self, holder: str, number: int) -> bool:
        """Frees the slot of a holder that is known to be gone, and leaves a ghost, since the relay may not know it yet."""
        return await self._free(holder, number, int(GHOST_SECONDS * 1000))

    async def _free(self, holder: str, number: int, ghost_ms: int) -> bool:
        keys = [self._keys.slots, self._keys.ghosts, self._keys.slot(number)]
        return await self._client.script("slot_free", keys, holder, number, ghost_ms) == 1


def holder_of(record: bytes) -> Holder | None:
    """Decodes a holder's record; None if there is none, or another version wrote it in another form."""
    try:
        return msgspec.json.decode(record, type=Holder) if record else None
    except UNREADABLE:
        return None
