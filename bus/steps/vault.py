"""Reads and replaces the values that are sealed with the state key: sessions, rows of the grant ledger, members, groups, prekeys.

A versioned value is replaced only if it still has the version that was read. Its seal is bound to its key name and version, so that
neither another value nor an older one can be put in its place.
"""

from collections.abc import Sequence
from typing import cast

import msgspec
import structlog

from bus.records.keys import Keys
from bus.records.numbers import number_in
from bus.records.sealing import SealBroken, StateKey
from bus.steps.prekey_wish import ROTATE_THROUGH
from bus.steps.store import SessionWrite
from bus.transport.client import RedisClient
from bus.transport.wire import RedisFailed

MAC_BYTES = 32
ONE_TIME_EPOCH = "one_time_epoch"  # a field of prekey_state

log = structlog.get_logger()


class Versioned(msgspec.Struct, frozen=True):
    """A value and the version that was read; version 0 and None if there is none."""

    version: int
    value: bytes | None
    epoch: int = 0

    def __repr__(self) -> str:
        return f"Versioned(version={self.version}, …)"


class LedgerStep(msgspec.Struct, frozen=True):
    """A new entry of the grant log, with its MAC and that of the entry before it (zeros for the first), 32 bytes each."""

    previous: bytes
    entry: bytes
    mac: bytes

    def __repr__(self) -> str:
        return "LedgerStep(…)"


class StoreIsNewer(RedisFailed):
    """A later version of this program wrote the value: whoever needs it waits for that version, as if Redis were away."""


class Vault:
    """The sealed values of one agent."""

    def __init__(self, client: RedisClient, keys: Keys, state_key: StateKey) -> None:
        self._client = client
        self._keys = keys
        self._state_key = state_key

    async def read_session(self, owner_id: str, device_id: str) -> tuple[int, bytes | None, int]:
        """Returns version, sealed record and epoch of a peer device's session."""
        key = self._keys.session(owner_id, device_id)
        version, sealed, epoch = cast("list[bytes | None]", await self._client.command("HMGET", key, "v", "b", "e"))
        return number_in(version), sealed, number_in(epoch)

    def open_session(self, owner_id: str, device_id: str, version: int, sealed: bytes) -> bytes:
        """Opens a session record; raises SealBroken."""
        return self._state_key.open(sealed, self._keys.session(owner_id, device_id), version)

    def seal_session(self, owner_id: str, device_id: str, version: int, record: bytes) -> SessionWrite:
        """Seals a session record as the successor of `version`."""
        key = self._keys.session(owner_id, device_id)
        return SessionWrite(owner_id, device_id, version, self._state_key.seal(record, key, version + 1))

    async def put_session(self, write: SessionWrite) -> bool:
        """Replaces a session record outside of any message; returns False if another has changed it."""
        keys = [self._keys.session(write.owner_id, write.device_id), self._keys.owners, self._keys.write_count]
        return await self._client.script("put_sealed", keys, write.version, write.sealed, "") == 1

    async def owner(self, owner_id: str) -> Versioned:
        """Returns the row of an owner. A damaged value counts as lost, here and below: None, with its version."""
        return self.open_owner(owner_id, *await self.read_owner(owner_id))

    async def read_owner(self, owner_id: str) -> tuple[int, bytes | None]:
        """Returns version and sealed row of an owner."""
        return await self._hash(self._keys.owner(owner_id))

    def open_owner(self, owner_id: str, version: int, sealed: bytes | None) -> Versioned:
        """Opens what `read_owner` returned."""
        return self._open(self._keys.owner(owner_id), version, sealed)

    async def owners(self, owner_ids: Sequence[str]) -> list[Versioned]:
        """Returns the rows of these owners, in order, by one command; pass a page of them, since Redis serves nobody else meanwhile."""
        keys = [self._keys.owner(owner_id) for owner_id in owner_ids]
        flat = cast("list[bytes | None]", await self._client.script("owner_rows", keys))
        found = zip(owner_ids, flat[::2], flat[1::2], strict=True)
        return [self.open_owner(owner_id, number_in(version), sealed) for owner_id, version, sealed in found]

    async def put_owner(self, owner_id: str, read: Versioned, row: bytes) -> bool:
        """Replaces a row without changing a grant; returns False if another has changed it."""
        return await self._replace(self._keys.owner(owner_id), read, row, name=owner_id)

    async def member(self, owner_id: str) -> Versioned:
        """Returns the key pair under which somebody is known in groups."""
        return await self._read(self._keys.member(owner_id))

    async def put_member(self, owner_id: str, read: Versioned, member: bytes) -> bool:
        """Replaces a member's pair; returns False if another has changed it."""
        return await self._replace(self._keys.member(owner_id), read, member)

    async def group(self, group_id: str) -> Versioned:
        """Returns the kept keys of a group."""
        return await self._read(self._keys.group(group_id))

    async def put_group(self, group_id: str, read: Versioned, keys: bytes) -> bool:
        """Replaces a group's keys; returns False if another has changed them."""
        return await self._replace(self._keys.group(group_id), read, keys)

    async def _read(self, key: str) -> Versioned:
        return self._open(key, *await self._hash(key))

    def _open(self, key: str, version: int, sealed: bytes | None) -> Versioned:
        try:
            return Versioned(version, None if sealed is None else self._state_key.open(sealed, key, version))
        except SealBroken:
            log.error("store: a value does not open, and is as good as lost", key=key)
            return Versioned(version, None)

    async def _hash(self, key: str) -> tuple[int, bytes | None]:
        version, sealed = cast("list[bytes | None]", await self._client.command("HMGET", key, "v", "b"))
        return number_in(version), sealed

    async def _replace(self, key: str, read: Versioned, value: bytes, *, name: str = "") -> bool:
        """Seals and replaces a value; returns False if another has changed it. `name`: in the index of owners, or ''."""
        sealed = self._state_key.seal(value, key, read.version + 1)
        keys = [key, self._keys.owners, self._keys.write_count]
        return await self._client.script("put_sealed", keys, read.version, sealed, name) == 1

    async def put_grant(self, owner_id: str, read: Versioned, row: bytes, change: LedgerStep) -> bool:
        """Replaces a row and appends its log entry in one step; returns False if either has changed meanwhile."""
        key = self._keys.owner(owner_id)
        sealed = self._state_key.seal(row, key, read.version + 1)
        entry = self._state_key.seal(change.entry, self._keys.grant_log, change.previous.hex())
        keys = [key, self._keys.owners, self._keys.grant_log, self._keys.grant_head, self._keys.write_count]
        previous = change.previous.hex() if any(change.previous) else ""
        arguments = (read.version, sealed, owner_id, previous, change.mac.hex(), entry)
        return await self._client.script("put_grant", keys, *arguments) == 1

    async def grant_head(self) -> bytes:
        """Returns the MAC of the last entry of the grant log, 32 bytes; zeros if it is empty."""
        head = cast("bytes | None", await self._client.command("GET", self._keys.grant_head))
        return bytes(MAC_BYTES) if head is None else bytes.fromhex(head.decode())

    async def grant_log(self) -> list[tuple[bytes, bytes]]:
        """Returns every entry of the grant log with its MAC, oldest first; raises SealBroken."""
        rows = cast("list[bytes]", await self._client.command("LRANGE", self._keys.grant_log, 0, -1))
        log, previous = [], bytes(MAC_BYTES)
        for row in rows:
            mac = bytes.fromhex(row[: 2 * MAC_BYTES].decode())
            log.append((self._state_key.open(row[2 * MAC_BYTES :], self._keys.grant_log, previous.hex()), mac))
            previous = mac
        return log

    async def next_prekey_ids(self, kind: str, count: int) -> int:
        """Reserves `count` unused ids of a kind ('signed' or 'one_time'); returns the first of them."""
        last = await self._client.command("HINCRBY", self._keys.prekey_state, kind, count)
        return cast(int, last) - count + 1

    async def signed_prekeys_to_replace(self) -> int:
        """Returns the id up to which signed prekeys are to be replaced (bus/steps/prekey_wish.py); 0 for none."""
        wished = await self._client.command("HGET", self._keys.prekey_state, ROTATE_THROUGH)
        return number_in(wished)

    async def prekey_wishes(self) -> tuple[int, int]:
        """Returns `signed_prekeys_to_replace` and `one_time_prekeys_epoch`, by one command."""
        found = await self._client.command("HMGET", self._keys.prekey_state, ROTATE_THROUGH, ONE_TIME_EPOCH)
        through, epoch = (number_in(one) for one in cast("list[bytes | None]", found))
        return through, epoch

    async def one_time_prekeys_epoch(self) -> int:
        """Returns the epoch in which all one-time prekeys were last replaced at the relay; 0 before that."""
        epoch = await self._client.command("HGET", self._keys.prekey_state, ONE_TIME_EPOCH)
        return number_in(epoch)

    async def note_one_time_prekeys_epoch(self, epoch: int) -> None:
        """Notes that all one-time prekeys were replaced in this epoch."""
        await self._client.command("HSET", self._keys.prekey_state, ONE_TIME_EPOCH, epoch)

    async def put_prekeys(self, key: str, prekeys: dict[int, bytes]) -> None:
        """Stores private halves (`key`: one of `Keys`' prekey hashes); call it before the public halves are published."""
        fields: list[int | bytes] = []
        for prekey_id, encoded in prekeys.items():
            fields += [prekey_id, self._state_key.seal(encoded, key, prekey_id)]
        if fields:
            await self._client.command("HSET", key, *fields)

    async def prekey(self, key: str, prekey_id: int) -> bytes | None:
        """Returns a private half; None if it is unknown, used or erased."""
        sealed = cast("bytes | None", await self._client.command("HGET", key, prekey_id))
        return None if sealed is None else self._state_key.open(sealed, key, prekey_id)

    async def restored_prekey(self, key: str, prekey_id: int) -> bytes | None:
        """Returns a private half out of a backup, which may decrypt for some time and is offered to nobody."""
        return await self.prekey(self._restored(key), prekey_id)

    async def restored_prekey_ids(self, key: str) -> list[int]:
        """Returns the ids of private halves that came out of a backup."""
        return [int(raw) for raw in cast("list[bytes]", await self._client.command("HKEYS", self._restored(key)))]

    def _restored(self, key: str) -> str:
        is_signed = key == self._keys.signed_prekeys
        return self._keys.restored_signed_prekeys if is_signed else self._keys.restored_one_time_prekeys

    async def prekeys(self, key: str) -> dict[int, bytes]:
        """Returns all private halves of a kind, by id. One that does not open counts as lost."""
        flat = cast("list[bytes]", await self._client.command("HGETALL", key))
        opened: dict[int, bytes] = {}
        for raw, sealed in zip(flat[::2], flat[1::2], strict=True):
            try:
                prekey_id = int(raw)
                opened[prekey_id] = self._state_key.open(sealed, key, prekey_id)
            except (ValueError, SealBroken):
                log.error("store: a value does not open, and is as good as lost", key=key)
        return opened

    async def erase_prekeys(self, key: str, prekey_ids: list[int]) -> None:
        """Erases private halves that are no longer offered."""
        if prekey_ids:
            await self._client.command("HDEL", key, *prekey_ids)

    async def prekeys_left(self, key: str) -> int:
        """Returns how many private halves of a kind there are."""
        return cast(int, await self._client.command("HLEN", key))
