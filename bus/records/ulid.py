"""ULIDs: 48 bits of time in ms and 80 bits of randomness, as 26 upper-case characters of Crockford's base32."""

import os
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CHARS = 26
RANDOM_BYTES = 10
MAX_TIME_MS = 2**48 - 1

_CHARACTERS = frozenset(ALPHABET)
_PAIRS = [one + other for one in ALPHABET for other in ALPHABET]
_PYTHONS_DIGITS = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")


def make(time_ms: int, randomness: bytes) -> str:
    """Returns the ULID of a time (0 to 2⁴⁸−1 ms) and 10 random bytes."""
    if not 0 <= time_ms <= MAX_TIME_MS or len(randomness) != RANDOM_BYTES:
        raise ValueError("a ULID has a time of 0 to 2^48-1 ms and 10 random bytes")
    number = (time_ms << 80) | int.from_bytes(randomness, "big")
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def new() -> str:
    """Returns a new ULID of the present time and random bytes of the system."""
    return make(time.time_ns() // 1_000_000, os.urandom(RANDOM_BYTES))


def time_ms(text: str) -> int | None:
    """Returns the time in a ULID; None if the text is no ULID."""
    if len(text) != CHARS or text[0] > "7" or not _CHARACTERS.issuperset(text):
        return None
    return int(text[:10].translate(_PYTHONS_DIGITS), 32)
