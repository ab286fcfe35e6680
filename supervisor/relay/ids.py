"""What an id is (PROTOCOL §1): the one place that says so, for frames, polled pages, relations, devices, keys and every REST answer.

An id becomes a Redis key, a part of an address, a word in the log: what is longer, or of other characters, is no id.
"""

from typing import Annotated, Final

import msgspec

from supervisor.relay.answers import NotTaken, Text, members_of, value_of

MOST_ID_CHARS: Final = 128
_PRINTABLE: Final = r"\A[ -~]*\Z"

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_ID_CHARS, pattern=_PRINTABLE)]
"""1 to 128 printable ASCII characters."""

IdOrNone = Id | None

IdOrEmpty = Annotated[str, msgspec.Meta(max_length=MOST_ID_CHARS, pattern=_PRINTABLE)]
"""An id, or an empty string."""


def is_id(value: object) -> bool:
    """Returns whether this is an id."""
    return isinstance(value, str) and 1 <= len(value) <= MOST_ID_CHARS and value.isascii() and value.isprintable()


def id_in(entry: Text, name: str) -> str | None:
    """Returns the id that stands in an entry under this name, whatever else is in it; None where there is none."""
    try:
        value = value_of(members_of(entry).get(name))
    except NotTaken:
        return None
    return value if isinstance(value, str) and is_id(value) else None
