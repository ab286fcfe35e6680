"""L1: the payload as strict JSON, padded, sealed under a content key of its own (PROTOCOL §5.2).

The content's identity binds every wrap to these exact bytes. What a payload means is not known here, only
that it is one JSON object with exactly one reading.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final

import msgspec

from crypto import msgpack
from crypto.errors import ForgedContent, Reason, Unreadable
from crypto.primitives import KEY_BYTES, NONCE_BYTES, Random, aead_open, aead_seal, sha256

MIN_PADDED_BYTES: Final = 256
MAX_JSON_NESTING: Final = 32

MAX_JSON_VALUES: Final = 32_768
"""An artifact of 64 KB has a few thousand; 260,000 empty lists would take 15 MB and 40 ms to build."""

MAX_NUMBER_CHARS: Final = 400
"""A double has at most 309 digits before its point; 180 integers of 4,300 digits would take 18 ms to read."""

MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1
"""What every msgpack holds: a payload goes on to a handler as msgpack, and any person may send one."""

_PAD: Final = b"\x80"

# A `\\u` escape of a character that could have been written out; surrogates included, since a pair of them is
# one printable character and a single one is none. Not matched: controls and invisible format characters.
_PRINTABLE_ESCAPE: Final = re.compile(
    rb"\\u(?!00[01][0-9a-f]|007f|00[89][0-9a-f]|00ad|20(?:0[b-f]|2[89a-e]|6[0-9a-f])|feff)", re.IGNORECASE
)
_STRING: Final = re.compile(rb'"[^"]*"')
_BRACKETS: Final = frozenset(b"[]{}")
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_OPENING: Final = frozenset(b"[{")


class ContentIds(msgspec.Struct, frozen=True):
    """Who says what to whom: the part of the body that the content's tag covers."""

    v: str
    conversation_id: str
    to: str
    sender_id: str
    sender_device: str
    client_message_id: str

    @property
    def aad(self) -> bytes:
        """The associated data of §5.2."""
        return msgpack.encode(
            [
                self.v,
                self.conversation_id,
                self.to,
                self.sender_id,
                self.sender_device,
                self.client_message_id,
            ]
        )


class SealedContent(msgspec.Struct, frozen=True):
    """A content under its fresh key. The repr shows nothing."""

    content_key: bytes
    nonce: bytes
    ciphertext: bytes
    content_id: bytes

    def __repr__(self) -> str:
        return "SealedContent()"


def content_id(aad: bytes, nonce: bytes, ciphertext: bytes) -> bytes:
    """SHA-256, 32 bytes: what every wrap of this content is bound to."""
    return sha256(aad + nonce + ciphertext)


def seal_content(ids: ContentIds, payload: dict[str, object], random: Random) -> SealedContent:
    """The payload, sealed under a fresh content key and nonce. Raises ValueError as `encode_payload`."""
    plaintext = pad(encode_payload(payload))
    fresh = random(KEY_BYTES + NONCE_BYTES)
    content_key, nonce = fresh[:KEY_BYTES], fresh[KEY_BYTES:]
    aad = ids.aad
    ciphertext = aead_seal(content_key, nonce, plaintext, aad)
    return SealedContent(content_key, nonce, ciphertext, content_id(aad, nonce, ciphertext))


def open_content(content_key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """The padded plaintext. Raises Unreadable `bad_ciphertext`."""
    try:
        return aead_open(content_key, nonce, ciphertext, aad)
    except Unreadable:
        raise ForgedContent(Reason.BAD_CIPHERTEXT, "the content's tag does not fit") from None


def read_plaintext(plaintext: bytes) -> dict[str, object]:
    """The payload of an opened content. Raises Unreadable `bad_padding` or `bad_payload`."""
    return decode_payload(unpad(plaintext))


def padded_length(length: int) -> int:
    """For L = `length` bytes including the 0x80: 256, else Padmé (O(log log L) bits of the length show)."""
    if length <= MIN_PADDED_BYTES:
        return MIN_PADDED_BYTES
    exponent = length.bit_length() - 1
    zeros = exponent - exponent.bit_length()
    mask = (1 << zeros) - 1
    return (length + mask) & ~mask


def pad(data: bytes) -> bytes:
    """`data` ‖ 0x80 ‖ zeros."""
    return (data + _PAD).ljust(padded_length(len(data) + 1), b"\x00")


def unpad(plaintext: bytes) -> bytes:
    """Strips zeros, then exactly one 0x80; the length is not checked. Raises Unreadable `bad_padding`."""
    stripped = plaintext.rstrip(b"\x00")
    if not stripped.endswith(_PAD):
        raise Unreadable(Reason.BAD_PADDING, "no 0x80 before the zeros")
    return stripped[:-1]


def encode_payload(payload: dict[str, object]) -> bytes:
    """JSON as §5.2 wants it. Raises ValueError for what has no such form (NaN, lone surrogates, other types)."""
    try:
        return _encoder.encode(payload).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the payload has no JSON form ({type(error).__name__})") from None
    except ValueError as error:
        # UnicodeEncodeError would carry the text.
        raise ValueError(f"the payload has no strict JSON form ({type(error).__name__})") from None


def decode_payload(data: bytes) -> dict[str, object]:
    """The one JSON object that `data` is. Raises Unreadable `bad_payload` for every other input."""
    if b"\\u" in data and _PRINTABLE_ESCAPE.search(data.replace(b"\\\\", b"__")):
        raise _bad_payload("an escaped printable character")
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > MAX_JSON_NESTING:
        _check_structure(data)
    try:
        payload = _decoder.decode(data.decode())
    except (ValueError, RecursionError):
        raise _bad_payload("not strict JSON") from None
    if type(payload) is not dict:
        raise _bad_payload("not a JSON object")
    return payload


def _check_structure(data: bytes) -> None:
    """Counts values and depth outside strings, before anything is built."""
    outside = _STRING.sub(b"", data.replace(b"\\\\", b"__").replace(b'\\"', b"__"))
    if outside.count(b",") + outside.count(b"[") + outside.count(b"{") > MAX_JSON_VALUES:
        raise _bad_payload("too many values")
    depth = 0
    for bracket in outside.translate(None, _NOT_BRACKETS):
        if bracket in _OPENING:
            depth += 1
            if depth > MAX_JSON_NESTING:
                raise _bad_payload("nested too deep")
        else:
            depth -= 1


def _bad_payload(detail: str) -> Unreadable:
    return Unreadable(Reason.BAD_PAYLOAD, detail)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    built = dict(pairs)
    if len(built) != len(pairs):
        raise ValueError
    return built


def _finite(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARS:
        raise ValueError
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _bounded(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise ValueError
    number = int(text)
    if not MIN_INTEGER <= number <= MAX_INTEGER:
        raise ValueError
    return number


def _refused(_: str) -> object:
    raise ValueError


_encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_without_repeats, parse_float=_finite, parse_int=_bounded, parse_constant=_refused
)
