"""The four calls of the file gate: their paths, headers, bodies and bounds, and each reason for which one fails.

    POST /v1/uploads                 NewUpload     → Announced       (announce; every call is a new upload)
    PUT  /v1/uploads/{upload_id}     sealed bytes  → Received        (put; may be repeated with the same bytes)
    POST /v1/confirm                 Confirm       → Confirmed       (confirm; may be repeated)
    GET  /v1/files/{attachment_id}?size=N  [Range: bytes=N-]  → sealed bytes, 200 or 206  (get)

Both sides take them from here. What proves a call is in bus/files/proofs.py.
"""

import re
from enum import StrEnum
from typing import Final

import msgspec

MAX_SEALED_BYTES: Final = 100 * ((1 << 20) + 16)
"""The largest ciphertext: of 100 chunks of 1 MiB, to each of which 16 bytes are added (PROTOCOL §5.9)."""

MIN_SEALED_BYTES: Final = 16
"""The smallest one: of an empty file."""

MAX_BODY_BYTES: Final = 4096
"""Of a JSON body of a call: its ids and a hash are a tenth of it."""

MAX_TICKET_CHARACTERS: Final = 6144
"""A presigned address has up to some 2,000 characters; written as base64 they are a third more."""

MOST_UPLOADS: Final = 5
"""Uploads at once: the platform's own limit for one user (PROTOCOL §1)."""

PROOF_HEADER: Final = "hashee-proof"
TICKET_HEADER: Final = "hashee-ticket"

UPLOADS_PATH: Final = "/v1/uploads"
CONFIRM_PATH: Final = "/v1/confirm"

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HASH = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes=(0|[1-9][0-9]{0,11})-")


class CallFailure(StrEnum):
    """Why a call failed: the closed set, the same in answers, logs and metrics."""

    BAD_CALL = "bad_call"
    NO_SUCH_CALL = "no_such_call"
    BAD_PROOF = "bad_proof"
    STALE_PROOF = "stale_proof"
    REPLAYED = "replayed"
    BAD_TICKET = "bad_ticket"
    NO_LENGTH = "no_length"
    TOO_LARGE = "too_large"
    WRONG_LENGTH = "wrong_length"
    BUSY = "busy"
    RELAY_LIMIT = "relay_limit"
    DAILY_LIMIT = "daily_limit"
    NO_KEY = "no_key"
    RELAY_UNREACHABLE = "relay_unreachable"
    RELAY_SLOW = "relay_slow"
    RELAY_FAILED = "relay_failed"
    RELAY_REFUSED_US = "relay_refused_us"
    UPLOAD_GONE = "upload_gone"
    SHA256_MISMATCH = "sha256_mismatch"
    NO_SUCH_FILE = "no_such_file"
    REFUSED = "refused"
    BAD_UPLOAD_URL = "bad_upload_url"
    BAD_ANSWER = "bad_answer"
    WRONG_SIZE = "wrong_size"
    DEFECT = "defect"


STATUS: Final[dict[CallFailure, int]] = {
    CallFailure.BAD_CALL: 400,
    CallFailure.NO_SUCH_CALL: 404,
    CallFailure.BAD_PROOF: 401,
    CallFailure.STALE_PROOF: 401,
    CallFailure.REPLAYED: 401,
    CallFailure.BAD_TICKET: 403,
    CallFailure.NO_LENGTH: 411,
    CallFailure.TOO_LARGE: 413,
    CallFailure.WRONG_LENGTH: 400,
    CallFailure.BUSY: 429,
    CallFailure.RELAY_LIMIT: 429,
    CallFailure.DAILY_LIMIT: 429,
    CallFailure.NO_KEY: 503,
    CallFailure.RELAY_UNREACHABLE: 502,
    CallFailure.RELAY_SLOW: 504,
    CallFailure.RELAY_FAILED: 502,
    CallFailure.RELAY_REFUSED_US: 502,
    CallFailure.UPLOAD_GONE: 410,
    CallFailure.SHA256_MISMATCH: 409,
    CallFailure.NO_SUCH_FILE: 404,
    CallFailure.REFUSED: 422,
    CallFailure.BAD_UPLOAD_URL: 422,
    CallFailure.BAD_ANSWER: 502,
    CallFailure.WRONG_SIZE: 502,
    CallFailure.DEFECT: 500,
}
"""The HTTP status of each."""

MAY_SUCCEED_LATER: Final = frozenset(
    {
        *(CallFailure.REPLAYED, CallFailure.WRONG_LENGTH, CallFailure.BUSY, CallFailure.RELAY_LIMIT),
        *(CallFailure.NO_KEY, CallFailure.RELAY_UNREACHABLE, CallFailure.RELAY_SLOW, CallFailure.RELAY_FAILED),
        *(CallFailure.RELAY_REFUSED_US, CallFailure.BAD_ANSWER),
    }
)
"""After these the same call, with a fresh proof, is worth another try; after any other it fails again."""


class NewUpload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Announces an upload of `size` bytes of ciphertext into a conversation."""

    conversation_id: str
    size: int


class Announced(msgspec.Struct, frozen=True):
    """What was announced. The ticket is what `put` needs; it outlives the gate, and says where the bytes go."""

    upload_id: str
    ticket: str


class Received(msgspec.Struct, frozen=True):
    received: int


class Confirm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sha256`: of the whole ciphertext, lower-case hex."""

    upload_id: str
    sha256: str


class Confirmed(msgspec.Struct, frozen=True):
    attachment_id: str


class FailureBody(msgspec.Struct, frozen=True):
    """`retry`: the same call may succeed later, after `retry_after` seconds where that is not 0. `message` is for people."""

    reason: str
    message: str
    retry: bool
    retry_after: float = 0.0


class Failed(msgspec.Struct, frozen=True):
    """The body of every answer that is no success."""

    error: FailureBody


def is_id(text: str) -> bool:
    """Whether this can be the id of an upload or an attachment (PROTOCOL §4.1): it is never a path."""
    return _ID.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Whether this is a hash in lower-case hex."""
    return _HASH.fullmatch(text) is not None


def upload_path(upload_id: str) -> str:
    """Returns the path of `put`. The id must be one (`is_id`)."""
    return f"{UPLOADS_PATH}/{upload_id}"


def file_target(attachment_id: str, sealed_bytes: int) -> str:
    """Returns the target of `get` for a file whose ciphertext has this size. The id must be one (`is_id`)."""
    return f"/v1/files/{attachment_id}?size={sealed_bytes}"


def range_from(first_byte: int) -> str:
    """Returns the Range header that asks for everything from this byte on."""
    return f"bytes={first_byte}-"


def first_byte_of(value: str) -> int | None:
    """Returns from which byte on a Range header of the form of `range_from` asks; None for any other."""
    found = _RANGE.fullmatch(value)
    return None if found is None else int(found[1])
