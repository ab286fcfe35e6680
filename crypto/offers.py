"""What is remembered of a device's offers (PROTOCOL §5.4): for limits, and to begin the next session without asking. Values only."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Quota(msgspec.Struct, frozen=True, array_like=True):
    """How often something happened on the UTC day `day`."""

    day: Annotated[int, Meta(ge=0)] = 0
    used: Annotated[int, Meta(ge=0)] = 0

    def used_on(self, day: int) -> int:
        """How often on `day`."""
        return self.used if self.day == day else 0

    def plus_one(self, day: int) -> Quota:
        """After one more on `day`."""
        return Quota(day, self.used_on(day) + 1)


class Offers(msgspec.Struct, frozen=True, array_like=True):
    """What was offered to a device (crypto/renewal.py): when last, how long to wait after it, new sessions by day, and how many
    of them in a row without an answer.
    """

    last_seconds: Annotated[int, Meta(ge=0)] = 0
    wait_seconds: Annotated[int, Meta(ge=0)] = 0
    made: Quota = Quota()
    in_a_row: Annotated[int, Meta(ge=0)] = 0


class KnownPrekey(msgspec.Struct, frozen=True, array_like=True):
    """A device's signed prekey (32 bytes) with its signature (64 bytes) as it was verified last, and when."""

    id: Annotated[int, Meta(ge=0)]
    public: bytes
    signature: bytes
    verified_seconds: Annotated[int, Meta(ge=0)]
