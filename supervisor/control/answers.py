"""What is answered over the control socket and over the keeper's line alike: a value as JSON, and that a stop has begun."""

import msgspec


class Stopping(msgspec.Struct, frozen=True):
    """The answer to `stop`: it is accepted, and the connection ends when all is over."""

    at_most_seconds: float


def raw(value: object) -> msgspec.Raw:
    """Returns the value as the JSON of an answer's `result`."""
    return msgspec.Raw(msgspec.json.encode(value))
