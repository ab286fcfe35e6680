"""The platform's limits for files (PROTOCOL §1), and when each is reached. Pure: what is counted, and the day, come in.

They are checked before a byte of a file is read.
"""

from typing import Final

import msgspec

from crypto.files import MAX_FILE_BYTES
from workers.errors import FileDailyLimit, FileTooLarge

MOST_DAILY_BYTES: Final = 1024 * 1024 * 1024
UPLOADS_AT_ONCE: Final = 5
DOWNLOADED_BYTES: Final = 10 * 1024 * 1024
"""What `file.bytes()` takes into memory unless its handler says otherwise: a picture of a phone, or a long document."""


class Sent(msgspec.Struct, frozen=True):
    """How many bytes of files were sent on a day (`2026-11-30`, UTC)."""

    day: str = ""
    bytes: int = 0


def check_size(size: int) -> None:
    """Raises FileTooLarge for a file that the platform does not take."""
    if size > MAX_FILE_BYTES:
        raise FileTooLarge(size, MAX_FILE_BYTES, "send it in parts, or a link to it")


def with_another(sent: Sent, size: int, day: str) -> Sent:
    """Returns what was sent once a file of this size is sent too. Raises FileDailyLimit."""
    before = sent.bytes if sent.day == day else 0
    if before + size > MOST_DAILY_BYTES:
        raise FileDailyLimit(before, size, MOST_DAILY_BYTES)
    return Sent(day, before + size)


def without(sent: Sent, size: int, day: str) -> Sent:
    """Returns what was sent once a file of this size, which was counted on this day, is not sent after all."""
    return Sent(day, max(0, sent.bytes - size)) if sent.day == day else sent
