"""A piece of the agent's work that one supervisor does at a time, so that several do not all do the same.

It saves work and protects nothing: whoever holds it longer than its lease may meet another who does it too, and both must do no harm.
"""

from collections.abc import Callable
from typing import cast

from bus.transport.client import Commands


def nobody_knows(_holder: str) -> bool:
    """Of no supervisor is it known that it is gone; leases run out."""
    return False


class WorkLease:
    """One of its candidates. `holder`: the supervisor's name; `knows_dead`: whether a supervisor of this name is certainly gone."""

    def __init__(
        self, client: Commands, key: str, *, holder: str, knows_dead: Callable[[str], bool] = nobody_knows
    ) -> None:
        self._client = client
        self._key = key
        self._holder = holder
        self._knows_dead = knows_dead

    async def hold(self, lease_ms: int) -> bool:
        """Be the one for `lease_ms` from now; False while another is. For the lease of one that is gone nobody waits."""
        if await self._hold(lease_ms):
            return True
        other = cast("bytes | None", await self._client.command("GET", self._key))
        if other is None or not self._knows_dead(other.decode()):
            return False
        return await self._hold(lease_ms, instead_of=other.decode())

    async def leave(self) -> None:
        """Another may have it at once. Nothing where it is another's."""
        await self._client.script("leave_work_lease", [self._key], self._holder)

    async def _hold(self, lease_ms: int, *, instead_of: str = "") -> bool:
        return await self._client.script("hold_work_lease", [self._key], self._holder, lease_ms, instead_of) == 1
