"""What is answered over the control socket and over the keeper's line alike: a value as JSON, that a stop has begun, and what a defect leaves to say."""

from collections.abc import Awaitable, Callable

import msgspec
import structlog

from bus.control.messages import ControlAnswer, Request

log = structlog.get_logger()

Answerer = Callable[[Request], Awaitable[ControlAnswer]]


class Stopping(msgspec.Struct, frozen=True):
    """The answer to `stop`: it is accepted, and the connection ends when all is over."""

    at_most_seconds: float


def raw(value: object) -> msgspec.Raw:
    """Returns the value as the JSON of an answer's `result`."""
    return msgspec.Raw(msgspec.json.encode(value))


async def answer_despite_defects(answer: Answerer, request: Request) -> ControlAnswer:
    """Returns the answer to a request. A defect that a command meets is its answer and a line of the log: messages go on, and the command can be mended later."""
    try:
        return await answer(request)
    except Exception as error:
        log.error("control: a command met a defect of this program", command=request.command, exc_info=True)
        why = f"a defect of hashee-agent ({type(error).__name__}); the log of the agent says where, and messages go on"
        return ControlAnswer(ok=False, error=why)
