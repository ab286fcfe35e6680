"""A store in a Redis that is given is replaced by the one that was put beside it (`restoring:…`), in steps of which each may be the last.

The seal tells the step: `filling …` with the name of who fills, `clearing`, then `moving`; the new store's own seal takes its place last of all. While it
tells any, nobody opens the store. Until `decide` the old one stands, untouched, and `give_up` leaves it so. From then on the new one does, and
`finish` goes on wherever it was broken off. Each command runs only in its own step (in_step.lua): several may finish the same restore at once.
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from bus.records.keys import Keys
from bus.steps.seal import RESTORING
from bus.transport.client import RedisClient, keys_like

SCAN_COUNT = 1000
NOT_BEGUN, FILLING, CLEARING, MOVING = b"", b"filling ", b"clearing", b"moving"
STAGED = "restoring"


class RestoreSwitch:
    """Of one agent and one attempt; each method raises RedisFailed."""

    def __init__(self, client: RedisClient, names: Keys) -> None:
        self._client = client
        self._names = names
        self._filling = FILLING + secrets.token_hex(8).encode()

    async def has_begun(self) -> bool:
        """Whether a restore, this one or another, goes on or was interrupted."""
        return await self._step() != NOT_BEGUN

    async def is_decided(self) -> bool:
        """Whether the new store is the one that counts, and `finish` is to be called."""
        return await self._step() in (CLEARING, MOVING)

    async def begin(self) -> bool:
        """From now on nobody opens the store, and nothing stands beside it. False: another restore was quicker."""
        if not await self._in_step(NOT_BEGUN, "HSET", self._names.seal, words=(RESTORING, self._filling)):
            return False
        await self._drop(self._filling, self._names.of(STAGED, "*"))
        return True

    async def clean(self) -> None:
        """Nothing is left of this attempt, unless it is decided."""
        await self._forget(self._filling)

    async def give_up(self) -> bool:
        """Nothing is left of whatever attempt has begun and is not decided; whether one had."""
        step = await self._step()
        if not step.startswith(FILLING):
            return False
        await self._forget(step)
        return True

    async def decide(self) -> bool:
        """From now on the new one counts. False: somebody has given this attempt up."""
        return await self._in_step(self._filling, "HSET", self._names.seal, words=(RESTORING, CLEARING))

    async def finish(self) -> None:
        """The old one goes, the new one gets its names."""
        names = self._names
        if await self._step() == CLEARING:
            await self._drop(CLEARING, names.pattern)
            await self._in_step(CLEARING, "HSET", names.seal, words=(RESTORING, MOVING))
        staged_seal = names.restoring("seal", "")
        async with aclosing(self._pages(names.of(STAGED, "*"))) as pages:
            async for keys in pages:
                for key in keys:
                    if key != staged_seal:
                        await self._in_step(MOVING, "RENAME", key, names.of(*self._named(key)))
        await self._in_step(MOVING, "RENAME", staged_seal, names.seal)

    async def _forget(self, step: bytes) -> None:
        await self._drop(step, self._names.of(STAGED, "*"))
        await self._in_step(step, "HDEL", self._names.seal, words=(RESTORING,))

    async def _drop(self, step: bytes, pattern: str) -> None:
        """Keys of a pattern go, but the seal, and in CLEARING what stands beside the old store."""
        async with aclosing(self._pages(pattern)) as pages:
            async for keys in pages:
                kept = {self._names.seal, *(key for key in keys if step == CLEARING and self._is_staged(key))}
                gone = [key for key in keys if key not in kept]
                if gone and not await self._in_step(step, "UNLINK", *gone):
                    return

    def _is_staged(self, key: str) -> bool:
        return self._names.split(key)[0] == STAGED

    def _named(self, key: str) -> tuple[str, str]:
        kind, _, ids = self._names.split(key)[1].partition(":")
        return kind, ids

    async def _step(self) -> bytes:
        return cast("bytes | None", await self._client.command("HGET", self._names.seal, RESTORING)) or NOT_BEGUN

    async def _in_step(self, step: bytes, command: str, *keys: str, words: tuple[str | bytes, ...] = ()) -> bool:
        """The command, unless it is another step's time by now; whether it was in its step."""
        return await self._client.script("in_step", (self._names.seal, *keys), step, command, *words) == 1

    def _pages(self, pattern: str) -> AsyncGenerator[list[str]]:
        """Keys of a pattern; one that is moved while they are walked may come twice, or no more."""
        return keys_like(self._client, pattern, SCAN_COUNT)
