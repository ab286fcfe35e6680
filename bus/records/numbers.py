"""Numbers that stand in Redis in the clear, as whoever reads them has them.

A value that is none was damaged, or written by somebody else. It counts as 0, the number of what was never written: a count is then too low, a version
agrees with no seal. Whoever only shows a number, or asks whether there is room, goes on; an error would end the process, and the next one again.
"""

import re

MOST_DIGITS = 18

_COUNTED = re.compile(rb"0|-?[1-9][0-9]{0,18}")


def number_in(value: object) -> int:
    """Returns a whole number that stands in Redis; 0 for None and for what is none."""
    if isinstance(value, int):
        return value
    if not isinstance(value, bytes):
        return 0
    digits = value.removeprefix(b"-")
    return int(value) if digits.isdigit() and len(digits) <= MOST_DIGITS else 0


def can_be_counted(value: bytes) -> bool:
    """Returns whether Redis can INCR this value: a whole number of 64 bits, signed, in no other spelling than its own (`007` is none)."""
    return _COUNTED.fullmatch(value) is not None and -(2**63) <= int(value) < 2**63
