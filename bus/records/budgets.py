"""What messages and tokens are counted against: a person (or an agent), or everybody together. Pure; the counts lie in Redis (bus/records/keys.py `budget`)."""

from typing import Final, Literal

import msgspec

LimitKind = Literal["messages_per_minute", "messages_per_day", "tokens_per_day"]

ADMITTED: Final = "budget:admitted"
"""The entry of a thread's journal by which every later run of it knows that its message was counted."""

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
TOLD_AGAIN_AFTER_MS: Final = 60_000
"""So seldom a person hears that they are beyond a budget."""


class Limit(msgspec.Struct, frozen=True):
    """At most so many, of one subject: within the last 60 s, or since midnight (UTC)."""

    subject: str
    kind: LimitKind
    most: int


class Charge(msgspec.Struct, frozen=True):
    """Tokens that were used, for each of these subjects."""

    subjects: tuple[str, ...]
    tokens: int


def of_sender(sender_id: str) -> str:
    """Returns the subject of a person or an agent."""
    return f"s:{sender_id}"
