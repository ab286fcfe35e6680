"""A lease on one piece of the agent's work, so that one of several supervisors does it at a time.

It saves work and protects nothing: if the lease runs out two may do the work at once, which must do no harm.
"""

from collections.abc import Callable
from typing import cast

from bus.transport.client import Commands

LEASE_MS = 5000
"""So long one turn of the work may take, a page say, before another supervisor begins as well."""


def nobody_knows(_holder: str) -> bool:
    """Returns False: no supervisor is known to be gone, and only the end of its lease tells."""
    return False


class WorkLease:
    """The lease as one supervisor sees it. `holder`: its name; `knows_dead`: whether a supervisor of this name is certainly gone."""

    def __init__(
        self, client: Commands, key: str, *, holder: str, knows_dead: Callable[[str], bool] = nobody_knows
    ) -> None:
        self._client = client
        self._key = key
        self._holder = holder
        self._knows_dead = knows_dead

    async def hold(self, lease_ms: int = LEASE_MS) -> bool:
        """Takes or renews the lease for `lease_ms`; returns False while another supervisor, not known to be gone, has it."""
        if await self._hold(lease_ms):
            return True
        other = cast("bytes | None", await self._client.command("GET", self._key))
        if other is None or not self._knows_dead(other.decode()):
            return False
        return await self._hold(lease_ms, instead_of=other.decode())

    async def leave(self) -> None:
        """Gives the lease up; does nothing if another has it."""
        await self._client.script("leave_work_lease", [self._key], self._holder)

    async def _hold(self, lease_ms: int, *, instead_of: str = "") -> bool:
        return await self._client.script("hold_work_lease", [self._key], self._holder, lease_ms, instead_of) == 1
