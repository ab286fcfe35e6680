"""A store in a Redis that is given is replaced by the one that was put beside it (`restoring:…`), in steps of which each may be the last.

Until `decide` the old one stands, untouched. From then on the new one does: nobody opens the store before `finish`, which goes on wherever
it was broken off. What is done, the seal tells: `clearing`, then `moving`; the new store's own seal takes its place last of all.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from bus.client import RedisClient
from bus.keys import Keys
from bus.seal import RESTORING

SCAN_COUNT = 1000
CLEARING, MOVING = b"clearing", b"moving"
STAGED = "restoring"


class RestoreSwitch:
    """Of one agent; each method raises RedisFailed."""

    def __init__(self, client: RedisClient, names: Keys) -> None:
        self._client = client
        self._names = names

    async def clean(self) -> None:
        """Nothing stands beside the store: what an earlier attempt left goes."""
        async with aclosing(self._pages(self._names.of(STAGED, "*"))) as pages:
            async for keys in pages:
                await self._client.command("UNLINK", *keys)

    async def is_decided(self) -> bool:
        """Whether the new store is the one that counts, and `finish` is to be called."""
        return await self._step() is not None

    async def decide(self) -> None:
        """From now on the new one counts."""
        await self._client.command("HSET", self._names.seal, RESTORING, CLEARING)

    async def finish(self) -> None:
        """The old one goes, the new one gets its names."""
        names, client = self._names, self._client
        if await self._step() == CLEARING:
            async with aclosing(self._pages(names.pattern)) as pages:
                async for keys in pages:
                    old = [key for key in keys if key != names.seal and names.split(key)[0] != STAGED]
                    if old:
                        await client.command("UNLINK", *old)
            await client.command("HSET", names.seal, RESTORING, MOVING)
        staged_seal = names.restoring("seal", "")
        async with aclosing(self._pages(names.of(STAGED, "*"))) as pages:
            async for keys in pages:
                for key in keys:
                    if key != staged_seal and await client.command("EXISTS", key) == 1:  # it may come twice
                        await client.command("RENAME", key, names.of(*self._named(key)))
        await client.command("RENAME", staged_seal, names.seal)

    def _named(self, key: str) -> tuple[str, str]:
        kind, _, ids = self._names.split(key)[1].partition(":")
        return kind, ids

    async def _step(self) -> bytes | None:
        return cast("bytes | None", await self._client.command("HGET", self._names.seal, RESTORING))

    async def _pages(self, pattern: str) -> AsyncGenerator[list[str]]:
        """Keys of a pattern; one that is moved while they are walked may come twice, or no more."""
        cursor = b"0"
        while True:
            answer = await self._client.command("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            cursor, keys = cast("tuple[bytes, list[bytes]]", answer)
            if keys:
                yield [key.decode() for key in dict.fromkeys(keys)]
            if cursor == b"0":
                return
