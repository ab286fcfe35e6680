"""What is kept of a card that was sent (PROTOCOL §4.1): which revision it has, where it was sent, and what it is. No content."""

import msgspec

from bus.records.records import BadRecord

MOST_UPDATES = 100  # PROTOCOL §1; bus/scripts/jobs/emit_card.lua counts them
_SEPARATOR = "\x1f"
_PARTS = 4


class CardMove(msgspec.Struct, frozen=True):
    """A card that a reply sends, or updates. `kind`: what a new card is, as in CardKept. `based_on`: the revision that an update found."""

    card_id: str
    kind: str = ""
    based_on: int | None = None


class CardKept(msgspec.Struct, frozen=True):
    """A card of a conversation. `job_id`: of the thread that has sent it. `kind`: its subtype, and for an app a space and the name of its renderer."""

    revision: int
    job_id: str
    place: str
    kind: str


def encode_card(kept: CardKept) -> str:
    """Returns what is kept of a card as it stands in Redis (`new_card` of bus/scripts/_library.lua)."""
    return _SEPARATOR.join((str(kept.revision), kept.job_id, kept.place, kept.kind))


def decode_card(packed: bytes) -> CardKept:
    """Returns what is kept of a card; raises BadRecord."""
    revision, *rest = packed.decode("utf-8", "replace").split(_SEPARATOR)
    if not revision.isdecimal() or 1 + len(rest) != _PARTS:
        raise BadRecord("card: not readable")
    return CardKept(int(revision), *rest)
