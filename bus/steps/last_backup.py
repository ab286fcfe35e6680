"""When the last backup of a store was made: one note in it, which a backup does not hold, so that none brings an older agent a newer note.

It stands in Redis, since only that is shared by whoever makes backups and whoever looks: a CronJob has no state directory of the agent's. A Redis
that is lost or goes back takes the note along; then the age that is shown is too high, never too low.
"""

from collections.abc import Sequence
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.transport.client import RedisClient

MOST_SHOWN = 300
MOST_RECIPIENTS = 20


class LastBackup(msgspec.Struct, frozen=True, kw_only=True):
    """Of a whole backup that its program has seen whole. JSON, of which the fields are added to, never changed.

    `made_ms`: by Redis' clock, when it began. `fingerprint`: of the agent that signed it. `sealed_to`: age public keys, none where it is under a passphrase, None
    where that is not known. `place`: the file, as its program named it.
    """

    made_ms: int
    size_bytes: int
    fingerprint: str
    sealed_to: tuple[str, ...] | None
    place: str

    @classmethod
    def of(
        cls, made_ms: int, size_bytes: int, fingerprint: bytes, *, sealed_to: Sequence[str] | None, place: str
    ) -> "LastBackup":
        """What is too long for a note is cut."""
        return cls(
            made_ms=made_ms,
            size_bytes=size_bytes,
            fingerprint=fingerprint.hex(),
            sealed_to=None if sealed_to is None else tuple(sealed_to[:MOST_RECIPIENTS]),
            place=place[-MOST_SHOWN:],
        )


async def note_backup(client: RedisClient, key: str, backup: LastBackup) -> None:
    """Under the key of that kind. Of two at once the later one stays, in whatever order they end. Raises RedisFailed."""
    await client.command("ZADD", key, backup.made_ms, msgspec.json.encode(backup))
    await client.command("ZREMRANGEBYRANK", key, 0, -2)


async def last_backup(client: RedisClient, names: Keys) -> LastBackup | None:
    """None where none is known. Raises RedisFailed."""
    found = cast("list[bytes]", await client.command("ZRANGE", names.last_backup, -1, -1))
    try:
        return msgspec.json.decode(found[0], type=LastBackup) if found else None
    except msgspec.DecodeError:
        return None  # of another version, which says more than can be read here
