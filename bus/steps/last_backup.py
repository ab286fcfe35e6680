"""Notes in the store when its last backup was made. A backup does not contain the note, so a restore cannot bring back a wrong one.

It stands in Redis, the only thing that makers of backups share with the agent: a CronJob has no state directory of it. If Redis is lost or
goes back the note goes too; then the age that is shown is too high, never too low.
"""

from collections.abc import Sequence
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.transport.client import Commands
from bus.transport.clock import redis_ms
from host.unreadable import UNREADABLE

MOST_SHOWN = 300
MOST_RECIPIENTS = 20
AHEAD_MS = 60_000
"""Dated so far ahead of Redis' clock a note is of a clock that is wrong, and of no two servers that keep time."""


class LastBackup(msgspec.Struct, frozen=True, kw_only=True):
    """The note of one complete backup, as JSON. New fields may be added; none is ever changed.

    `made_ms`: when it began, by Redis' clock. `fingerprint`: of the agent that signed it. `sealed_to`: age public keys, empty under a
    passphrase, None if that is not known. `place`: the file, as the program that made it named it.
    """

    made_ms: int
    size_bytes: int
    fingerprint: str
    sealed_to: tuple[str, ...] | None
    place: str

    def is_dated_ahead(self, now_ms: float) -> bool:
        """Returns whether Redis' clock was wrong, when the backup was made or at `now_ms`, so that its age is not known."""
        return self.made_ms > now_ms + AHEAD_MS

    @classmethod
    def of(
        cls, made_ms: int, size_bytes: int, fingerprint: bytes, *, sealed_to: Sequence[str] | None, place: str
    ) -> "LastBackup":
        """Makes a note; a place that is too long and further recipients are cut."""
        place = place.encode("utf-8", "backslashreplace").decode()  # a file's name need be no text
        return cls(
            made_ms=made_ms,
            size_bytes=size_bytes,
            fingerprint=fingerprint.hex(),
            sealed_to=None if sealed_to is None else tuple(sealed_to[:MOST_RECIPIENTS]),
            place=place[-MOST_SHOWN:],
        )


def dated_ms(backup: LastBackup | None, now_ms: float) -> int:
    """Returns when the last backup was made; 0 if that is not known."""
    return 0 if backup is None or backup.is_dated_ahead(now_ms) else backup.made_ms


async def note_backup(client: Commands, key: str, backup: LastBackup) -> None:
    """Writes the note; of two backups the one that began later stays, in whatever order they end. Raises RedisFailed.

    One that is dated ahead of Redis' clock goes: it would stay until then, and hide each one that is made meanwhile.
    """
    await client.command("ZREMRANGEBYSCORE", key, f"({await redis_ms(client) + AHEAD_MS}", "+inf")
    await client.command("ZADD", key, backup.made_ms, msgspec.json.encode(backup))
    await client.command("ZREMRANGEBYRANK", key, 0, -2)


async def last_backup(client: Commands, names: Keys) -> LastBackup | None:
    """Returns the note; None if there is none that can be read. Raises RedisFailed."""
    found = cast("list[bytes]", await client.command("ZRANGE", names.last_backup, -1, -1))
    try:
        return msgspec.json.decode(found[0], type=LastBackup) if found else None
    except UNREADABLE:
        return None  # of another version, which says more than can be read here
