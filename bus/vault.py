"""Sealed values of the supervisor in Redis: sessions, rows of the grant ledger, prekeys. Sealed with the state key.

A versioned value changes only from the version that was read; its seal is bound to its key name and version, so that neither
another value nor an older one can be put in its place.
"""

from typing import cast

import msgspec

from bus.client import RedisClient
from bus.keys import Keys
from bus.sealing import StateKey
from bus.store import SessionWrite


class Versioned(msgspec.Struct, frozen=True):
    """A value and the version under which it was read; version 0 with None: it does not exist."""

    version: int
    value: bytes | None
    epoch: int = 0

    def __repr__(self) -> str:
        return f"Versioned(version={self.version}, …)"


class Vault:
    """Sealed values of one agent."""

    def __init__(self, client: RedisClient, keys: Keys, state_key: StateKey) -> None:
        self._client = client
        self._keys = keys
        self._state_key = state_key

    async def session(self, owner_id: str, device_id: str) -> Versioned:
        """The record of a peer device; raises SealBroken."""
        key = self._keys.session(owner_id, device_id)
        version, sealed, epoch = cast("list[bytes | None]", await self._client.command("HMGET", key, "v", "b", "e"))
        return self.open_session(owner_id, device_id, int(version or 0), sealed, int(epoch or 0))

    def open_session(self, owner_id: str, device_id: str, version: int, sealed: bytes | None, epoch: int) -> Versioned:
        """Open a record that was read together with other things; raises SealBroken."""
        if sealed is None:
            return Versioned(version, None)
        key = self._keys.session(owner_id, device_id)
        return Versioned(version, self._state_key.open(sealed, key, version), epoch)

    def seal_session(self, owner_id: str, device_id: str, read: Versioned, record: bytes) -> SessionWrite:
        """Seal a device record as the successor of the one read."""
        key = self._keys.session(owner_id, device_id)
        sealed = self._state_key.seal(record, key, read.version + 1)
        return SessionWrite(owner_id, device_id, read.version, sealed)

    async def owner(self, owner_id: str) -> Versioned:
        """The row of an owner; raises SealBroken."""
        key = self._keys.owner(owner_id)
        version, sealed = cast("list[bytes | None]", await self._client.command("HMGET", key, "v", "b"))
        if sealed is None:
            return Versioned(0, None)
        return Versioned(int(version or 0), self._state_key.open(sealed, key, int(version or 0)))

    async def put_owner(self, owner_id: str, read: Versioned, row: bytes) -> bool:
        """Replace the row that was read; False when another has changed it."""
        key = self._keys.owner(owner_id)
        sealed = self._state_key.seal(row, key, read.version + 1)
        keys = [key, self._keys.owners, self._keys.generation]
        return await self._client.script("put_sealed", keys, read.version, sealed, owner_id) == 1

    async def next_prekey_ids(self, kind: str, count: int) -> int:
        """Reserve `count` ids of a kind ('signed' or 'one_time'), never used before; the first of them."""
        last = await self._client.command("HINCRBY", self._keys.prekey_state, kind, count)
        return cast(int, last) - count + 1

    async def put_prekeys(self, key: str, prekeys: dict[int, bytes]) -> None:
        """Store private halves (`key`: one of `Keys`' prekey hashes); durable before the public halves are published."""
        fields: list[int | bytes] = []
        for prekey_id, encoded in prekeys.items():
            fields += [prekey_id, self._state_key.seal(encoded, key, prekey_id)]
        if fields:
            await self._client.command("HSET", key, *fields)

    async def prekey(self, key: str, prekey_id: int) -> bytes | None:
        """A private half; None when it is unknown, used or erased."""
        sealed = cast("bytes | None", await self._client.command("HGET", key, prekey_id))
        return None if sealed is None else self._state_key.open(sealed, key, prekey_id)

    async def prekeys(self, key: str) -> dict[int, bytes]:
        """All private halves of a kind."""
        flat = cast("list[bytes]", await self._client.command("HGETALL", key))
        ids = [int(raw) for raw in flat[::2]]
        return {
            prekey_id: self._state_key.open(sealed, key, prekey_id)
            for prekey_id, sealed in zip(ids, flat[1::2], strict=True)
        }

    async def erase_prekeys(self, key: str, prekey_ids: list[int]) -> None:
        """Erase private halves that are no longer offered."""
        if prekey_ids:
            await self._client.command("HDEL", key, *prekey_ids)

    async def prekeys_left(self, key: str) -> int:
        """How many private halves of a kind there are."""
        return cast(int, await self._client.command("HLEN", key))
