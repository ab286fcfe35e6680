"""msgpack by the strict rules of PROTOCOL §5 "Bytes": shortest form out, nothing doubtful in.

The strict reader is written out by hand, because the field's readers take the last of duplicate keys, skip
what they do not know without looking, and leak errors of their own. `Typed` puts a fast path before it: what
msgspec reads as the type and writes again as the very same bytes has no duplicate, no unknown key, no odd
encoding. Every failure here is `malformed`; what the values mean is for the types to know.
"""

from __future__ import annotations

from typing import Annotated, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from crypto.errors import malformed

MAX_NESTING: Final = 4
"""Body, wraps, wrap, handshake: the deepest legal value is a map inside these four (PROTOCOL §5 "Bytes")."""

MAX_VALUES: Final = 32_768
"""1,024 ratchet wraps with handshakes are 27,700 values; without a bound 780,000 one-byte values would fit."""

MAX_INTEGER: Final = 2**32 - 1
MAX_STARTED: Final = 2**63 - 1
MAX_ID_BYTES: Final = 128

Bytes12 = Annotated[bytes, Meta(min_length=12, max_length=12)]
Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes48 = Annotated[bytes, Meta(min_length=48, max_length=48)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Unsigned32 = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Started = Annotated[int, Meta(ge=0, le=MAX_STARTED)]

_STARTED: Final = "started"
_NEVER_NIL: Final = ("handshake", "one_time_prekey_id")
_UINT64: Final = 0xCF

encode: Final = msgspec.msgpack.Encoder().encode
"""The shortest encoding; str and bin distinct; a dict's keys in the order in which they were put in."""


def decode(data: bytes) -> object:
    """One whole value, with nothing after it. Raises Unreadable `malformed`."""
    reader = _Reader(data)
    try:
        value = reader.value(0)
    except IndexError:
        raise malformed("msgpack: cut short") from None
    except UnicodeDecodeError:
        raise malformed("msgpack: invalid UTF-8") from None
    if reader.position != len(data):
        raise malformed("msgpack: trailing bytes")
    return value


def decode_map(data: bytes) -> dict[str, object]:
    """As `decode`, for what must be a map."""
    value = decode(data)
    if type(value) is not dict:
        raise malformed("msgpack: not a map")
    return value


class _Reader:
    """One pass over the bytes; `position` is the next unread one. IndexError means cut short."""

    __slots__ = ("data", "position", "values")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.values = 0

    def value(self, depth: int) -> object:  # noqa: PLR0912 - one branch per family of first bytes
        data = self.data
        first = data[self.position]
        self.position += 1
        if first <= 0x7F:
            return first
        if 0xA0 <= first <= 0xBF:
            return self.text(first & 0x1F)
        if first == 0xC4:
            return self.binary(self.length(1))
        if first <= 0x8F:
            return self.map(first & 0x0F, depth)
        if first <= 0x9F:
            return self.array(first & 0x0F, depth)
        if 0xD9 <= first <= 0xDB:
            return self.text(self.length(1 << (first - 0xD9)))
        if 0xCC <= first <= 0xCE:
            return self.length(1 << (first - 0xCC))
        if first == _UINT64:
            return self.long(MAX_INTEGER)
        if 0xC5 <= first <= 0xC6:
            return self.binary(self.length(1 << (first - 0xC4)))
        if 0xDC <= first <= 0xDD:
            return self.array(self.length(2 << (first - 0xDC)), depth)
        if 0xDE <= first <= 0xDF:
            return self.map(self.length(2 << (first - 0xDE)), depth)
        if first in (0xC2, 0xC3):
            return first == 0xC3
        if first == 0xC0:
            return None
        raise malformed("msgpack: a float, negative, ext or reserved type")

    def length(self, size: int) -> int:
        start = self.position
        end = self.position = start + size
        if end > len(self.data):
            raise IndexError
        return int.from_bytes(self.data[start:end], "big")

    def long(self, limit: int) -> int:
        number = self.length(8)
        if number > limit:
            raise malformed("msgpack: integer out of range")
        return number

    def binary(self, size: int) -> bytes:
        start = self.position
        end = self.position = start + size
        if end > len(self.data):
            raise IndexError
        return self.data[start:end]

    def text(self, size: int) -> str:
        start = self.position
        end = self.position = start + size
        if end > len(self.data):
            raise IndexError
        return self.data[start:end].decode()

    def enter(self, count: int, depth: int) -> None:
        if depth >= MAX_NESTING:
            raise malformed("msgpack: nested too deep")
        self.values += count
        if self.values > MAX_VALUES:
            raise malformed("msgpack: too many values")

    def array(self, count: int, depth: int) -> list[object]:
        self.enter(count, depth)
        depth += 1
        return [self.value(depth) for _ in range(count)]

    def map(self, count: int, depth: int) -> dict[str, object]:
        self.enter(2 * count, depth)
        depth += 1
        result: dict[str, object] = {}
        for _ in range(count):
            key = self.value(depth)
            if type(key) is not str:
                raise malformed("msgpack: a key that is not text")
            if key == _STARTED and self.data[self.position] == _UINT64:
                self.position += 1
                value: object = self.long(MAX_STARTED)
            else:
                value = self.value(depth)
            result[key] = value
        if len(result) != count:
            raise malformed("msgpack: duplicate keys")
        return result


T = TypeVar("T")


class Typed(Generic[T]):
    """Reads one type by the strict rules. Made once per type; holds nothing of what it has read.

    A type with optional keys leaves them out when it is written (`omit_defaults`).
    """

    __slots__ = ("_decode",)

    def __init__(self, kind: type[T]) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def read(self, data: bytes) -> T:
        """The value. Raises Unreadable `malformed`."""
        value = self.read_shortest(data)
        return self.from_fields(decode(data)) if value is None else value

    def read_shortest(self, data: bytes) -> T | None:
        """The value if `data` is exactly what `encode` makes of it; None says nothing yet."""
        try:
            value = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return value if encode(value) == data else None

    def from_fields(self, fields: object) -> T:
        """The value of what `decode` has let through. Raises Unreadable `malformed`."""
        _refuse_nil(fields)
        try:
            return self._decode(encode(fields))
        except msgspec.DecodeError:
            raise malformed("msgpack: a key is missing, or a value has the wrong type or length") from None


def _refuse_nil(fields: object) -> None:
    """A key that may be missing may not be there as nil instead; the types cannot tell the two apart."""
    if type(fields) is list:
        for value in fields:
            _refuse_nil(value)
    elif type(fields) is dict:
        for key, value in fields.items():
            if value is None and key in _NEVER_NIL:
                raise malformed(f"{key}: nil")
            if type(value) is dict or type(value) is list:
                _refuse_nil(value)


def check_ids(*ids: str) -> None:
    """Every id: text of at most 128 bytes of UTF-8. Raises Unreadable `malformed`."""
    for one in ids:
        if (size := len(one)) > 32 and (size if one.isascii() else len(one.encode())) > MAX_ID_BYTES:
            raise malformed(f"an id over {MAX_ID_BYTES} bytes")
