"""Asks the running agent for a program, over its control socket, and goes on where the agent is away for a moment.

What is asked for has a key, so that it may be repeated: a supervisor that is replaced, or dies with the request, costs nothing but time.
"""

from typing import Final, TypeVar

import msgspec
import trio

from bus.control.client import Control, Unanswered, Why
from bus.control.messages import ControlAnswer, Request
from host.unreadable import UNREADABLE

Told = TypeVar("Told")

PATIENCE_SECONDS: Final = 20.0
"""A supervisor that died is there again within a few seconds."""

ANSWER_SECONDS: Final = 10.0
AGAIN_SECONDS: Final = 0.5
TEMPORARY: Final = ("full", "redis")
MOST_AT_ONCE: Final = 8
"""Of the 32 connections that the agent's control socket takes."""


class Refused(Exception):
    """The agent does not do it; the text says why and what helps. `reason`: one word."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason

    @property
    def is_temporary(self) -> bool:
        """Whether the same may go well in a moment."""
        return self.reason in TEMPORARY or self.is_away

    @property
    def is_away(self) -> bool:
        """Whether the agent itself has said nothing."""
        return self.reason == "away"


class _Reason(msgspec.Struct):
    reason: str = "away"


class AgentLine:
    """Of the agent of one control socket."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._limiter = trio.CapacityLimiter(MOST_AT_ONCE)

    async def ask(
        self, command: str, message: msgspec.Struct, kind: type[Told], *, patience_seconds: float = PATIENCE_SECONDS
    ) -> Told:
        """Returns what the agent tells; asks again while it is away, or takes nothing in. Raises Refused."""
        request = Request(command, message=msgspec.Raw(msgspec.json.encode(message)))
        give_up_at = trio.current_time() + patience_seconds
        while True:
            try:
                return await self._told(request, kind)
            except Refused as refused:
                if not refused.is_temporary or trio.current_time() + AGAIN_SECONDS > give_up_at:
                    raise
            await trio.sleep(AGAIN_SECONDS)

    async def _told(self, request: Request, kind: type[Told]) -> Told:
        try:
            answer = await trio.to_thread.run_sync(self._asked, request, limiter=self._limiter, abandon_on_cancel=True)
            if answer.ok:
                return msgspec.json.decode(answer.result, type=kind)
            reason = msgspec.json.decode(answer.result, type=_Reason).reason
        except Unanswered as problem:
            raise Refused(problem.why.value if problem.why is Why.TOO_LARGE else "away", str(problem)) from None
        except UNREADABLE:
            raise Refused(
                "another_version", "the agent's answer cannot be read; is hashee-agent another version here?"
            ) from None
        raise Refused(reason, answer.error)

    def _asked(self, request: Request) -> ControlAnswer:
        with self._control.connected() as line:
            return line.ask(request, patience_seconds=ANSWER_SECONDS)
