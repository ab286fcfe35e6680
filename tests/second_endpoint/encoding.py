"""Bytes (crypto §1) and ids (wire §1): the msgpack of the page, strict base64, ULIDs."""

import base64
import binascii
from collections.abc import Callable, Mapping

from tests.second_endpoint.errors import Unreadable

Random = Callable[[int], bytes]

MOST_NESTING = 4
MOST_VALUES = 32_768
MOST_ID_BYTES = 128
MOST_INTEGER = 2**32 - 1
MOST_STARTED = 2**63 - 1
BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

# By first byte: the shortest form holds n itself, the others name a length in 1, 2, 4 or 8 bytes behind it.
_INTEGER, _TEXT, _BINARY = (0xCC, 0xCD, 0xCE, 0xCF), (0xD9, 0xDA, 0xDB), (0xC4, 0xC5, 0xC6)
_ARRAY, _MAP = (0xDC, 0xDD), (0xDE, 0xDF)


def pack(value: object) -> bytes:
    """The shortest msgpack of an integer, text, bytes, a list or a map."""
    if isinstance(value, bool) or value is None:
        raise TypeError("no such value goes on the wire")
    if isinstance(value, int):
        return bytes([value]) if value < 128 else _sized(value, _INTEGER, 1)
    if isinstance(value, str):
        encoded = value.encode()
        return _head(len(encoded), 0xA0, 32, _TEXT, 1) + encoded
    if isinstance(value, bytes):
        return _sized(len(value), _BINARY, 1) + value
    if isinstance(value, Mapping):
        pairs = b"".join(pack(name) + pack(inner) for name, inner in value.items())
        return _head(len(value), 0x80, 16, _MAP, 2) + pairs
    if isinstance(value, list | tuple):
        return _head(len(value), 0x90, 16, _ARRAY, 2) + b"".join(pack(inner) for inner in value)
    raise TypeError(type(value).__name__)


def _head(count: int, short: int, below: int, markers: tuple[int, ...], first_width: int) -> bytes:
    return bytes([short + count]) if count < below else _sized(count, markers, first_width)


def _sized(number: int, markers: tuple[int, ...], first_width: int) -> bytes:
    for step, marker in enumerate(markers):
        width = first_width << step
        if number < 1 << (8 * width):
            return bytes([marker]) + number.to_bytes(width, "big")
    raise ValueError("too large for the wire")


def unpack(data: bytes) -> object:
    """One value and nothing behind it. Raises Unreadable `malformed`."""
    reader = _Reader(data)
    try:
        value = reader.value(0, "")
    except (IndexError, UnicodeDecodeError):
        raise Unreadable("malformed", "msgpack") from None
    if reader.at != len(data):
        raise Unreadable("malformed", "trailing bytes")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.values = 0

    def take(self, size: int) -> bytes:
        taken = self.data[self.at : self.at + size]
        if len(taken) != size:
            raise IndexError
        self.at += size
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def value(self, depth: int, name: str) -> object:
        first = self.take(1)[0]
        if first < 0x80:
            return first
        if first in _INTEGER:
            number = self.number(1 << _INTEGER.index(first))
            if number > (MOST_STARTED if name == "started" else MOST_INTEGER):
                raise Unreadable("malformed", "integer")
            return number
        if 0xA0 <= first < 0xC0 or first in _TEXT:
            return self.take(first - 0xA0 if first < 0xC0 else self.number(1 << _TEXT.index(first))).decode()
        if first in _BINARY:
            return self.take(self.number(1 << _BINARY.index(first)))
        if 0x90 <= first < 0xA0 or first in _ARRAY:
            count = self.inside(first - 0x90 if first < 0xA0 else self.number(2 << _ARRAY.index(first)), depth, 1)
            return [self.value(depth + 1, "") for _ in range(count)]
        if 0x80 <= first < 0x90 or first in _MAP:
            return self.map(first - 0x80 if first < 0x90 else self.number(2 << _MAP.index(first)), depth)
        raise Unreadable("malformed", "a type that the wire does not have")

    def inside(self, count: int, depth: int, each: int) -> int:
        self.values += count * each
        if depth >= MOST_NESTING or self.values > MOST_VALUES:
            raise Unreadable("malformed", "too deep or too many")
        return count

    def map(self, count: int, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        for _ in range(self.inside(count, depth, 2)):
            name = self.value(depth + 1, "")
            if not isinstance(name, str) or name in found:
                raise Unreadable("malformed", "keys")
            found[name] = self.value(depth + 1, name)
        return found


def text_of(fields: Mapping[str, object], name: str) -> str:
    """A required string. Raises Unreadable `malformed`."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise Unreadable("malformed", name)
    return value


def id_of(fields: Mapping[str, object], name: str) -> str:
    """A required id. Raises Unreadable `malformed`."""
    value = text_of(fields, name)
    if len(value.encode()) > MOST_ID_BYTES:
        raise Unreadable("malformed", name)
    return value


def bytes_of(fields: Mapping[str, object], name: str, size: int | None = None) -> bytes:
    """Required bytes, of this size where one is given. Raises Unreadable `malformed`."""
    value = fields.get(name)
    if not isinstance(value, bytes) or (size is not None and len(value) != size):
        raise Unreadable("malformed", name)
    return value


def integer_of(fields: Mapping[str, object], name: str) -> int:
    """A required integer. Raises Unreadable `malformed`."""
    value = fields.get(name)
    if not isinstance(value, int):
        raise Unreadable("malformed", name)
    return value


def to_base64(data: bytes) -> str:
    """Standard, padded."""
    return base64.b64encode(data).decode()


def from_base64(text: object, size: int | None = None) -> bytes:
    """Its inverse, for the one spelling that there is. Raises Unreadable `malformed`."""
    if not isinstance(text, str):
        raise Unreadable("malformed", "base64")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("malformed", "base64") from None
    if to_base64(data) != text or (size is not None and len(data) != size):
        raise Unreadable("malformed", "base64")
    return data


def ulid(milliseconds: int, random: Random) -> str:
    """48 bits of time, 80 random bits, as 26 characters."""
    number = milliseconds << 80 | int.from_bytes(random(10), "big")
    return "".join(BASE32[number >> 5 * place & 31] for place in reversed(range(26)))
