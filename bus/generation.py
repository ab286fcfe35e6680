"""Has Redis gone back in time (DESIGN rule 17)? Every writing script counts; a lower count than one that was seen says so.

One value per supervisor, shared by those who hear counts and those who send. What was seen before this process is read from the
state directory; a Redis that went back raises the epoch, once for all supervisors, before anything is sent.

The count alone does not do: before a supervisor looks, workers may have counted a Redis that went back beyond what it has seen. So a commit
runs on a connection that was looked at, or not at all, and a session that is older than the one that was stored is doubt enough.
"""

import secrets
from typing import cast

from bus.client import Commands
from bus.keys import Keys
from bus.wire import Value

FEWEST_IDS = 1 << 16


class Generation:
    """`highest`: the highest count seen. `epoch`: of the sessions that may be sent with. `is_doubted`: what is there is older than
    what was stored; nothing is committed until the epoch is raised. `looked_at`: commands on the connection that was looked at last.
    """

    def __init__(self, highest: int = 0) -> None:
        self.highest = highest
        self.epoch = 0
        self.is_doubted = False
        self.looked_at: Commands | None = None

    def seen(self, count: int) -> None:
        """A script has answered with this count."""
        self.highest = max(self.highest, count)

    async def check(self, client: Commands, keys: Keys, *, certainly_back: bool = False) -> bool:
        """Compare with what Redis says now; True when it went back and the epoch is raised. Raises RedisFailed."""
        highest, known = self.highest, self.epoch  # before asking: others hear later ones while we wait for this answer
        found = cast("list[bytes | None]", await client.command("MGET", keys.generation, keys.epoch))
        count, epoch = (int(value or 0) for value in found)
        if certainly_back or self.is_doubted or count < highest or epoch < known:
            await self.raise_epoch(client, keys)
            return True
        self.seen(count)
        self.epoch = max(self.epoch, epoch)
        return False

    async def raise_epoch(self, client: Commands, keys: Keys) -> None:
        """Sessions of the epochs so far are no longer sent with. Raises RedisFailed."""
        names = [keys.epoch, keys.generation, keys.interrupted, keys.prekey_state]
        further = (_ids_further(), _ids_further())
        answer = cast("list[Value]", await client.script("raise_epoch", names, self.epoch, self.highest, *further))
        epoch, count = cast(int, answer[0]), cast(int, answer[1])
        self.epoch = max(self.epoch, epoch)
        self.is_doubted = False
        self.seen(count)


def _ids_further() -> int:
    """Farther than ids were given out in anything that Redis may have forgotten, and far from the end of their 32 bits."""
    return FEWEST_IDS + secrets.randbelow(FEWEST_IDS)
