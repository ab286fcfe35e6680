"""The wish for a new signed prekey, noted where every supervisor looks (supervisor/peers/prekeys.py).

It names the last id that there was when it was made: a prekey up to that id is replaced, whoever does it, once. So the wish
needs no clock and nobody has to delete it.
"""

from typing import cast

from bus.records.keys import Keys
from bus.transport.client import RedisClient

ROTATE_THROUGH = "rotate_through"
LAST_SIGNED = "signed"


class PrekeyWish:
    """For one agent; without any key, since it opens nothing."""

    def __init__(self, client: RedisClient, names: Keys) -> None:
        self._client = client
        self._names = names

    async def ask(self) -> int:
        """Have every signed prekey that there is now replaced; the last id among them. Raises RedisUnavailable."""
        last = await self._client.command("HGET", self._names.prekey_state, LAST_SIGNED)
        through = int(cast("bytes | None", last) or 0)
        await self._client.command("HSET", self._names.prekey_state, ROTATE_THROUGH, through)
        return through

    async def newest(self) -> int:
        """The id of the newest signed prekey; 0 when there is none. Raises RedisUnavailable."""
        ids = cast("list[bytes]", await self._client.command("HKEYS", self._names.signed_prekeys))
        return max(map(int, ids), default=0)
