"""Requests a new signed prekey from whichever supervisor looks first (supervisor/peers/prekeys.py).

The request names the last id that there was when it was made: signed prekeys up to that id are replaced, once. So it needs no clock,
and nobody has to delete it.
"""

from typing import cast

from bus.records.keys import Keys
from bus.records.numbers import number_in
from bus.transport.client import RedisClient

ROTATE_THROUGH = "rotate_through"
LAST_SIGNED = "signed"


class PrekeyWish:
    """The request of one agent. It needs no key, since it opens nothing."""

    def __init__(self, client: RedisClient, names: Keys) -> None:
        self._client = client
        self._names = names

    async def ask(self) -> int:
        """Has every present signed prekey replaced; returns the last id among them. Raises RedisUnavailable."""
        last = await self._client.command("HGET", self._names.prekey_state, LAST_SIGNED)
        through = number_in(last)
        await self._client.command("HSET", self._names.prekey_state, ROTATE_THROUGH, through)
        return through

    async def newest(self) -> int:
        """Returns the id of the newest signed prekey; 0 if there is none. Raises RedisUnavailable."""
        ids = cast("list[bytes]", await self._client.command("HKEYS", self._names.signed_prekeys))
        return max(map(int, ids), default=0)
