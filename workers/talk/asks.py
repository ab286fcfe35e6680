"""Asks people something on behalf of one run of a handler, and ends the run until there is an answer.

The handler runs again then, from its first line, and finds the answer in the journal. What it says next has places that count from there,
and name the job that brought the answer: where Redis went back, and somebody answers with other words than before, nothing of what follows is
what was said before, which the relay would pass over.
"""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import trio

from bus.records.records import NOWHERE, InboundMessage, Payload, Reply
from workers.errors import BadAsk, Diverged, NoAnswer, TooManyWaits
from workers.files.files import RunFiles
from workers.kept.thread import Draft, ThreadRun, counted_from
from workers.kept.waits import MOST_OPEN_WAITS, MOST_WAITS_OF_A_THREAD, Given
from workers.talk.payloads import text_payload
from workers.talk.questions import MOST_MISFITS, Misfit, Question
from workers.talk.sending import Sending

A_DAY = timedelta(days=1)
LONGEST = timedelta(days=30)


class Asks:
    """The questions of one run."""

    def __init__(
        self, thread: ThreadRun, sending: Sending, message: InboundMessage, files: RunFiles | None = None
    ) -> None:
        self._thread = thread
        self._sending = sending
        self._message = message
        self._files = files

    async def ask(
        self,
        question: Question,
        *,
        timeout: timedelta,
        key: str | None,
        who: str | Sequence[str] | None,
        again: str | None,
    ) -> object:
        """Returns the answer as what was asked for. Raises Suspended, NoAnswer, BadAsk, TooManyWaits, Diverged."""
        self._check(timeout)
        asked, base = question, question.name(key)
        for _ in range(MOST_MISFITS):
            given = await self._answer(asked, base, key, timeout, self._asked(who))
            try:
                return question.answer(given, self._files)
            except Misfit as misfit:
                hint = again or str(misfit)
            asked = question.asked_again(hint)
            if asked is question:
                await self._say(hint)
        raise NoAnswer("misfit")

    def _check(self, timeout: timedelta) -> None:
        self._sending.check_open()
        if self._thread.job.conversation_id == NOWHERE:
            raise BadAsk(
                "this handler runs in no conversation, where nobody can be asked: say something by chat.to(conversation_id).reply(…), "
                "and ask in the handler of what is answered"
            )
        if not timedelta(0) < timeout <= LONGEST:
            raise BadAsk(
                "a question is open for more than no time, and at most 30 days: ask(…, timeout=timedelta(days=2))"
            )
        if trio.current_effective_deadline() < self._thread.deadline:
            raise BadAsk("ask does not wait within move_on_after or fail_after: use ask(…, timeout=…)")
        if self._thread.is_in_a_step():
            raise BadAsk("ask is not called within a step: ask first, and give the step the answer")

    def _asked(self, who: str | Sequence[str] | None) -> list[str]:
        if who is not None:
            people = [who] if isinstance(who, str) else list(who)
            if not people or not all(isinstance(one, str) and one for one in people):
                raise BadAsk("who= takes the id of a user, or several: ask(…, who=[message.sender_id])")
            return people
        if not self._message.sender_id:
            raise BadAsk("nobody has written what this handler was called for: ask(…, who=[user_id])")
        return [self._message.sender_id]

    async def _answer(
        self, question: Question, base: str, key: str | None, timeout: timedelta, who: list[str]
    ) -> Given:
        self._sending.check_open()
        name = self._thread.name(base)
        entry = self._thread.entry(name)
        if entry is None:
            await self._suspend(question, name, key, timeout, who)
            raise AssertionError("a run that waits is over")
        given = None if entry.kind == "none" else msgspec.msgpack.decode(entry.value, type=Given)
        if given is not None and not question.is_answered_by(given):
            raise Diverged
        self._thread.has_used(name)
        self._sending.count_places_from(counted_from(name, entry))
        if question.is_said:
            said, sender_id = (None, "") if given is None else (given.said, given.sender_id)
            self._thread.keeping.answered(name, _shown(question, question.payload("")), said, sender_id)
        if given is None:
            raise NoAnswer(msgspec.msgpack.decode(entry.value, type=str))
        return given

    async def _suspend(
        self, question: Question, name: str, key: str | None, timeout: timedelta, who: list[str]
    ) -> None:
        """Shows the question, and ends this run. Raises Suspended."""
        thread = self._thread
        if key is None and thread.left:
            raise Diverged
        if thread.asked >= MOST_WAITS_OF_A_THREAD:
            raise TooManyWaits(MOST_WAITS_OF_A_THREAD, "are asked for one message")
        if thread.open_waits >= MOST_OPEN_WAITS:
            raise TooManyWaits(MOST_OPEN_WAITS, "of a conversation are open at a time")
        thread.keeping.check_unchanged()
        with thread.suspending():
            await thread.until_steps_are_noted()
            await self._show(question, name, timeout, who)
        thread.scope.cancel()
        raise thread.suspended

    async def _show(self, question: Question, name: str, timeout: timedelta, who: list[str]) -> None:
        """Has the question shown in one step with its wait, so that nobody meets one without the other; then nothing more is said."""
        thread, sending = self._thread, self._sending
        asked_ms = await thread.time_to_wait()
        place = f"{name}@{thread.job.short_id}" if thread.job.continues else name
        card_id = sending.card_id(place)
        payload = question.payload(card_id)
        async with sending.turn():
            due_ms = asked_ms + int(timeout.total_seconds() * 1000)
            sending.say_with_end(place, _shown(question, payload), "" if question.asked == "text" else card_id)
            question_hash = question.question_hash(card_id)
            thread.suspend(Draft(card_id, name, question.asked, who, due_ms, question_hash, asked_ms, place))
            sending.suspend()

    async def _say(self, text: str) -> None:
        async with self._sending.turn():
            place = self._sending.take_place(None)
            payload = text_payload(text, markdown=False)
            await self._sending.emit(place, Reply(kind="message", content_type="text", payload=payload))


def _shown(question: Question, payload: Payload) -> Reply:
    """Returns the reply that asks a question."""
    return Reply(kind="message", content_type="text" if question.asked == "text" else "artifact", payload=payload)
