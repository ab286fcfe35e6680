"""Answers a request of the control socket that brings a message: reads it, does what is asked, and says what came of it, or why nothing did."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from bus.control.messages import ControlAnswer, Request
from bus.records.records import BadRecord
from bus.transport.wire import RedisFailed
from host.unreadable import UNREADABLE, can_be_kept
from supervisor.control.answers import raw
from supervisor.outbound.from_outside import NotTakenIn

Asked = TypeVar("Asked", bound=msgspec.Struct)


async def answered(request: Request, kind: type[Asked], do: Callable[[Asked], Awaitable[object]]) -> ControlAnswer:
    """Returns the answer with what `do` returned of the request's message; of what was not taken in, the reason in one word and what helps."""
    try:
        asked = msgspec.json.decode(request.message, type=kind)
    except UNREADABLE:
        asked = None
    if asked is None or not can_be_kept(asked):
        return _not_done("bad_message", "there is no message in this; is the program another version here?")
    try:
        return ControlAnswer(ok=True, result=raw(await do(asked)))
    except NotTakenIn as problem:
        return _not_done(problem.reason, str(problem))
    except RedisFailed as problem:
        return _not_done("redis", f"Redis takes nothing in now ({problem.reason}); with a key it may be repeated")
    except BadRecord:
        return _not_done(
            "unreadable", "what Redis holds of this cannot be read; is another version of hashee-agent running?"
        )


def _not_done(reason: str, text: str) -> ControlAnswer:
    return ControlAnswer(ok=False, error=text, result=raw({"reason": reason}))
