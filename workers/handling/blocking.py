"""The chat of a sync handler: the calls of Chat without `await`. They run in the event loop and block the handler's thread.

When the job is cancelled or lost, the next call raises trio.Cancelled in the handler; let it pass. Only the thread that the
handler was called in may use it.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import msgspec
import trio

from bus.records.records import InboundMessage
from host.forks import is_forked
from workers.errors import ChatClosed
from workers.files.inbound import TEXT_CHARACTERS, FormFile, InboundFile, Message, Quoted, QuotedWords
from workers.files.limits import DOWNLOADED_BYTES
from workers.files.names import Kind
from workers.files.outgoing import File
from workers.handling.context import JobContext, Parameters, check_function
from workers.kept.history import MOST_TURNS, History
from workers.kept.store import Store
from workers.kept.thread import Step
from workers.llm.model import LLM
from workers.talk.answers import Answer
from workers.talk.asks import A_DAY
from workers.talk.cards import App, Approval, Card, Form
from workers.talk.chat import TOOL_TIMEOUT, Chat
from workers.talk.elsewhere import Elsewhere
from workers.talk.payloads import Mention, Quote
from workers.talk.progress import ProgressBar
from workers.talk.questions import Question
from workers.talk.sent import Sent
from workers.talk.stream import Stream

Result = TypeVar("Result")


def _run(function: Callable[..., Awaitable[Result]], *arguments: object) -> Result:
    """What the function returns, run in the event loop. Raises ChatClosed in a thread that is not the handler's own, and in another process."""
    if is_forked():
        raise ChatClosed("in a process that its handler has forked: return what it finds, and say it in the handler")
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        raise ChatClosed("outside of the thread that its handler was called in: use it there") from None
    return trio.from_thread.run(function, *arguments)


class BlockingStream:
    """Made by `chat.stream()` in a sync handler."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        _run(self._stream.__aenter__)
        return self

    def write(self, text: str) -> None:
        """As Stream.write."""
        _run(self._stream.write, text)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _run(self._stream.__aexit__, kind, error, traceback)


class _Stopped(BaseException):
    """Leaves the block of a progress whose Stop was pressed."""


class BlockingProgressBar:
    """Made by `chat.progress()` in a sync handler."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar

    @property
    def id(self) -> str:
        """As ProgressBar.id."""
        return self._bar.id

    @property
    def cancelled(self) -> bool:
        """As ProgressBar.cancelled."""
        return self._bar.cancelled

    def __enter__(self) -> Self:
        _run(self._bar.begin)
        return self

    def update(self, percent: float, text: str | None = None) -> None:
        """As ProgressBar.update. Leaves the block where Stop was pressed."""
        if self.cancelled:
            raise _Stopped
        _run(self._bar.update, percent, text)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        is_stopped = isinstance(error, _Stopped)
        _run(self._bar.end, None if is_stopped else error)
        return is_stopped


class BlockingFile(FormFile):
    """As InboundFile, for sync handlers."""

    def __init__(self, file: InboundFile) -> None:
        self._file = file

    @classmethod
    def of(cls, file: InboundFile) -> "BlockingFile":
        return cls(file)

    def __repr__(self) -> str:
        return repr(self._file)

    @property
    def id(self) -> str:
        return self._file.id

    @property
    def name(self) -> str:
        return self._file.name

    @property
    def type(self) -> str:
        return self._file.type

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def kind(self) -> Kind:
        return self._file.kind

    @property
    def alt(self) -> str:
        return self._file.alt

    @property
    def percent(self) -> float:
        return self._file.percent

    @property
    def without_blocking(self) -> InboundFile:
        """Returns the file as async functions read it."""
        return self._file

    def chunks(self) -> Iterator[bytes]:
        """As InboundFile.chunks, with a plain `for`."""
        return _each(self._file.chunks())

    def texts(self, *, of: int = TEXT_CHARACTERS) -> Iterator[str]:
        """As InboundFile.texts, with a plain `for`."""
        return _each(self._file.texts(of=of))

    def bytes(self, *, most: int = DOWNLOADED_BYTES) -> bytes:
        """As InboundFile.bytes."""
        return _run(partial(self._file.bytes, most=most))

    def save(self, path: str | PathLike[str]) -> Path:
        """As InboundFile.save."""
        return _run(self._file.save, path)


def _each(pieces: AsyncIterator[Result]) -> Iterator[Result]:
    """Yields what an async iterator gives."""
    while True:
        try:
            piece = _run(pieces.__anext__)
        except StopAsyncIteration:
            return
        yield piece


@dataclass(frozen=True)
class BlockingQuoted(QuotedWords):
    """As Quoted, for sync handlers."""

    files: tuple[BlockingFile, ...] = ()


def _blocking_quoted(quoted: Quoted) -> BlockingQuoted:
    files = tuple(map(BlockingFile, quoted.files))
    return BlockingQuoted(quoted.message_id, quoted.is_known, quoted.sender_id, quoted.text, files)


class BlockingMessage(InboundMessage, frozen=True, kw_only=True, dict=True):
    """As Message, for sync handlers."""

    @cached_property
    def files(self) -> tuple[BlockingFile, ...]:
        """As Message.files."""
        return tuple(map(BlockingFile, self._plain.files))

    @cached_property
    def quoted(self) -> BlockingQuoted | None:
        """As Message.quoted."""
        found = self._plain.quoted
        return None if found is None else _blocking_quoted(found)

    @property
    def _plain(self) -> Message:
        found: Message = self.__dict__[_PLAIN]
        return found


_PLAIN = "_plain_message"


def blocking_message(message: Message) -> BlockingMessage:
    """Returns a message as a sync handler is given it."""
    found = BlockingMessage(**{name: getattr(message, name) for name in message.__struct_fields__})
    found.__dict__[_PLAIN] = message
    return found


class BlockingElsewhere:
    """As Elsewhere, for sync handlers."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere

    def __repr__(self) -> str:
        return f"BlockingElsewhere(conversation_id={self.conversation_id!r})"

    @property
    def conversation_id(self) -> str:
        return self._elsewhere.conversation_id

    def reply(self, what: str | Card | File, *, markdown: bool = False, key: str | None = None) -> "BlockingSent":
        """As Elsewhere.reply."""
        if isinstance(what, str):
            return BlockingSent(_run(partial(self._elsewhere.reply, what, markdown=markdown, key=key)))
        return BlockingSent(_run(partial(self._elsewhere.reply, what, key=key)))

    def send(self, payload: Mapping[str, object], *, key: str | None = None) -> "BlockingSent":
        """As Elsewhere.send."""
        return BlockingSent(_run(partial(self._elsewhere.send, payload, key=key)))

    def recall(self, sent: "str | BlockingSent") -> None:
        """As Elsewhere.recall."""
        _run(self._elsewhere.recall, sent.handle if isinstance(sent, BlockingSent) else sent)


class BlockingSent:
    """As Sent, for sync handlers."""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent

    def __repr__(self) -> str:
        return f"BlockingSent(id={self.id!r})"

    @property
    def id(self) -> str:
        """As Sent.id."""
        return self._sent.id

    @property
    def handle(self) -> str:
        """As Sent.handle."""
        return self._sent.handle

    def recall(self) -> None:
        """As Sent.recall."""
        _run(self._sent.recall)


class BlockingChat:
    """As Chat, for sync handlers."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def __repr__(self) -> str:
        return repr(self._chat)

    @property
    def conversation_id(self) -> str:
        return self._chat.conversation_id

    @overload
    def reply(
        self,
        what: str,
        *,
        markdown: bool = False,
        quote: Quote = False,
        mention: Mention = (),
        key: str | None = None,
    ) -> BlockingSent: ...

    @overload
    def reply(
        self, what: Card | File, *, quote: Quote = False, mention: Mention = (), key: str | None = None
    ) -> BlockingSent: ...

    def reply(
        self,
        what: str | Card | File,
        *,
        markdown: bool = False,
        quote: Quote = False,
        mention: Mention = (),
        key: str | None = None,
    ) -> BlockingSent:
        """As Chat.reply."""
        if isinstance(what, str):
            said = partial(self._chat.reply, what, markdown=markdown, quote=quote, mention=mention, key=key)
            return BlockingSent(_run(said))
        return BlockingSent(_run(partial(self._chat.reply, what, quote=quote, mention=mention, key=key)))

    def send(self, payload: Mapping[str, object], *, key: str | None = None) -> BlockingSent:
        """As Chat.send."""
        return BlockingSent(_run(partial(self._chat.send, payload, key=key)))

    def update(
        self,
        card: "str | BlockingSent",
        payload: Card | Mapping[str, object] | msgspec.Struct,
        *,
        key: str | None = None,
    ) -> None:
        """As Chat.update."""
        card_id = card.id if isinstance(card, BlockingSent) else card
        _run(partial(self._chat.update, card_id, payload, key=key))

    def recall(self, sent: "str | BlockingSent") -> None:
        """As Chat.recall."""
        _run(self._chat.recall, sent.handle if isinstance(sent, BlockingSent) else sent)

    def react(self, emoji: str | None, to: str | InboundMessage | None = None) -> None:
        """As Chat.react."""
        _run(self._chat.react, emoji, to)

    def to(self, conversation_id: str) -> BlockingElsewhere:
        """As Chat.to."""
        return BlockingElsewhere(self._chat.to(conversation_id))

    @property
    def members(self) -> tuple[str, ...]:
        """As Chat.members."""
        return self._chat.members

    def forget(self) -> None:
        """As Chat.forget."""
        _run(self._chat.forget)

    def history(self, most: int = MOST_TURNS) -> History:
        """As Chat.history."""
        return _run(self._chat.history, most)

    def remind(
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
        """As Chat.remind."""
        _run(partial(self._chat.remind, name, after=after, at=at, daily=daily, tz=tz, data=data, key=key))

    def forget_reminder(self, key: str) -> None:
        """As Chat.forget_reminder."""
        _run(self._chat.forget_reminder, key)

    @overload
    def ask(
        self,
        what: str,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
    ) -> str: ...

    @overload
    def ask(
        self,
        what: str,
        kind: type[Result],
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
        again: str | None = None,
    ) -> Result: ...

    @overload
    def ask(
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
    def ask(
        self,
        what: Approval,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
    ) -> bool: ...

    @overload
    def ask(
        self,
        what: Approval,
        kind: type[Answer],
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
    ) -> Answer: ...

    @overload
    def ask(
        self,
        what: Form,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
        again: str | None = None,
    ) -> dict[str, Any]: ...

    @overload
    def ask(
        self,
        what: App,
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
    ) -> Answer: ...

    @overload
    def ask(
        self,
        what: type[Result],
        *,
        timeout: timedelta = A_DAY,
        key: str | None = None,
        who: str | Sequence[str] | None = None,
        again: str | None = None,
    ) -> Result: ...

    def ask(self, what: Any, kind: Any = str, **named: Any) -> Any:
        """As Chat.ask. The handler's thread is unwound by an exception that no `except Exception` sees."""
        question = Question.of(what, kind, file=BlockingFile)
        return _run(partial(self._chat.ask_question, question, **named))

    def call_tool(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        *,
        scope: str,
        timeout: timedelta = TOOL_TIMEOUT,
        key: str | None = None,
        who: str | None = None,
    ) -> Any:
        """As Chat.call_tool. The handler's thread is unwound as by `ask`."""
        call = partial(self._chat.call_tool, name, arguments, scope=scope)
        return _run(partial(call, timeout=timeout, key=key, who=who))

    def stream(self, *, markdown: bool = False, key: str | None = None) -> BlockingStream:
        """As Chat.stream, with a plain `with`."""
        return BlockingStream(self._chat.stream(markdown=markdown, key=key))

    def progress(self, title: str, *, cancel: str | None = None, key: str | None = None) -> BlockingProgressBar:
        """As Chat.progress, with a plain `with`. The block ends at its next `bar.update` after Stop was pressed."""
        return BlockingProgressBar(self._chat.progress(title, cancel=cancel, key=key))

    @contextmanager
    def typing(self) -> Iterator[None]:
        """As Chat.typing, with a plain `with`."""
        typing = self._chat.typing()
        _run(typing.__aenter__)
        try:
            yield
        finally:
            _run(typing.__aexit__, None, None, None)


class BlockingJob:
    """As Job, for sync handlers."""

    def __init__(self, job: JobContext) -> None:
        self._job = job

    def __repr__(self) -> str:
        return repr(self._job)

    @property
    def idempotency_key(self) -> str:
        return self._job.idempotency_key

    @property
    def attempt(self) -> int:
        return self._job.attempt

    @property
    def deliveries(self) -> int:
        return self._job.deliveries

    @property
    def emitted(self) -> frozenset[str]:
        return self._job.emitted

    @property
    def messages(self) -> tuple[BlockingMessage, ...]:
        return tuple(map(blocking_message, self._job.messages))

    @property
    def now(self) -> datetime:
        return self._job.now

    @property
    def lateness(self) -> timedelta:
        return self._job.lateness

    def observe(self, metric: str, value: float, **labels: str) -> None:
        """As Job.observe."""
        self._job.observe(metric, value, **labels)

    @overload
    def step(
        self,
        name: str,
        function: Callable[Parameters, Awaitable[Result]],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result: ...

    @overload
    def step(
        self, name: str, function: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result: ...

    def step(self, name: str, function: Callable[..., object], *arguments: object, **named: object) -> object:
        """As Job.step. A sync function is called in the handler's thread, an async one in the event loop."""

        check_function(name, function)

        async def begin() -> Step:
            return self._job.thread.begin(name, once=False)

        step = _run(begin)
        if step.is_done:
            return step.result(function)
        value = _waited_for(function(*arguments, **named))
        return trio.from_thread.run(self._job.keep, step, function, value)

    @overload
    def once(
        self,
        name: str,
        function: Callable[Parameters, Awaitable[Result]],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result: ...

    @overload
    def once(
        self, name: str, function: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result: ...

    def once(self, name: str, function: Callable[..., object], *arguments: object, **named: object) -> object:
        """As Job.once."""
        check_function(name, function)
        step = _run(self._job.begin_once, name)
        if step.is_done:
            return step.result(function)
        try:
            value = _waited_for(function(*arguments, **named), shield=True)
            return trio.from_thread.run(self._job.keep_once, step, function, value)
        finally:
            self._job.thread.has_ended()


def _waited_for(value: object, *, shield: bool = False) -> object:
    """Returns what an async function returns, awaited in the event loop; anything else as it is."""
    if not inspect.isawaitable(value):
        return value

    async def wait() -> object:
        with trio.CancelScope(shield=shield):
            result = await value
        return result

    return trio.from_thread.run(wait)


class BlockingLLM:
    """As LLM, for sync handlers."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    def reply(
        self,
        prompt: str | None = None,
        *,
        system: str | None = None,
        model: str | None = None,
        markdown: bool = True,
        quote: Quote = False,
        mention: Mention = (),
        key: str | None = None,
        tools: bool | Sequence[str] = True,
        images: Sequence[BlockingFile] = (),
    ) -> str:
        """As LLM.reply."""
        reply = partial(self._llm.reply, prompt, system=system, model=model, markdown=markdown)
        shown = [one.without_blocking for one in images]
        return _run(partial(reply, quote=quote, mention=mention, key=key, tools=tools, images=shown))

    def complete(
        self,
        prompt: str,
        type: Any = str,  # noqa: A002 - as LLM.complete
        *,
        system: str | None = None,
        model: str | None = None,
        tools: bool | Sequence[str] = False,
    ) -> Any:
        """As LLM.complete."""
        return _run(partial(self._llm.complete, prompt, type, system=system, model=model, tools=tools))


class BlockingStore:
    """As Store, for sync handlers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:  # noqa: A002 - as Store.get
        """As Store.get."""
        return _run(partial(self._store.get, key, default, type=type))

    def change(
        self,
        key: str,
        function: Callable[[Any], object],
        default: Any = None,
        *,
        type: Any = Any,  # noqa: A002
    ) -> Any:
        """As Store.change. The function is called in the event loop: let it be quick."""
        return _run(partial(self._store.change, key, function, default, type=type))

    def set(self, key: str, value: object) -> None:
        """As Store.set."""
        _run(self._store.set, key, value)

    def add(self, key: str, by: float = 1) -> None:
        """As Store.add."""
        _run(self._store.add, key, by)
