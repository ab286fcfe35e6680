"""Why something could not be read: the closed set of PROTOCOL §5.10, and the errors that carry it.

Everything that comes from outside fails as `Unreadable` and as nothing else. No error text, repr or detail
holds a key, a plaintext or any other content.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """PROTOCOL §5.10, in its order. `DUPLICATE` is not a failure."""

    MALFORMED = "malformed"
    UNSUPPORTED_VERSION = "unsupported_version"
    NOT_FOR_US = "not_for_us"
    NO_GRANT = "no_grant"
    NO_SCOPE = "no_scope"
    UNKNOWN_SENDER = "unknown_sender"
    KEY_CHANGED = "key_changed"
    BAD_SIGNATURE = "bad_signature"
    DUPLICATE = "duplicate"
    STALE = "stale"
    NO_SESSION = "no_session"
    UNKNOWN_PREKEY = "unknown_prekey"
    UNKNOWN_GROUP_KEY = "unknown_group_key"
    TOO_MANY_SKIPPED = "too_many_skipped"
    KEY_USED = "key_used"
    BAD_CIPHERTEXT = "bad_ciphertext"
    BAD_PADDING = "bad_padding"
    BAD_PAYLOAD = "bad_payload"


class Unreadable(Exception):
    """Something from outside could not be read.

    `reason` is one of §5.10; `detail` says which part, in words that hold no content and no secret.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class ForgedContent(Unreadable):
    """`bad_ciphertext` of the content, under a wrap that was good: the sessions are in step, so nothing is renegotiated."""


class DatedAhead(Unreadable):
    """`malformed`, since it is dated more than a day after our clock: the sender's is wrong, or ours is."""


class CannotSend(Exception):
    """There is no session with this device that may be sent on: start one first (`start_session`)."""


class TooLarge(Exception):
    """What should be sent does not fit into an envelope of 1 MiB; sending it again would not help."""


class NewerFormat(Exception):
    """Stored bytes of a later version of this program: not damaged, and not to be replaced by this one."""


class _Versioned(msgspec.Struct, array_like=True):
    """What every stored form begins with; whatever follows is not looked at."""

    version: int


def stored_unreadable(data: bytes, known_version: int, what: str) -> Unreadable | NewerFormat:
    """What to raise for a stored form that this program cannot decode."""
    try:
        version = msgspec.msgpack.decode(data, type=_Versioned).version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return malformed(what)
    if version > known_version:
        return NewerFormat(f"{what} of format {version}, and this version of hashee-agent reads up to {known_version}")
    return malformed(f"{what}: unknown version")


def malformed(detail: str) -> Unreadable:
    """The commonest failure: the bytes do not have the shape of PROTOCOL §5."""
    return Unreadable(Reason.MALFORMED, detail)
