"""Checks that a store secret or bus key opens this store, before anything is sealed or opened (PROTOCOL §5.11).

A hash beside the data holds a value sealed by the state key, one sealed by the bus key, and the keys that a rotation carries over. A process
with another secret is refused here; otherwise it would take good values for damaged ones. The sealed values' headers tell the key epoch.
"""

import contextlib
from collections.abc import Mapping
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.records.sealing import BusKey, SealBroken, SealingKey, StoreKeys, epoch_of
from bus.transport.client import Commands
from bus.transport.wire import RedisFailed

STATE_CHECK = "check"
BUS_CHECK = "bus"
NEXT_CHECK = "next"
RESTORING = "restoring"
"""The field that exists while the store is replaced by one out of a backup (bus/whole/restore_switch.py)."""
IDENTIFIER = "identifier"
FOR_WORKERS = "identifier for workers"
"""The same key, sealed with the bus key: workers name what they send as it will be sent."""
LEDGER = "ledger"
CHECKED = b"hashee-store"


class StoreSealed(Exception):
    """This store cannot be opened now with the given secret."""


class OtherStoreSecret(StoreSealed):
    """The store is sealed under another store secret."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"what this Redis holds is sealed under another {name}; find the right one, nothing was changed"
        )


class RotationUnderWay(StoreSealed):
    """A rotation is not finished: some values open with the old store secret, some with the new one."""

    def __init__(self) -> None:
        super().__init__(
            "a rotation of the store secret is under way or was interrupted; finish it: hashee-agent keys rotate-store"
        )


class RestoreUnderWay(StoreSealed):
    """A restore is not finished: parts of the old store are gone, parts of the new one are not there yet."""

    def __init__(self) -> None:
        super().__init__(
            "a restore of this store is under way or was interrupted; finish it: hashee-agent restore --finish"
        )


class SealDamaged(StoreSealed):
    """The secret is the store's, and the keys that a rotation carried over do not open with it."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"{key} in Redis is damaged; bring a backup back: hashee-agent restore FILE --over-newer-store"
        )


class Rotation(msgspec.Struct, frozen=True):
    """The keys before and after a rotation. `turned`: every value was re-sealed already, only the old secret is left to be forgotten."""

    old: StoreKeys
    new: StoreKeys
    turned: bool

    def __repr__(self) -> str:
        return f"Rotation(turned={self.turned}, …)"


class StoreSeal:
    """The seal of one agent's store."""

    def __init__(self, client: Commands, names: Keys) -> None:
        self._client = client
        self._key = names.seal

    async def adopt(self, store_secret: bytes) -> StoreKeys:
        """Returns the keys of the store; a new store is sealed with this secret. A sealed store opens also while Redis takes no writes.

        Raises OtherStoreSecret, RotationUnderWay, RedisUnavailable.
        """
        found = await self._fields()
        if STATE_CHECK not in found:
            await self._note(STATE_CHECK, StoreKeys.derive(store_secret).state)
            found = await self._fields()  # another process may have been first
        _refuse_half_done(found)
        keys = self._keys(store_secret, found)
        if keys is None:
            raise OtherStoreSecret("store secret (HASHEE_STORE_KEY)")
        if BUS_CHECK not in found:
            await self._note(BUS_CHECK, keys.bus)
        if FOR_WORKERS not in found or not self._opens(keys.bus, FOR_WORKERS, found[FOR_WORKERS]):
            await self._tell_workers(keys)
        return keys

    async def _tell_workers(self, keys: StoreKeys) -> None:
        with contextlib.suppress(RedisFailed):  # what opens also while Redis takes no writes tells them the next time
            told = keys.bus.seal(keys.identifier, self._key, FOR_WORKERS)
            await self._client.command("HSET", self._key, FOR_WORKERS, told)

    async def is_there(self) -> bool:
        """Returns whether the store has a seal. Raises RedisUnavailable."""
        return await self._client.command("EXISTS", self._key) == 1

    async def adopt_bus_key(self, bus_key: BusKey) -> BusKey:
        """Returns the bus key with the store's key epoch, for a worker.

        Raises OtherStoreSecret, RotationUnderWay, RedisUnavailable.
        """
        found = await self._fields()
        _refuse_half_done(found)
        sealed = found.get(BUS_CHECK)
        if sealed is None:
            return bus_key  # the first supervisor has not come yet
        adopted = BusKey(bus_key.export(), epoch_of(sealed))
        if not self._opens(adopted, BUS_CHECK, sealed):
            raise OtherStoreSecret("bus key (HASHEE_BUS_KEY)")
        if FOR_WORKERS not in found or not self._opens(adopted, FOR_WORKERS, found[FOR_WORKERS]):
            return adopted  # of a former version
        identifier = adopted.open(found[FOR_WORKERS], self._key, FOR_WORKERS)
        return BusKey(bus_key.export(), adopted.epoch, identifier)

    # Rotation: only `keys rotate-store`, while nobody else has the store open

    async def plan(self, old_secret: bytes, new_secret: bytes) -> Rotation:
        """Returns the keys of a new or interrupted rotation from one secret to another. Nobody is refused yet.

        Raises OtherStoreSecret (also when a rotation to another new secret is under way), RedisUnavailable.
        """
        await self._note(STATE_CHECK, StoreKeys.derive(old_secret).state)
        found = await self._fields()
        new = self._keys(new_secret, found)
        if new is not None:
            return Rotation(StoreKeys.derive(old_secret, new.state.epoch - 1), new, turned=True)
        old = self._keys(old_secret, found)
        if old is None:
            raise OtherStoreSecret("store secret (HASHEE_STORE_KEY)")
        fresh = StoreKeys.derive(new_secret, old.state.epoch + 1)
        if NEXT_CHECK in found and not self._opens(fresh.state, NEXT_CHECK, found[NEXT_CHECK]):
            raise OtherStoreSecret("new store secret: an interrupted rotation began with it")
        return Rotation(old, fresh.carrying(old.identifier, old.ledger), turned=False)

    async def begin(self, rotation: Rotation) -> None:
        """Has `adopt` refuse everybody until `finish`. Raises OtherStoreSecret if another rotation was first."""
        await self._note(NEXT_CHECK, rotation.new.state)
        if not self._opens(rotation.new.state, NEXT_CHECK, (await self._fields())[NEXT_CHECK]):
            raise OtherStoreSecret("new store secret: another rotation is under way")

    async def finish(self, rotation: Rotation) -> None:
        """Makes the new secret the store's, after everything was re-sealed."""
        new = rotation.new
        fields: list[str | bytes] = []
        for name, key, plain in (
            (STATE_CHECK, new.state, CHECKED),
            (BUS_CHECK, new.bus, CHECKED),
            (IDENTIFIER, new.state, new.identifier),
            (FOR_WORKERS, new.bus, new.identifier),
            (LEDGER, new.state, new.ledger),
        ):
            fields += [name, key.seal(plain, self._key, name)]
        await self._client.command("HSET", self._key, *fields)
        await self._client.command("HDEL", self._key, NEXT_CHECK)

    async def _fields(self) -> dict[str, bytes]:
        flat = cast("list[bytes]", await self._client.command("HGETALL", self._key))
        return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}

    async def _note(self, name: str, key: SealingKey) -> None:
        await self._client.command("HSETNX", self._key, name, key.seal(CHECKED, self._key, name))

    def _keys(self, store_secret: bytes, found: dict[str, bytes]) -> StoreKeys | None:
        """Returns the keys of the store; None if this is not its secret."""
        return keys_under(store_secret, self._key, found)

    def _opens(self, key: SealingKey, name: str, sealed: bytes) -> bool:
        return _opens(key, self._key, name, sealed)


def _refuse_half_done(found: Mapping[str, bytes]) -> None:
    if RESTORING in found:
        raise RestoreUnderWay
    if NEXT_CHECK in found:
        raise RotationUnderWay


def keys_under(store_secret: bytes, seal_key: str, found: Mapping[str, bytes]) -> StoreKeys | None:
    """Returns the keys of a store with this seal (`found`: its fields under the key `seal_key`); None if this is not its secret. Raises SealDamaged."""
    sealed = found[STATE_CHECK]
    try:
        keys = StoreKeys.derive(store_secret, epoch_of(sealed))
        if not _opens(keys.state, seal_key, STATE_CHECK, sealed):
            return None
        carried = {name: keys.state.open(found[name], seal_key, name) for name in (IDENTIFIER, LEDGER) if name in found}
    except SealBroken:
        raise SealDamaged(seal_key) from None
    return keys.carrying(carried.get(IDENTIFIER) or keys.identifier, carried.get(LEDGER) or keys.ledger)


def _opens(key: SealingKey, seal_key: str, name: str, sealed: bytes) -> bool:
    try:
        key.open(sealed, seal_key, name)
    except SealBroken:
        return False
    return True
