"""What programs of this host may ask of a running supervisor over `hashee-agent mcp`: to say something, to ask somebody, which conversations there are.

The right to do so is looked at here, by the agent's own setting, and not in the process that the program has started: neither what a model says
nor what stands in a program's configuration gives it another.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from bus.control.messages import ControlAnswer, Request
from bus.records.outside import AnswerWanted, OutsideAnswer, OutsideMessage, OutsideQuestion
from bus.views.conversations import Conversations, KnownConversation
from supervisor.outbound.from_outside import FromOutside, NotTakenIn, OutsideReceipt
from supervisor.run.requests import answered
from supervisor.settings.reachable import Reachable
from supervisor.settings.table import MCP_CONVERSATIONS

MOST_LISTED: Final = 100
"""Conversations that are listed, the latest: what a model reads it pays for."""


class Listed(msgspec.Struct, frozen=True):
    """The conversations that may be reached. `has_more`: whether there are others that are not listed."""

    conversations: list[KnownConversation]
    has_more: bool


class Wanted(msgspec.Struct, frozen=True):
    """Nothing more is wanted than the command says."""


class Answered(msgspec.Struct, frozen=True):
    """What came of a question; None as long as it is open."""

    answer: OutsideAnswer | None


class Programs:
    """Of one supervisor. `reachable`: which conversations they may reach."""

    def __init__(self, outside: FromOutside, conversations: Conversations, reachable: Reachable) -> None:
        self._outside = outside
        self._conversations = conversations
        self._reachable = reachable

    @property
    def commands(self) -> dict[str, Callable[[Request], Awaitable[ControlAnswer]]]:
        """Of the control socket."""
        return {
            "mcp_send": self._send,
            "mcp_ask": self._ask,
            "mcp_answer": self._answer,
            "mcp_conversations": self._list,
        }

    async def _send(self, request: Request) -> ControlAnswer:
        return await answered(request, OutsideMessage, self._sent)

    async def _ask(self, request: Request) -> ControlAnswer:
        return await answered(request, OutsideQuestion, self._asked)

    async def _answer(self, request: Request) -> ControlAnswer:
        return await answered(request, AnswerWanted, self._answered)

    async def _list(self, request: Request) -> ControlAnswer:
        return await answered(request, Wanted, self._listed)

    async def _sent(self, message: OutsideMessage) -> OutsideReceipt:
        """Sends a text, and nothing else that a message from outside may be."""
        self._check(message.conversation_id)
        text = OutsideMessage(message.conversation_id, message.text, message.markdown, message.key)
        return await self._outside.send(text)

    async def _asked(self, question: OutsideQuestion) -> OutsideReceipt:
        self._check(question.conversation_id)
        return await self._outside.ask(question)

    async def _answered(self, wanted: AnswerWanted) -> Answered:
        self._check(wanted.conversation_id)
        return Answered(await self._outside.answer(wanted))

    async def _listed(self, _: Wanted) -> Listed:
        if not self._reachable:
            raise _not_allowed("programs may reach no conversation")
        if self._reachable.is_all:
            return Listed(*await self._conversations.latest(MOST_LISTED))
        found = await self._conversations.named(sorted(self._reachable.ids)[:MOST_LISTED])
        return Listed(found, len(self._reachable.ids) > MOST_LISTED)

    def _check(self, conversation_id: str) -> None:
        """Raises NotTakenIn for a conversation that programs may not reach."""
        if conversation_id not in self._reachable:
            raise _not_allowed(f"programs may not reach the conversation {conversation_id!r}")


def _not_allowed(what: str) -> NotTakenIn:
    name = MCP_CONVERSATIONS.name
    return NotTakenIn(
        "not_allowed",
        f"{what}: {name} names those that they may, none by default. Whoever runs the agent sets it to {MCP_CONVERSATIONS.expectation} "
        "(hashee-agent conversations lists them) and starts the agent again",
    )
