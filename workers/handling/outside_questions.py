"""The handler that asks somebody for a program on this host (`hashee-agent mcp`).

The question is a job like a reminder's: placed once for its key, asked by `chat.ask`, and its answer written into the store with the end of the
job. So whoever dies meanwhile, it is asked once and the answer is kept; the program looks for it, in whatever process that is by then
(docs/design.md, "From outside").
"""

import time
from datetime import timedelta

import msgspec

from bus.records.outside import ASK_REMINDER, FORGET_REMINDER, OURS, OutsideAnswer, OutsideQuestion, answer_key
from workers.errors import BadCard, NoAnswer, TooManyWaits
from workers.handling.context import JobContext
from workers.handling.routing import Router
from workers.kept.store import Store
from workers.talk.answers import Answer
from workers.talk.cards import Approval
from workers.talk.chat import Chat

KEPT_FOR = timedelta(days=30)
"""An answer, for whoever asks again under the same key: as long as the key itself is known at least."""

MOST_ANSWER_CHARACTERS = 12_000
"""Of an answer that is kept: in UTF-8 no value of the store is larger."""

MOST_NAME_CHARACTERS = 64


def outside_questions() -> Router:
    """Returns a router with what answers programs of this host."""
    router = Router()
    router.on_reminder(ASK_REMINDER)(ask_for_a_program)
    router.on_reminder(FORGET_REMINDER)(forget_an_answer)
    return router


def is_ours(name: str) -> bool:
    """Returns whether a reminder's name is the runtime's own."""
    return name.startswith(OURS)


async def ask_for_a_program(chat: Chat, job: JobContext, store: Store, data: OutsideQuestion) -> None:
    """Asks, and keeps the answer under the id of the question, which is that of the job."""
    answer = await _answer(chat, job, data)
    await store.set(answer_key(job.idempotency_key), answer)
    await chat.remind(FORGET_REMINDER, after=KEPT_FOR, data=job.idempotency_key)


async def forget_an_answer(store: Store, data: str) -> None:
    """Takes away an answer that was kept long enough."""
    await store.set(answer_key(data), None)


async def _answer(chat: Chat, job: JobContext, data: OutsideQuestion) -> OutsideAnswer:
    at = data.conversation_id
    waited = await job.step("begins", time.time) - job.now.timestamp()
    timeout = timedelta(seconds=data.seconds - waited)
    if timeout <= timedelta(0):  # what was before it in the conversation took all of its time
        return OutsideAnswer(at, "no_answer", reason="timeout")
    asker = data.asker[:MOST_NAME_CHARACTERS]
    try:
        if data.is_approval:
            card = Approval(data.question, title=f"A program asks: {asker}", details=data.details)
            decided = await chat.ask(card, Answer, timeout=timeout, who=data.who)
            return _kept(OutsideAnswer(at, "answered", decided.is_approved, decided.comment, by=decided.sender_id))
        text = await chat.ask(_words(data, asker), timeout=timeout, who=data.who)
        return _kept(OutsideAnswer(at, "answered", text=text, by=data.who))
    except NoAnswer as none:
        return OutsideAnswer(at, "no_answer", reason=none.why)
    except (TooManyWaits, BadCard) as refused:
        return OutsideAnswer(at, "refused", reason=str(refused))


def _words(data: OutsideQuestion, asker: str) -> str:
    """Returns the text of a question that is answered in words."""
    parts = [
        f"A program asks ({asker}):",
        data.question,
        data.details,
        "Your next message is the answer; /cancel for none.",
    ]
    return "\n\n".join(part for part in parts if part)


def _kept(answer: OutsideAnswer) -> OutsideAnswer:
    if len(answer.text) <= MOST_ANSWER_CHARACTERS:
        return answer
    return msgspec.structs.replace(answer, text=answer.text[:MOST_ANSWER_CHARACTERS], is_cut=True)
