"""What the keeper hears of its supervisor every second: that its loops turn, and in a line how it does (for systemd's STATUS).

A bulletin goes out only while the supervisor's own loops turn (DESIGN P7). One that falls silent is ended by the keeper.
"""

import trio

from supervisor.control.keeper_link import PULSE, PULSE_SECONDS, READY, RELOADING, KeeperLink
from supervisor.observe.health import Health
from supervisor.run.parts import Parts


class Bulletin:
    """Of one supervisor under a keeper."""

    def __init__(self, keeper: KeeperLink, parts: Parts, health: Health) -> None:
        self._keeper = keeper
        self._parts = parts
        self._health = health

    async def run(self) -> None:
        """Until cancelled."""
        was_reloading = False
        while True:
            reloading = self._parts.workforce.reloading.is_under_way
            if reloading != was_reloading:
                await self._keeper.report(RELOADING if reloading else READY, self._line())
                was_reloading = reloading
            elif self._health.liveness().ok:
                await self._keeper.report(PULSE, self._line())
            with trio.move_on_after(PULSE_SECONDS):
                await self._parts.workforce.reloading.changed.wait()

    def _line(self) -> str:
        """The relay's state, the workers', and what is bad."""
        parts = self._parts
        connection = parts.connection
        relay = "standby" if parts.slots.is_standby else connection.shown
        if connection.refusal:
            relay += f" (refused: {connection.refusal})"
        running = sum(status.running for status in parts.pool.statuses())
        line = f"{relay}; {parts.pool.ready} of {parts.pool.target} workers, {running} jobs"
        loop, problem = parts.pool.crash_loop, parts.workforce.reloading.problem
        return line + (f"; {loop}" if loop else "") + (f"; the last reload failed: {problem}" if problem else "")
