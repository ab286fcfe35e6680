"""Replaces a store in an operator's Redis by the one that was put beside it (`restoring:…`), in steps that may be interrupted anywhere.

The seal names the step: `filling …` with the name of who fills, `clearing`, then `moving`; the new store's own seal replaces it last of
all. While it names a step nobody opens the store. Until `decide` the old store is untouched, and `give_up` leaves it so. After it the new
store counts, and `finish` goes on wherever it was interrupted. Each command runs only in its own step (in_step.lua), so that several
processes may finish the same restore at once.
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Self, cast

from bus.records.keys import Keys
from bus.steps.seal import RESTORING, RestoreUnderWay
from bus.transport.client import Commands, keys_like

SCAN_COUNT = 1000
MOST_WALKS = 20
"""A walk sees nothing of what was moved to another node of a cluster meanwhile; the next one does. More are of no use."""
NOT_BEGUN, FILLING, CLEARING, MOVING = b"", b"filling ", b"clearing", b"moving"
STAGED = "restoring"


class RestoreSwitch:
    """One attempt to restore one agent's store; every method raises RedisFailed."""

    def __init__(self, client: Commands, names: Keys, attempt: str = "") -> None:
        """`attempt`: its name, '' for a new attempt."""
        self._client = client
        self._names = names
        self._attempt = attempt or secrets.token_hex(8)
        self._filling = FILLING + self._attempt.encode()

    def on(self, client: Commands) -> Self:
        """Returns the same attempt, which asks `client`."""
        return type(self)(client, self._names, self._attempt)

    async def has_begun(self) -> bool:
        """Returns whether a restore, this or another one, runs or was interrupted."""
        return await self._step() != NOT_BEGUN

    async def is_decided(self) -> bool:
        """Returns whether the new store counts, so that `finish` is to be called."""
        return await self._step() in (CLEARING, MOVING)

    async def begin(self) -> bool:
        """Locks the store and removes leftovers beside it; returns False if another restore was first."""
        if not await self._in_step(NOT_BEGUN, "HSET", self._names.seal, words=(RESTORING, self._filling)):
            return False
        await self._drop(self._filling, self._names.of(STAGED, "*"))
        return True

    async def clean(self) -> None:
        """Removes what this attempt has made, unless it is decided."""
        await self._forget(self._filling)

    async def give_up(self) -> bool:
        """Removes what any undecided attempt has made; returns whether there was one."""
        step = await self._step()
        if not step.startswith(FILLING):
            return False
        await self._forget(step)
        return True

    async def decide(self) -> bool:
        """Makes the new store the one that counts; returns False if this attempt was given up by another process."""
        return await self._in_step(self._filling, "HSET", self._names.seal, words=(RESTORING, CLEARING))

    async def finish(self) -> None:
        """Removes the old store and renames the new one's keys. Raises RestoreUnderWay if that is not done.

        It is not where a replica that had not heard of the decision took over: there the old store stands.
        """
        names = self._names
        if await self._step() == CLEARING:
            for _ in range(MOST_WALKS):
                if not await self._drop(CLEARING, names.pattern):
                    break
            await self._in_step(CLEARING, "HSET", names.seal, words=(RESTORING, MOVING))
        staged_seal = names.restoring("seal", "")
        for _ in range(MOST_WALKS):
            if not await self._move(staged_seal):
                break
        await self._in_step(MOVING, "RENAME", staged_seal, names.seal)
        if await self.has_begun():
            raise RestoreUnderWay

    async def _move(self, staged_seal: str) -> bool:
        """Renames the new store's keys, but for its seal; returns whether there were any."""
        moved = False
        async with aclosing(self._pages(self._names.of(STAGED, "*"))) as pages:
            async for keys in pages:
                for key in keys:
                    if key != staged_seal:
                        place = self._names.of(*self._named(key))
                        if not await self._in_step(MOVING, "RENAME", key, place):
                            return False
                        moved = True
        return moved

    async def _forget(self, step: bytes) -> None:
        await self._drop(step, self._names.of(STAGED, "*"))
        await self._in_step(step, "HDEL", self._names.seal, words=(RESTORING,))

    async def _drop(self, step: bytes, pattern: str) -> bool:
        """Deletes keys of a pattern, except the seal and, in CLEARING, the new store; returns whether there were any."""
        dropped = False
        async with aclosing(self._pages(pattern)) as pages:
            async for keys in pages:
                kept = {self._names.seal, *(key for key in keys if step == CLEARING and self._is_staged(key))}
                gone = [key for key in keys if key not in kept]
                if gone and not await self._in_step(step, "UNLINK", *gone):
                    return False
                dropped = dropped or bool(gone)
        return dropped

    def _is_staged(self, key: str) -> bool:
        return self._names.split(key)[0] == STAGED

    def _named(self, key: str) -> tuple[str, str]:
        kind, _, ids = self._names.split(key)[1].partition(":")
        return kind, ids

    async def _step(self) -> bytes:
        return cast("bytes | None", await self._client.command("HGET", self._names.seal, RESTORING)) or NOT_BEGUN

    async def _in_step(self, step: bytes, command: str, *keys: str, words: tuple[str | bytes, ...] = ()) -> bool:
        """Runs the command if this step is still the present one; returns whether it was."""
        return await self._client.script("in_step", (self._names.seal, *keys), step, command, *words) == 1

    def _pages(self, pattern: str) -> AsyncGenerator[list[str]]:
        """Yields pages of keys of a pattern; a key that is renamed meanwhile may come twice or not at all."""
        return keys_like(self._client, pattern, SCAN_COUNT)
