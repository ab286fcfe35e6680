"""What an agent does to a message that is there: takes an own one back, or shows an emoji at one (PROTOCOL §2).

An act stands in its conversation's out-box like a reply, so that what it takes back was acknowledged before its turn comes. It may be
repeated: the relay does the same once more. What the relay refuses, or cannot be done any more, is a dead letter that names it.
"""

from typing import Final

import structlog
import trio

from bus.records.records import BadRecord
from bus.steps.outbox import Outbox
from bus.steps.store import now_ms
from bus.transport.acquire import acquire
from bus.views.trace import Ledger
from supervisor.outbound.decisions import is_temporary, refusal_code
from supervisor.outbound.outgoing import Head
from supervisor.relay.connection import Connection, NotConnected
from supervisor.relay.frames import MessageError, MessageRecall, MessageRecalled, ReactionSet

RECALL_MS: Final = 120_000
"""PROTOCOL §1: a message can be taken back for so long; the relay is not asked later."""

SENT_BEFORE_MS: Final = 60_000
"""So much before it was acknowledged a message may have been encrypted."""

RECALLED_SECONDS: Final = 5.0
"""For which the relay's answer to a recall is waited for. Without one nobody knows; a dead letter says so, and can be retried."""

REFUSED_SECONDS: Final = 0.5
"""For which a refusal of a reaction is waited for. That it is shown the relay need not say to us."""

log = structlog.get_logger()


class ActRefused(Exception):
    """An act that will never be done. `reason`: recall_too_late, recall_unanswered, or what the relay said."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unheard(Exception):
    """The relay has not answered, or is not connected: the act is tried again."""


class Acts:
    """Performs acts for one supervisor, one at a time: a refusal does not say of what."""

    def __init__(self, connection: Connection, outbox: Outbox, ledger: Ledger) -> None:
        self._connection = connection
        self._outbox = outbox
        self._ledger = ledger
        self._turn = trio.Lock()
        self._waiting: trio.Event | None = None
        self._message_id = ""
        self._refusal: MessageError | None = None

    def heard(self, frame: MessageRecalled | MessageError) -> None:
        """Called with the relay's answers to acts: what was taken back, and refusals of something that has no id of ours."""
        if self._waiting is None:
            return  # of typing or a stream, or somebody else's
        if isinstance(frame, MessageError):
            self._refusal = frame
        elif frame.message_id != self._message_id:
            return
        self._waiting.set()

    async def perform(self, head: Head) -> None:
        """Does what a head of an out-box says. Raises ActRefused if that can never be done, Unheard if not now; RedisFailed, BadRecord."""
        if head.reply.kind == "recall":
            await self._recall(head)
        else:
            await self._react(head)

    async def _recall(self, head: Head) -> None:
        since_ms, named = now_ms() - RECALL_MS, head.reply.payload.get("client_message_id")
        if isinstance(named, str):
            found = await self._ledger.sent_as(named, since_ms - SENT_BEFORE_MS)
            if found is None:
                raise ActRefused("recall_too_late")
            job_id, place = found
        else:
            job_id, place = _text(head, "job_id"), _text(head, "place")
        message_id = await self._ledger.acknowledged(job_id, place, since_ms)
        if message_id is None:
            raise ActRefused("recall_too_late")
        frame = MessageRecall(message_id, head.record.conversation_id)
        if not await self._is_answered(frame, message_id, RECALLED_SECONDS):
            raise ActRefused("recall_unanswered")
        await self._done(head, "recalled")

    async def _react(self, head: Head) -> None:
        message_id, emoji = _text(head, "message_id"), head.reply.payload.get("emoji")
        frame = ReactionSet(message_id, head.record.conversation_id, emoji if isinstance(emoji, str) else None)
        await self._is_answered(frame, "", REFUSED_SECONDS)
        await self._done(head, "reacted")

    async def _is_answered(self, frame: MessageRecall | ReactionSet, message_id: str, seconds: float) -> bool:
        """Sends a frame, and returns whether the relay said within so long that it was done. Raises ActRefused, Unheard."""
        await acquire(self._turn)
        try:
            number = self._connection.number
            self._waiting, self._message_id, self._refusal = trio.Event(), message_id, None
            await self._connection.send(frame)
            with trio.move_on_after(seconds) as scope:
                await self._waiting.wait()
            refusal = self._refusal
        except NotConnected:
            raise Unheard from None
        finally:
            self._waiting = None
            self._turn.release()
        if scope.cancelled_caught and not (self._connection.is_trusted and self._connection.number == number):
            raise Unheard  # the answer may have gone with the connection
        if refusal is None:
            return not scope.cancelled_caught
        code = refusal_code(refusal.code)
        if is_temporary(code):
            raise Unheard
        raise ActRefused(f"refused_{code}")

    async def _done(self, head: Head, what: str) -> None:
        await self._outbox.acted(head.record.conversation_id, head.entry_id, answers=head.answers, what=what)
        log.info("message: taken back" if what == "recalled" else "message: reacted to", job_id=head.record.job_id)


def _text(head: Head, name: str) -> str:
    value = head.reply.payload.get(name)
    if not isinstance(value, str):
        raise BadRecord(f"{head.reply.kind}: no {name}")
    return value
