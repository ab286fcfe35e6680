"""To whom a conversation belongs, remembered: a pin never changes once it is set, so that a busy conversation is not looked up each time.

Only a Redis that went back in time forgets one (DESIGN rule 17): what was read under another epoch, or longer ago, counts no more.
"""

from collections import OrderedDict

import trio

from bus.steps.store import Store

MOST_REMEMBERED = 5000
REMEMBER_SECONDS = 60.0


class Pins:
    """Of the conversations that one supervisor answers in."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[int, float, tuple[str, str]]] = OrderedDict()

    async def find(self, conversation_id: str, epoch: int) -> tuple[str, str] | None:
        """The conversation's pinned kind and person; None before the first message. `epoch`: the present one."""
        known = self._known.get(conversation_id)
        if known is not None and known[0] == epoch and trio.current_time() - known[1] < REMEMBER_SECONDS:
            return known[2]
        pins = await self._store.pins(conversation_id)
        if pins is not None:
            self._remember(conversation_id, epoch, pins)
        return pins

    def _remember(self, conversation_id: str, epoch: int, pins: tuple[str, str]) -> None:
        self._known[conversation_id] = (epoch, trio.current_time(), pins)
        self._known.move_to_end(conversation_id)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
