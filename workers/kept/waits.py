"""A thread that waits for an answer: what its handler needs to go on, and which job answers it. Pure; workers/process/runner.py does what is said here."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import msgspec

from bus.records.records import InboundMessage, Job, Payload
from bus.steps.thread_steps import OpenWait
from workers.kept.thread import Entry
from workers.kept.words import Unanswerable

MOST_WAITS_OF_A_THREAD = 64
MOST_OPEN_WAITS = 10
MOST_ANSWER_FILES = 100
"""Of the answer to a form, as of a message (workers/files/said.py)."""
CANCEL = "/cancel"
QUESTION = "ask:"
"""What the name of a question begins with, in the journal and as a place; no other place does."""


AskedKind = Literal["text", "form", "approval", "app", "tool_call"]


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """A wait as it is sealed. `id`: of the card that was shown, or of the text.

    `handler`: who asked; `messages`: those it was given, the newest last; `message_ms`, `accepted_ms`: of the thread's first job.
    `journal`, `places`, `cards`: what the thread has noted and said. `entry`: the answer's name in the journal. `who`: whose answer counts.
    `question_hash`: of an approval (PROTOCOL §4.1). `due_ms`: until when it is waited for; `asked_ms`: when it was asked, both by Redis' clock.
    `left`: names in the journal of answers that the handler has not come to yet. `place`: where it was shown; '' where that is `entry`. `epoch`: in
    which the thread's message was taken in.
    """

    id: str
    thread_id: str
    handler: str
    messages: list[InboundMessage]
    message_ms: int
    accepted_ms: int
    journal: dict[str, bytes]
    places: list[str]
    cards: dict[str, str]
    entry: str
    kind: AskedKind
    who: list[str]
    due_ms: int
    question_hash: str = ""
    asked_ms: int = 0
    left: list[str] = []
    place: str = ""
    epoch: int | None = None

    def __repr__(self) -> str:
        return f"Wait(id={self.id!r}, thread_id={self.thread_id!r}, kind={self.kind!r})"

    def encoded(self) -> bytes:
        """Returns what is sealed."""
        return msgspec.msgpack.encode(self)


class Given(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it stands in the journal: what was said, by whom, and to which card ('' for what a former version noted).

    `attachments`: of a form, how its files are opened.
    """

    said: Payload
    sender_id: str
    card_id: str = ""
    attachments: list[Payload] = []

    def __repr__(self) -> str:
        return f"Given(sender_id={self.sender_id!r}, card_id={self.card_id!r}, …)"


class Answered(msgspec.Struct, frozen=True):
    """A job goes on with a thread: `entry` stands in the journal for the answer, or for there being none."""

    wait: Wait
    entry: bytes


class Refused(msgspec.Struct, frozen=True):
    """A job would answer a question and may not: its sender hears why, in the agent's words."""

    why: Unanswerable


class Postponed(msgspec.Struct, frozen=True):
    """A deadline is over whose question was answered in time, by a job that has not ended: it is looked at again later."""

    wait: Wait


def continued(job: Job, wait: Wait) -> Job:
    """Returns a job as it goes on with a thread: its replies have the ids and the time that the thread's first job would give them."""
    return msgspec.structs.replace(
        job,
        continues=wait.thread_id,
        message_ms=wait.message_ms,
        accepted_ms=wait.accepted_ms,
        epoch=wait.epoch if wait.epoch is not None else job.epoch,
    )


def answer_in(job: Job, waits: Sequence[OpenWait], quoted: str = "") -> Answered | Refused | None:
    """Returns what a job means to the threads that wait in its conversation; None for nothing. `quoted`: the id of the wait that it quotes."""
    read = _read(waits)
    mine = next((wait for one, wait in read if one.bound_to == job.job_id), None)
    if job.kind == "deadline":
        return _overdue(job, read)
    artifact = job.message.payload.get("artifact")
    if job.message.payload.get("type") == "artifact" and isinstance(artifact, dict):
        return _by_card(job, artifact, read)
    if mine is not None:
        return _with_text(job, mine)
    theirs = _words_may_answer(job, read)
    meant = next((wait for wait in theirs if wait.id == quoted), theirs[-1] if theirs else None)
    return None if meant is None else _with_text(job, meant)


def quotable(job: Job, waits: Sequence[OpenWait]) -> list[Wait]:
    """Returns the questions of which a job's words answer one, where it quotes something and there are several."""
    theirs = _words_may_answer(job, _read(waits)) if job.message.reply_to else []
    return [wait for wait in theirs if wait.kind == "text"] if len(theirs) > 1 else []


def _read(waits: Sequence[OpenWait]) -> list[tuple[OpenWait, Wait]]:
    """Returns the waits, the one last that was asked last."""
    read = [(one, msgspec.msgpack.decode(one.body, type=Wait)) for one in waits]
    return sorted(read, key=lambda pair: (pair[1].asked_ms, pair[0].from_seq))


def _words_may_answer(job: Job, read: Sequence[tuple[OpenWait, Wait]]) -> list[Wait]:
    """Returns the questions that a text may answer, or with /cancel end: of its sender, and not bound to another message."""
    theirs = [(one, wait) for one, wait in read if job.message.sender_id in wait.who and not one.bound_to]
    if _is_cancel(job.message):
        return [wait for _, wait in theirs]
    if not _is_words(job.message):
        return []
    return [wait for one, wait in theirs if wait.kind == "text" and job.seq >= one.from_seq]


def asked_for_a_text(waits: Sequence[OpenWait]) -> frozenset[str]:
    """Returns whose next text may be the answer to an open question."""
    read = [msgspec.msgpack.decode(one.body, type=Wait) for one in waits]
    return frozenset(person for wait in read if wait.kind == "text" for person in wait.who)


def _overdue(job: Job, read: Sequence[tuple[OpenWait, Wait]]) -> Answered | None:
    name = job.message.payload.get("name")
    found = next((wait for one, wait in read if wait.id == name and one.bound_to in ("", job.job_id)), None)
    return None if found is None else Answered(found, none_for("timeout", job))


def answered_in_time(job: Job, waits: Sequence[OpenWait]) -> tuple[Wait, str] | None:
    """Returns the question whose deadline a job is and that was answered before, and by which job; None if there is none."""
    if job.kind != "deadline":
        return None
    name = job.message.payload.get("name")
    return next(((wait, one.bound_to) for one, wait in _read(waits) if wait.id == name and one.bound_to), None)


def _by_card(job: Job, artifact: Payload, read: Sequence[tuple[OpenWait, Wait]]) -> Answered | Refused | None:
    said, named = said_in(artifact), card_named_in(artifact)
    found = next(((one, wait) for one, wait in read if wait.id == named), None)
    if found is None:
        return None
    one, wait = found
    if job.message.sender_id not in wait.who:
        return Refused("not_asked")
    if one.bound_to not in ("", job.job_id):
        return Refused("not_open")
    if wait.kind == "tool_call" and artifact.get("subtype") != "tool_response":
        return Refused("other_question")
    if wait.kind == "approval" and said.get("question_hash") != wait.question_hash:
        return Refused("other_question")
    attachments = job.message.attachments[:MOST_ANSWER_FILES] if wait.kind == "form" else []
    return Answered(wait, answer_entry(said, job, wait.id, attachments))


def said_in(artifact: Payload) -> Payload:
    """Returns what an answer says: the payload within its artifact (PROTOCOL §4.1)."""
    inner = artifact.get("payload")
    return cast("Payload", inner) if isinstance(inner, dict) else {}


def card_named_in(artifact: Payload) -> str:
    """Returns the id of the card, or of the tool's call, that an artifact answers; '' if it names none."""
    named = artifact.get("ref_artifact") or said_in(artifact).get("call_id")
    return named if isinstance(named, str) else ""


def _with_text(job: Job, wait: Wait) -> Answered:
    if _is_cancel(job.message):
        return Answered(wait, none_for("cancelled", job))
    return Answered(wait, answer_entry({"text": job.message.text}, job, wait.id))


def _is_words(message: InboundMessage) -> bool:
    return bool(message.text) and message.payload.get("type") == "text" and not message.text.lstrip().startswith("/")


def _is_cancel(message: InboundMessage) -> bool:
    return message.payload.get("type") == "text" and message.text.strip().lower() == CANCEL


def answer_entry(said: Mapping[str, object], job: Job, card_id: str, attachments: Sequence[Payload] = ()) -> bytes:
    """Returns the entry of the journal for the answer in a job."""
    given = msgspec.msgpack.encode(Given(dict(said), job.message.sender_id, card_id, list(attachments)))
    return msgspec.msgpack.encode(Entry("answer", msgspec.Raw(given), job.short_id))


def none_for(reason: str, job: Job) -> bytes:
    """Returns the entry of the journal for there being no answer, by this job."""
    return msgspec.msgpack.encode(Entry("none", msgspec.Raw(msgspec.msgpack.encode(reason)), job.short_id))
