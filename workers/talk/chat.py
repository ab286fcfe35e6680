"""The chat of an async handler, which sends its replies.

Each reply has a place (its number in the order of sending, or its `key`), so that a second run of a job sends only what is missing.
While Redis is away the calls wait; a handler never sees that.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, overload

import msgspec
import trio

from bus.records.cards import CardKept
from bus.records.records import InboundMessage, Payload, Reply
from bus.records.sent_ids import text_id
from workers.errors import (
    BadAsk,
    BadReply,
    ChatClosed,
    HistoryNotKept,
    NoAnswer,
    StateInTool,
    ToolDenied,
    ToolError,
    ToolTimeout,
)
from workers.files.files import RunFiles
from workers.files.outgoing import File
from workers.kept.history import MOST_TURNS, History
from workers.kept.thread import ThreadRun
from workers.kept.waits import QUESTION
from workers.kept.within import within
from workers.talk.answers import Answer
from workers.talk.asks import A_DAY, Asks
from workers.talk.cards import App, Approval, Card, Form, Media, ToolCall, update_payload
from workers.talk.elsewhere import Elsewhere
from workers.talk.emoji import is_one_emoji
from workers.talk.filing import Filing
from workers.talk.payloads import (
    TEXT_LIMIT_CHARACTERS,
    Mention,
    Quote,
    addressed,
    card_in,
    check_says_something,
    checked_payload,
    text_payload,
    text_payloads,
    text_reply,
)
from workers.talk.progress import ProgressBar
from workers.talk.questions import Question
from workers.talk.reminding import Reminding
from workers.talk.sending import Sending
from workers.talk.sent import Sent
from workers.talk.stream import Stream
from workers.talk.typing import TYPING_RENEWAL_SECONDS, stop_typing

Asked = TypeVar("Asked")

TOOL_TIMEOUT = timedelta(seconds=10)
"""PROTOCOL §4: a tool's `timeout_ms` where the manifest names none."""

TOOL_WAY = timedelta(minutes=2)
"""For the way to a person's app and back, and for the person, whom it may ask."""


def _result_in(said: object) -> Any:
    """Returns the result in the answer of a tool. Raises ToolDenied, ToolError."""
    told = said if isinstance(said, dict) else {}
    if told.get("status") == "ok":
        return told.get("result")
    if told.get("status") == "denied":
        why = told.get("reason")
        raise ToolDenied(why if isinstance(why, str) and why else "denied")
    raise ToolError("the tool has failed in the person's app")


class Chat:
    """The conversation that a job's message came from."""

    def __init__(
        self,
        sending: Sending,
        message: InboundMessage | None = None,
        reminding: Reminding | None = None,
        thread: ThreadRun | None = None,
        *,
        files: RunFiles | None = None,
    ) -> None:
        """`message`: what the handler was given, which `quote=True` quotes. `reminding`: the reminders of its run, `thread`: what the run is a
        part of. `files`: by what it sends files.
        """
        self._sending = sending
        self._message = message or sending.job.message
        self._reminding = reminding
        self._thread = thread
        self._filing = Filing(sending, files)
        self._files = files
        self._typists = 0
        self._typing = trio.CancelScope()

    def __repr__(self) -> str:
        return f"Chat(conversation_id={self.conversation_id!r})"

    @property
    def conversation_id(self) -> str:
        return self._sending.job.conversation_id

    @overload
    async def reply(
        self,
        what: str,
        *,
        markdown: bool = False,
        quote: Quote = False,
        mention: Mention = (),
        key: str | None = None,
    ) -> Sent: ...

    @overload
    async def reply(
        self, what: Card | File, *, quote: Quote = False, mention: Mention = (), key: str | None = None
    ) -> Sent: ...

    async def reply(
        self,
        what: str | Card | File,
        *,
        markdown: bool = False,
        quote: Quote = False,
        mention: Mention = (),
        key: str | None = None,
    ) -> Sent:
        """Sends a text, a card or a file. Raises BadReply, BadCard, FileError.

        A text of more than 100,000 characters goes in parts, cut at paragraphs. `quote`: True for the message that is answered, or the
        message (or its id) to quote; `mention`: whom it is for (user ids, or messages of theirs). `key`: for a handler that replies
        concurrently, so that the reply is known as the same one in a second run.
        """
        if quote is True:
            self._check_message("quote=")
        if isinstance(what, File):
            return await self._send_file(what, quote, mention, key)
        if not isinstance(what, Card):
            return await self._say(what, markdown, quote, mention, key)
        await self._filing.wait()
        async with self._sending.turn():
            place = self._sending.take_place(key)
            card_id = self._sending.card_id(place)
            shown = await self._filing.card(what, card_id, place)
            payload = addressed(shown, self._message, quote, mention)
            reply = Reply(kind="message", content_type="artifact", payload=payload)
            await self._sending.emit_card(place, card_id, what.kind, reply)
        return Sent(card_id, self.recall)

    async def _send_file(self, file: File, quote: Quote, mention: Mention, key: str | None) -> Sent:
        await self._filing.wait()
        async with self._sending.turn():
            place = self._sending.take_place(key)
            payload = addressed(await self._filing.payload(file, place), self._message, quote, mention)
            await self._emit(place, payload)
        return Sent(text_id(self._sending.job.thread_id, place), self.recall, self._sending.ids_in)

    async def _say(self, text: str, markdown: bool, quote: Quote, mention: Mention, key: str | None) -> Sent:
        others: list[Payload] = []
        if quote is False and not mention and isinstance(text, str) and len(text) <= TEXT_LIMIT_CHARACTERS:
            check_says_something(text)
            payload = text_payload(text, markdown=markdown)  # nearly all of them
        else:
            payload, *others = text_payloads(
                text, markdown=markdown, message=self._message, quote=quote, mention=mention
            )
        async with self._sending.turn():
            place = self._sending.take_place(key)
            await self._emit(place, payload)
            places = [place]
            for number, part in enumerate(others, start=2):
                places.append(self._sending.take_place(None) if key is None else f"{place}~{number}")
                await self._emit(places[-1], part)
        return Sent(text_id(self._sending.job.thread_id, *places), self.recall, self._sending.ids_in)

    async def send(self, payload: Mapping[str, object], *, key: str | None = None) -> Sent:
        """Sends any payload of PROTOCOL §4: a mapping of JSON values with a `type`. Raises TextTooLong, BadReply."""
        checked = checked_payload(payload)
        card_id, kind = card_in(checked)
        async with self._sending.turn():
            place = self._sending.take_place(key)
            if card_id:
                reply = Reply(kind="message", content_type=str(checked["type"]), payload=checked)
                await self._sending.emit_card(place, card_id, kind, reply)
            else:
                await self._emit(place, checked)
        return Sent(text_id(self._sending.job.thread_id, place), self.recall, self._sending.ids_in)

    async def say_aside(self, text: str, name: str) -> None:
        """Says something about the job, which is no part of what was said: the runtime's own words, once for a name. Raises ChatClosed."""
        async with self._sending.turn():
            await self._sending.emit_aside(name, text_reply(text))

    async def _emit(self, place: str, payload: dict[str, object]) -> None:
        await self._sending.emit(place, Reply(kind="message", content_type=str(payload["type"]), payload=payload))

    async def update(
        self, card: str | Sent, payload: Card | Mapping[str, object] | msgspec.Struct, *, key: str | None = None
    ) -> None:
        """Shows something else in a card of this conversation, named by its id: a card of its kind, or its whole payload. Raises BadCard.

        A card has at most 100 updates. The files of a Media card are uploaded. Raises FileError too. `key`: as in `reply`.
        """
        card_id, shown, beside = card.id if isinstance(card, Sent) else card, payload, Payload()

        def made(kept: CardKept) -> Reply:
            new = update_payload(card_id, kept.kind, kept.revision, shown)
            return Reply(kind="message", content_type="artifact", payload={**new, **beside})

        has_files = isinstance(payload, Media) and bool(payload.files)
        if has_files:
            await self._filing.wait()
        async with self._sending.turn():
            place = self._sending.take_place(key)
            if isinstance(payload, Media) and has_files:
                await self._sending.check_update(place, card_id, made)
                shown, beside = await self._filing.media(payload, place)
            await self._sending.update_card(place, card_id, made)

    async def recall(self, sent: str | Sent) -> None:
        """Takes back what was sent in this conversation, also by an earlier job: what `reply` returned, or its id. Raises BadCard.

        It goes its way behind what was sent before. The relay takes a message back within 2 minutes; a recall that comes too late or is
        refused is a dead letter, with the reason.
        """
        for what in await self._sending.named_in(sent.handle if isinstance(sent, Sent) else sent):
            await self._act("recall", what)

    async def react(self, emoji: str | None, to: str | InboundMessage | None = None) -> None:
        """Shows an emoji at the message that is answered, or at another (a message, or its id); None takes it back. Raises BadReply."""
        if emoji is not None and not is_one_emoji(emoji):
            raise BadReply("react takes one emoji, such as '👍', or None to take it back")
        if to is None:
            self._check_message("react")
        message = to or self._message
        message_id = message.message_id if isinstance(message, InboundMessage) else message
        await self._act("reaction", {"message_id": message_id, "emoji": emoji})

    def _check_message(self, what: str) -> None:
        """Raises BadReply in a job that no message began, a reminder's say: there is nothing to quote or to react to."""
        job = self._sending.job
        if job.kind != "message" and self._message.message_id == job.job_id:
            raise BadReply(f"no message began this job: {what} names the message that it is for")

    async def _act(self, kind: Literal["recall", "reaction"], what: dict[str, object]) -> None:
        async with self._sending.turn():
            reply = Reply(kind=kind, content_type=kind, payload=what)
            await self._sending.emit(self._sending.take_place(None), reply)

    def to(self, conversation_id: str) -> Elsewhere:
        """Returns another conversation of this agent, in which somebody has written: `await chat.to(id).reply("…")`."""
        return Elsewhere(self._sending, conversation_id, self._filing)

    @overload
    async def ask(
        self,
        what: str,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
    ) -> str: ...

    @overload
    async def ask(
        self,
        what: str,
        kind: type[Asked],
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
        again: str | None = None,
    ) -> Asked: ...

    @overload
    async def ask(
        self,
        what: str,
        kind: Any,  # a Literal or a union, which is no type[…]
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
        again: str | None = None,
    ) -> Any: ...

    @overload
    async def ask(
        self,
        what: Approval,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
    ) -> bool: ...

    @overload
    async def ask(
        self,
        what: Approval,
        kind: type[Answer],
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
    ) -> Answer: ...

    @overload
    async def ask(
        self,
        what: Form,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
        again: str | None = None,
    ) -> dict[str, Any]: ...

    @overload
    async def ask(
        self,
        what: App,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
    ) -> Answer: ...

    @overload
    async def ask(
        self,
        what: type[Asked],
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
        again: str | None = None,
    ) -> Asked: ...

    async def ask(
        self,
        what: object,
        kind: object = str,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
        again: str | None = None,
    ) -> object:
        """Asks whoever wrote (or `who`: one user id, or several), and returns the answer. Raises NoAnswer, TooManyWaits, BadAsk.

        A text is answered by that person's next text, as one of `kind` (int, date, …); an Approval by True or False, or as an Answer if that is the `kind`; a Form or a Struct class
        by its values, an App by an Answer. What does not fit is asked again, with the words `again`. Until the answer comes the handler does not run: it runs
        again from its first line then, in any worker, and what it has said and noted is known (docs/handlers.md). `timeout`: how long the
        question is open, at most 30 days. `key`: a name for the question, for a handler that asks concurrently or whose words change.
        """
        return await self.ask_question(Question.of(what, kind), timeout=timeout, key=key, who=who, again=again)

    async def ask_question(
        self,
        question: Question,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
        again: str | None = None,
    ) -> object:
        """Asks a question that is made already; as `ask`."""
        if self._thread is None:
            raise BadAsk("this chat cannot wait for an answer")
        asks = Asks(self._thread, self._sending, self._message, self._files)
        return await asks.ask(question, timeout=timeout, key=key, who=who, again=again)

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        *,
        scope: str,
        timeout: timedelta = TOOL_TIMEOUT,
        key: str | None = None,
        who: str | None = None,
    ) -> Any:
        """Has a tool of the platform run by the app of whoever wrote (or `who`), and returns its result (PROTOCOL §4.1).

        `scope`: the permission that it needs, by its id in the agent's capability manifest; the app asks the person for it. `timeout`: how long it
        may take, without the way to it and back. It is a wait as that of `ask`: the handler does not run meanwhile, and a later run gets the same
        result. Raises ToolDenied, ToolTimeout, ToolError, TooManyWaits, BadAsk, BadCard.
        """
        if self._thread is None:
            raise BadAsk("this chat cannot wait for an answer")
        call = ToolCall(name, dict(arguments or {}), scope, round(timeout.total_seconds() * 1000))
        asks = Asks(self._thread, self._sending, self._message)
        question = Question.of(call, dict)
        try:
            said = await asks.ask(question, timeout=timeout + TOOL_WAY, key=key, who=who, again=None)
        except NoAnswer as none:
            raise (ToolTimeout() if none.why == "timeout" else ToolDenied(none.why)) from None
        return _result_in(said)

    def was_asked(self, key: str) -> bool:
        """Returns whether this thread has asked a question with this key, which has been answered or ended."""
        return self._thread is not None and self._thread.entry(f"{QUESTION}{key}#1") is not None

    def has_asked(self, prefix: str) -> None:
        """Notes that the handler has come again to the questions whose keys begin so; what is said next counts from the last of them."""
        if self._thread is None:
            return
        found = self._thread.has_used_all(f"{QUESTION}{prefix}")
        if found is not None:
            self._sending.count_places_from(found)

    @property
    def members(self) -> tuple[str, ...]:
        """The ids of who takes part: in a group its members, as its key names them, this agent among them; else the person."""
        members = (self._message.group_metadata or {}).get("members")
        return tuple(map(str, members)) if isinstance(members, list) else (self._message.sender_id,)

    async def forget(self) -> None:
        """Has all that is kept of this conversation deleted with the end of this job: its state, what was said, open questions.

        Also what this run has changed and said. A run that fails forgets nothing. Raises ChatClosed.
        """
        self._sending.check_open()
        if within() is not None:
            raise StateInTool
        if self._sending.keeping is not None:
            self._sending.keeping.forget()
        await trio.lowlevel.checkpoint()

    async def history(self, most: int = MOST_TURNS) -> History:
        """Returns the newest `most` turns of what was said before this message, oldest first. Raises HistoryNotKept."""
        if self._sending.keeping is None:
            raise HistoryNotKept
        return (await self._sending.keeping.history()).last(most)

    async def remind(
        self,
        name: str,
        *,
        after: timedelta | None = None,
        at: datetime | None = None,
        daily: str | None = None,
        tz: str | None = None,
        data: object = None,
        key: str | None = None,
    ) -> None:
        """Has the handler `@agent.on_reminder(name)` called in this conversation at a time. Raises BadReminder, TooManyReminders.

        `after` a time from now, `at` a datetime with its time zone, or `daily` at a time of day such as `08:00` in the time zone `tz`. The
        handler is given `data`, of at most 4 KiB. It is set with the end of this handler. A `key` replaces the reminder with that key; a
        daily one has its name for a key.
        """
        await self._of_reminders().remind(name, after=after, at=at, daily=daily, tz=tz, data=data, key=key)

    async def forget_reminder(self, key: str) -> None:
        """Drops the reminder with this key (of a daily one its name) with the end of this handler; it may be none. Raises BadReminder."""
        await self._of_reminders().forget(key)

    def _of_reminders(self) -> Reminding:
        self._sending.check_open()
        if self._reminding is None:
            raise ChatClosed("this chat is not of a run")
        return self._reminding

    def stream(
        self, *, markdown: bool = False, quote: Quote = False, mention: Mention = (), key: str | None = None
    ) -> Stream:
        """Returns a reply that people see grow: `async with chat.stream() as stream: await stream.write("…")`.

        The end of the block sends the whole text, or nothing if none was written. An exception in it sends nothing more.
        `quote`, `mention`: as in `reply`.
        """
        if quote is True:
            self._check_message("quote=")

        def payloads(text: str) -> list[Payload]:
            return text_payloads(text, markdown=markdown, message=self._message, quote=quote, mention=mention)

        return Stream(self._sending, payloads=payloads, key=key)

    def progress(self, title: str, *, cancel: str | None = None, key: str | None = None) -> ProgressBar:
        """Returns a card that shows how far something is: `async with chat.progress("Exporting") as bar: await bar.update(40, "…")`.

        The end of the block shows that it is done, an exception that it has failed. `cancel`: the words of a Stop button; when whom the
        job is for presses it, the rest of the block is cancelled, within a second or so, and `bar.cancelled` is true behind it.
        """
        return ProgressBar(self._sending, title, cancel=cancel, key=key, thread=self._thread)

    @asynccontextmanager
    async def typing(self) -> AsyncIterator[None]:
        """Shows "typing…" until the end of the block. Raises ChatClosed."""
        self._sending.check_open()
        self._typists += 1
        self._sending.has_said = True
        if self._typists == 1:
            self._typing = trio.CancelScope()
            self._sending.helpers.start_soon(self._keep_typing, self._typing)
        try:
            yield
        finally:
            self._typists -= 1
            if self._typists == 0:
                self._typing.cancel()
                await stop_typing(self._sending)

    async def _keep_typing(self, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await self._sending.show_typing(active=True)
                await trio.sleep(TYPING_RENEWAL_SECONDS)
