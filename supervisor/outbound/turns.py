"""Lets messages from outside out of their line, one when the one before it is committed (bus/steps/outside.py).

Whoever commits one lets out the next at once; whoever is connected looks once a second, since whoever should have may be gone.
"""

from typing import Final

import structlog

from bus.records.outside import has_turn
from bus.records.records import BadRecord
from bus.steps.outside import OutsideLine
from bus.transport.wire import RedisFailed
from supervisor.outbound.outgoing import Head

log: Final = structlog.get_logger()


class Turns:
    """Those of one agent, as one of its supervisors."""

    def __init__(self, line: OutsideLine) -> None:
        self._line = line

    async def settled(self, head: Head) -> None:
        """Called when a reply was committed or given up: lets out the next message if it was one from outside."""
        if not has_turn(head.answers):
            return
        try:
            await self.look()
        except RedisFailed as error:
            log.warning("outside: waits for Redis", reason=str(error))  # whoever looks next goes on

    async def look(self) -> None:
        """Lets the first message of the line out, if none is on its way. Raises RedisFailed."""
        try:
            await self._line.let_out()
        except BadRecord as error:
            log.error("outside: not readable, and all behind it wait", reason=str(error))
