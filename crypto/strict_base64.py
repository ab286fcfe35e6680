"""Standard padded base64 that has exactly one spelling (PROTOCOL §5 "Bytes": it must re-encode to itself).

Python's own decoder passes over foreign characters and loose trailing bits; here both are `malformed`.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64

from crypto.errors import malformed


def decode(text: str, size: int | None = None) -> bytes:
    """The bytes that `text` spells, of exactly `size` if given. Raises Unreadable `malformed`."""
    try:
        raw = text.encode("ascii")
        data = a2b_base64(raw)
    except (Error, UnicodeEncodeError):
        raise malformed("base64: not standard padded base64") from None
    if b2a_base64(data, newline=False) != raw:
        raise malformed("base64: does not re-encode to itself")
    if size is not None and len(data) != size:
        raise malformed(f"base64: not {size} bytes")
    return data


def encode(data: bytes) -> str:
    """Standard padded base64 without line breaks."""
    return b2a_base64(data, newline=False).decode("ascii")
