"""What is raised for bytes that are not what they should be, and for values that cannot become bytes: whoever decodes what another process, a
file or Redis holds, or writes down what others made, catches all of it.

msgspec has an error of its own for most of it. A byte that is no UTF-8 within a text is Python's UnicodeDecodeError, half a surrogate that is
to be encoded its UnicodeEncodeError, and what is nested too deeply its RecursionError; none of these is a DecodeError.
"""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)

UNWRITABLE: Final = (TypeError, ValueError, RecursionError, OverflowError)
"""What is raised for a value that has no JSON or no MessagePack: of no such type, half a surrogate, too deep, an integer of over 64 bits."""


def json_to_keep(value: object) -> bytes:
    """Returns the value as JSON, if it can be written into Redis too: JSON has integers of any length, MessagePack those of 64 bits. Raises UNWRITABLE."""
    msgspec.msgpack.encode(value)
    return msgspec.json.encode(value)


def can_be_kept(value: object) -> bool:
    """Returns whether a value that was read as JSON can be written into Redis."""
    try:
        msgspec.msgpack.encode(value)
    except UNWRITABLE:
        return False
    return True
