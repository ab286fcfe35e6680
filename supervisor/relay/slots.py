"""The supervisor's slot: held while it is connected or tries to be, renewed, lost only when another holder is read there (DESIGN §4).

Without a slot this supervisor is a warm standby and looks several times a second whether one is free. While Redis is away nothing
changes: nobody is disconnected by an outage. The event loop itself renews: a supervisor that hangs loses its slot.
"""

import socket
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import msgspec
import structlog
import trio

from bus.steps.slots import HeldSlot, Holder, SlotStore
from bus.transport.wire import RedisFailed
from host.instance import Instance
from supervisor.relay.poll_wish import PollWish

RENEW_SECONDS = 0.5
"""How often a slot that is held is renewed: ten times within its lease (bus/steps/slots.py)."""

LOOK_SECONDS = 0.2
"""How often a standby looks for a free slot, which stays empty for so long at most."""

ABANDONED_SECONDS = 0.8
"""For so long a lease that ran out (in an outage, say) is left to its holder, which has renewed it by then if it lives."""

log = structlog.get_logger()


class ConnectionSlot:
    """Holds one slot of the agent for this supervisor, and knows who holds the others."""

    def __init__(self, store: SlotStore, instance: Instance, *, polls: PollWish) -> None:
        self._store = store
        self._instance = instance
        self._polls = polls
        self._me = Holder(instance.name, socket.gethostname()[:64], version("hashee-agent"), 0)
        self._wanted = False
        self._over = False
        self._order = trio.Lock()
        self._wake = trio.Event()
        self._changed = trio.Event()
        self._seen: HeldSlot | None = None
        self._expired: dict[str, float] = {}
        self._doubts: dict[int, bool] = {}
        self.number = 0
        """The slot that is held; 0 without one."""

    @property
    def is_standby(self) -> bool:
        """Whether it wants a slot and others have them all."""
        return self._wanted and self.number == 0 and self._seen is not None

    @property
    def held(self) -> int:
        """How many slots of the agent were held, ours too, when it last looked."""
        return sum(slot.leased for slot in self._seen.slots) if self._seen is not None else 0

    @property
    def detail(self) -> str:
        """The slot that is held, or who has them all, in words for the status page."""
        if self._seen is None:
            return "the slots are not known yet"
        others = ", ".join(f"{holder.host} ({holder.version})" for holder in self._others())
        return f"standby: every slot is taken by {others}" if self.is_standby else f"slot {self.number}"

    @property
    def speaks(self) -> bool:
        """Whether what must go out once, and is worth nothing later (typing), goes out here: the lowest connected slot."""
        lower = (
            (slot.holder for slot in self._seen.slots if slot.leased and slot.number < self.number)
            if self._seen
            else ()
        )
        return self.number > 0 and not any(holder is not None and holder.connected for holder in lower)

    @property
    def has_successor(self) -> bool:
        """Whether another supervisor is connected, or will be as soon as this one's slot is free."""
        return self._seen is not None and (
            self._seen.standby_waits or any(holder.connected and not holder.leaves for holder in self._others())
        )

    @property
    def has_company(self) -> bool:
        """Whether another supervisor that is not leaving is connected, or waits for a slot."""
        return self.has_successor

    @property
    def standby_waits(self) -> bool:
        """Whether another supervisor waits for a slot."""
        return self._seen is not None and self._seen.standby_waits

    async def run(self) -> None:
        """Holds, renews and looks, until cancelled."""
        while True:
            answered = await self._tell_doubts() and (await self._hold() if self._wanted else True)
            with trio.move_on_after(RENEW_SECONDS if answered and self.number else LOOK_SECONDS):
                await self._wake.wait()
            self._wake = trio.Event()

    async def wait_until_fit(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Waits for `ready`, but no longer than somebody is connected: a release that cannot work takes no slot from one that can."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when, ready, nursery.cancel_scope)
            nursery.start_soon(_cancel_when, self._nobody_is_connected, nursery.cancel_scope)

    async def _nobody_is_connected(self) -> None:
        """Waits until no supervisor is connected, as far as this host knows who is dead."""
        while True:
            try:
                if all(self._instance.knows_dead(holder) for holder in await self._store.connected()):
                    return
            except RedisFailed as error:
                log.debug("slot: Redis failed", reason=str(error))
            await trio.sleep(LOOK_SECONDS)

    async def take(self) -> None:
        """Waits until a slot is held; for ever once it was given up for good."""
        self._wanted = not self._over
        self._wake.set()
        while self.number == 0:
            await self._changed.wait()

    async def wait_standby(self) -> None:
        """Waits until it is known that others have every slot."""
        while not self.is_standby:
            await self._changed.wait()

    async def lost(self) -> None:
        """Waits until no slot is held."""
        while self.number:
            await self._changed.wait()

    def note_connected(self, connected: bool) -> None:
        """Tells the others whether we are connected, with a renewal at once."""
        me = self._me
        self._me = msgspec.structs.replace(
            me, connected=connected, deaf=me.deaf and not connected, yields=me.yields and not connected
        )
        self._wake.set()

    def note_doubt(self, connection: int) -> None:
        """Tells the others that the relay may push into this connection in vain, so that somebody else polls from now on."""
        self._me = msgspec.structs.replace(self._me, connected=False, deaf=True)
        self._doubts[connection] = True
        self._wake.set()

    def note_heard(self, connection: int) -> None:
        """Tells the others that this connection was heard after all."""
        self._doubts[connection] = False
        self.note_connected(True)

    def note_leaving(self) -> None:
        """Tells the others that a drain begins here, so that nobody else who leaves counts on us."""
        self._me = msgspec.structs.replace(self._me, leaves=True)
        self._wake.set()

    async def give_up_for_good(self) -> None:
        """Gives the slot up and wants no other any more."""
        self._over = True
        await self.give_up()

    async def give_up(self) -> None:
        """Gives the slot up; whoever waits for one gets it before we do. Waits for Redis no longer than the lease would last.

        To be called when nothing of ours is connected any more.
        """
        async with self._order:
            number, self._wanted = self.number, False
            self._me = msgspec.structs.replace(self._me, yields=True)
            self._set(0)
            if number == 0:
                return
            try:
                await self._store.give_up(self._me.holder, number)
            except RedisFailed as error:
                log.warning("slot: not given up, its lease runs out", reason=str(error))
            else:
                log.info("slot: given up", slot=number)

    async def _tell_doubts(self) -> bool:
        """Writes down which connections are in doubt. Returns whether Redis has answered."""
        for connection, is_doubted in list(self._doubts.items()):
            try:
                await self._store.doubt(f"{self._me.holder}#{connection}", is_doubted=is_doubted)
            except RedisFailed as error:
                log.debug("slot: Redis failed", reason=str(error))
                return False
            if self._doubts[connection] is is_doubted:
                del self._doubts[connection]
        return True

    async def _hold(self) -> bool:
        """Takes or renews a slot. Returns whether Redis has answered."""
        async with self._order:
            if not self._wanted:
                return True
            try:
                held = await self._store.hold(self._me, self._abandoned())
                if await self._free_the_dead(held):
                    held = await self._store.hold(self._me)
            except RedisFailed as error:
                log.debug("slot: Redis failed", reason=str(error))
                return False
            self._note(held)
            return True

    def _abandoned(self) -> list[str]:
        now = trio.current_time()
        return [holder for holder, since in self._expired.items() if now - since >= ABANDONED_SECONDS]

    async def _free_the_dead(self, held: HeldSlot) -> bool:
        """Frees at once what a dead process of this host held. Returns whether there was something."""
        freed = False
        for slot in held.slots:
            name = self._me.holder if slot.holder is None else slot.holder.holder
            if name == self._me.holder or not self._instance.knows_dead(name):
                continue
            if await self._store.free_dead(name, slot.number):
                log.warning("slot: its holder is gone", slot=slot.number, holder=name)
                freed = True
        return freed

    def _note(self, held: HeldSlot) -> None:
        now = trio.current_time()
        expired = {slot.holder.holder for slot in held.slots if slot.holder is not None and not slot.leased}
        self._expired = {holder: self._expired.get(holder, now) for holder in expired - {self._me.holder}}
        first, self._seen = self._seen is None, held
        before = self.number
        if held.number != before:
            self._set(held.number)
            if held.number == 0:
                log.warning("slot: lost, another has it", slot=before)
            else:
                log.info("slot: held", slot=held.number)
        elif first and held.number == 0:
            log.info("slot: standby", waits_for=[holder.host for holder in self._others()])
            self._set(0)
        if held.poll:
            self._polls.ask()

    def _others(self) -> list[Holder]:
        slots = self._seen.slots if self._seen is not None else ()
        return [
            slot.holder
            for slot in slots
            if slot.leased and slot.holder is not None and slot.holder.holder != self._me.holder
        ]

    def _set(self, number: int) -> None:
        if number and not self.number:
            self._me = msgspec.structs.replace(self._me, since_ms=int(time.time() * 1000))
        self.number = number
        self._changed.set()
        self._changed = trio.Event()


async def _cancel_when(ready: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await ready()
    scope.cancel()
