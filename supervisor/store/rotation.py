"""Rotates the store secret: makes a new one, re-seals everything under it, and forgets the old one (PROTOCOL §5.11).

It may be killed at any moment: the new secret is on the disk before the first value is sealed under it, and the old one is forgotten after
the last re-sealed value is on the disk. In between no supervisor and no worker opens the store (bus/steps/seal.py).
"""

import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bus.records.keys import Keys
from bus.steps.seal import Rotation, StoreSeal
from bus.transport.client import Commands, RedisClient
from bus.transport.clock import redis_ms
from bus.transport.wire import RedisUnavailable
from bus.whole.reseal import Resealer, Tally
from host.private_files import sync_folder, write_new
from supervisor.settings.secrets import (
    NEXT_STORE_SECRET_FILE,
    STORE_SECRET_BYTES,
    STORE_SECRET_FILE,
    Secret,
    read_store_secret,
)

MOST_WALKS = 20
MOST_NAMED = 5
RUN_AGAIN = "both secrets are kept, and nothing is lost: run keys rotate-store again, as it was run"


class RotationRefused(Exception):
    """The rotation cannot begin or end; the text says why and what helps. Both secrets are kept, so nothing is lost."""


class NewSecretPlace(Protocol):
    """Where the new secret is kept from before the first value is sealed under it."""

    def pending(self) -> Secret[bytes] | None:
        """Returns the new secret of an interrupted rotation, else None. Raises RotationRefused, StoreSecretDamaged, OSError."""

    def keep(self, new: Secret[bytes]) -> None:
        """Writes the new secret; it is on the disk when this returns. Raises OSError."""

    def forget_old(self) -> None:
        """Replaces or removes the old secret, now that the new one is the store's. Raises OSError."""


class InStateDirectory:
    """The new secret as `store.secret.next` beside `store.secret`, which it finally replaces."""

    def __init__(self, state_dir: Path) -> None:
        self._current = state_dir / STORE_SECRET_FILE
        self._next = state_dir / NEXT_STORE_SECRET_FILE

    def pending(self) -> Secret[bytes] | None:
        """See NewSecretPlace."""
        return read_store_secret(self._next)

    def keep(self, new: Secret[bytes]) -> None:
        """See NewSecretPlace."""
        write_new(self._next, new.reveal())

    def forget_old(self) -> None:
        """See NewSecretPlace."""
        self._next.replace(self._current)
        sync_folder(self._current.parent)


class InNamedFile:
    """The new secret in a file of the operator, as base64, if HASHEE_STORE_KEY is set; HASHEE_STORE_KEY_FILE may name it afterwards."""

    def __init__(self, path: Path, current: Secret[bytes]) -> None:
        self._path = path
        self._current = current

    def pending(self) -> Secret[bytes] | None:
        """See NewSecretPlace."""
        try:
            value = base64.b64decode(self._path.read_bytes().strip(), validate=True)
        except FileNotFoundError:
            return None
        except binascii.Error:
            value = b""
        if len(value) != STORE_SECRET_BYTES:
            raise RotationRefused(f"{self._path} is there already and holds no store secret; name another file")
        if Secret(value) == self._current:
            raise RotationRefused(f"{self._path} holds the present store secret; name another file for the new one")
        return Secret(value)

    def keep(self, new: Secret[bytes]) -> None:
        """See NewSecretPlace."""
        write_new(self._path, base64.b64encode(new.reveal()) + b"\n")

    def forget_old(self) -> None:
        """Does nothing: the operator removes the old secret."""


@dataclass(frozen=True)
class Rotated:
    """The result of a rotation."""

    values: int
    key_epoch: int
    unreadable: int


class StoreRotation:
    """A rotation from one store secret to a new one; an interrupted rotation is continued."""

    def __init__(self, old: Secret[bytes], place: NewSecretPlace) -> None:
        self._old = old
        self._place = place

    async def run(
        self,
        client: RedisClient,
        names: Keys,
        *,
        make_durable: Callable[[], Awaitable[None]],
        leave_unreadable: bool = False,
    ) -> Rotated:
        """Runs it to the end. `make_durable` returns when the present contents of Redis are on the disk and the former ones are not.

        Raises RotationRefused, StoreSealed, StoreSecretDamaged, RedisUnavailable, OSError; run it again then.
        """
        pending = self._place.pending()
        new = pending or Secret(secrets.token_bytes(STORE_SECRET_BYTES))
        await redis_ms(client)  # from now on it is connected
        # On one connection to its end: a replica that takes over may lack values that were re-sealed, and would be taken for done.
        here = client.on_connection(client.connects)
        try:
            rotated = await self._turn(here, names, pending, new, leave_unreadable=leave_unreadable)
        except RedisUnavailable as problem:
            problem.add_note(RUN_AGAIN)
            raise
        await make_durable()
        self._place.forget_old()
        return rotated

    async def _turn(
        self, here: Commands, names: Keys, pending: Secret[bytes] | None, new: Secret[bytes], *, leave_unreadable: bool
    ) -> Rotated:
        """Re-seals everything, until the new secret is the store's."""
        seal = StoreSeal(here, names)
        rotation = await seal.plan(self._old.reveal(), new.reveal())
        resealer = Resealer(here, names, rotation.old, rotation.new)
        found = await resealer.survey()
        _refuse_unreadable(found, leave_unreadable=leave_unreadable)
        if not rotation.turned:
            if pending is None:
                self._place.keep(new)
            await seal.begin(rotation)
            await _turn_all(resealer)
        await seal.finish(rotation)
        return _report(rotation, found)


async def _turn_all(resealer: Resealer) -> None:
    for _ in range(MOST_WALKS):
        if (await resealer.turn()).turned == 0:
            return
    raise RotationRefused("something still writes under the old store secret: end every worker, then run it again")


def _refuse_unreadable(found: Tally, *, leave_unreadable: bool) -> None:
    if found.unknown:
        kinds = ", ".join(sorted(found.unknown))
        raise RotationRefused(
            f"this Redis holds keys of kinds that this program does not know: {kinds}; rotate with the version that runs on it"
        )
    if found.unreadable and not leave_unreadable:
        named = ", ".join(sorted(set(found.unreadable))[:MOST_NAMED])
        raise RotationRefused(
            f"{len(found.unreadable)} values do not open with this store secret ({named}); nothing was changed. "
            "Find the right secret, or leave them behind with --leave-unreadable"
        )


def _report(rotation: Rotation, found: Tally) -> Rotated:
    unreadable = len(found.unreadable) + found.unreadable_dead_letters
    return Rotated(found.turned + found.current, rotation.new.state.epoch, unreadable)
