"""Has Redis gone back in time (DESIGN rule 17)? Every writing script counts; a lower count than one that was seen says so.

One value per supervisor, shared by those who hear counts and those who send. What was seen before this process is read from the
state directory; a Redis that went back raises the epoch, once for all supervisors, before anything is sent.
"""

from typing import cast

from bus.client import Commands
from bus.keys import Keys
from bus.wire import Value


class Generation:
    """`highest`: the highest count seen. `epoch`: of the sessions that may be sent with."""

    def __init__(self, highest: int = 0) -> None:
        self.highest = highest
        self.epoch = 0

    def seen(self, count: int) -> None:
        """A script has answered with this count."""
        self.highest = max(self.highest, count)

    async def check(self, client: Commands, keys: Keys, *, certainly_back: bool = False) -> bool:
        """Compare with what Redis says now; True when it went back and the epoch is raised. Raises RedisFailed."""
        highest = self.highest  # before asking: others hear later counts while we wait for this answer
        count, epoch = cast("list[bytes | None]", await client.command("MGET", keys.generation, keys.epoch))
        if certainly_back or int(count or 0) < highest:
            await self.raise_epoch(client, keys)
            return True
        self.seen(int(count or 0))
        self.epoch = max(self.epoch, int(epoch or 0))
        return False

    async def raise_epoch(self, client: Commands, keys: Keys) -> None:
        """Sessions of the epochs so far are no longer sent with. Raises RedisFailed."""
        names = [keys.epoch, keys.generation, keys.interrupted]
        answer = cast("list[Value]", await client.script("raise_epoch", names, self.epoch, self.highest))
        self.epoch, count = cast(int, answer[0]), cast(int, answer[1])
        self.seen(count)
