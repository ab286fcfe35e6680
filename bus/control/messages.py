"""What is said over the control socket: a request is one line of JSON, its answer one line. Whoever serves it decides what a request does."""

from collections.abc import Callable

import msgspec

from host.lines import json_decoder


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wanted: `command`, for `scale` how many `workers` ("N" or "MIN:MAX"), for `upgrade` whether to `wait` for its end,
    for `send` and `show` the `message` (bus/records/outside.py)."""

    command: str
    wait: bool = False
    workers: str = ""
    every_seconds: float | None = None
    message: msgspec.Raw = msgspec.Raw(b"null")


class ControlAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a request. `error` says why it failed and what helps. `result` is a JSON object, its fields the command's."""

    ok: bool
    error: str = ""
    result: msgspec.Raw = msgspec.Raw(b"{}")


read_answer: Callable[[bytes], ControlAnswer] = json_decoder(ControlAnswer)
"""Returns the answer that a line says. Raises UnreadableLine."""
