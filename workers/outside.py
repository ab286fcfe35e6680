"""Says something from a program of the owner's own (a web server, a cron job) that runs as the agent's user on the agent's host.

It asks the running agent over its control socket, which only that user can open. So the program needs no key and no Redis: a message goes in, and
its receipt comes back. The async form works under trio and under asyncio; it asks in a thread.
"""

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec
import trio

from bus.control.client import Control, ControlLine, Unanswered, Why
from bus.control.messages import ControlAnswer, Request
from bus.records import ulid
from bus.records.outside import OutsideMessage, OutsideShow, Shows
from host.unreadable import UNREADABLE, UNWRITABLE, json_to_keep
from workers.errors import NotSent
from workers.outside_stream import GrowingText
from workers.talk.cards import Card, card_payload
from workers.talk.emoji import is_one_emoji
from workers.talk.typing import TYPING_RENEWAL_SECONDS

Result = TypeVar("Result")

WHOLE_ONLY: Final = ("full", "redis", "no_agent")
"""Reasons for which a text cannot be shown while it grows, and may still be sent."""

UNKNOWN: Final = "the agent did not answer, and whether it was queued is not known: with a key it may be repeated"


class Receipt(msgspec.Struct, frozen=True):
    """What became of a message. `outcome`: queued, waits (behind others that were sent so), already (the same was sent under this key), or
    taken_back (what it recalls was not sent yet, and never is). `id`: by which it may be recalled."""

    conversation_id: str
    id: str
    outcome: str
    card_id: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    reason: str = "refused"


class BlockingOutside:
    """`with BlockingOutside() as it: it.send(conversation_id, "Deployed", key="deploy-42")`, from any thread."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """`environ`: where the agent's HASHEE_STATE_DIR or HASHEE_AGENT_ID stands; else this process' own. Raises SettingsError."""
        self._control = Control.of(os.environ if environ is None else environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing is kept open."""

    def send(
        self, conversation_id: str, what: str | Card, *, markdown: bool = False, key: str | None = None
    ) -> Receipt:
        """Queues a text or a card in a conversation; with a `key` once, however often it is called. Raises NotSent.

        The receipt of a card that is new has its `card_id`, by which a handler may update it.
        """
        if isinstance(what, str):
            return self._send(OutsideMessage(conversation_id, what, markdown, key))
        card_id = ulid.new()
        receipt = self._send(OutsideMessage(conversation_id, key=key, card=card_payload(what, card_id)))
        return receipt if receipt.outcome == "already" else msgspec.structs.replace(receipt, card_id=card_id)

    def remind(self, conversation_id: str, name: str, data: object = None, *, key: str | None = None) -> Receipt:
        """Has the handler `@agent.on_reminder(name)` run in a conversation; with a `key` once. `data`: what JSON knows. Raises NotSent."""
        return self._send(OutsideMessage(conversation_id, key=key, reminder=name, data=data))

    def recall(self, conversation_id: str, sent: Receipt | str, *, key: str | None = None) -> Receipt:
        """Takes back what was sent: its receipt, or the id of that, of a card, or of what `chat.reply` returned. Raises NotSent.

        What still waits for its turn is never sent. Else it goes its way behind the message; the relay takes one back within 2 minutes, and
        what comes later is a dead letter that says so.
        """
        sent_id = sent.id if isinstance(sent, Receipt) else sent
        return self._send(OutsideMessage(conversation_id, key=key, recall=sent_id))

    def react(self, conversation_id: str, message_id: str, emoji: str | None, *, key: str | None = None) -> Receipt:
        """Shows an emoji at a message, named as a handler's `message.message_id`; None takes it back. Raises NotSent."""
        if emoji is not None and not is_one_emoji(emoji):
            raise NotSent("bad_reaction", "react takes one emoji, such as '👍', or None to take it back")
        return self._send(OutsideMessage(conversation_id, key=key, react_to=message_id, emoji=emoji))

    @contextmanager
    def typing(self, conversation_id: str) -> Iterator[None]:
        """Shows "typing…" until the end of the block, or of this program. Raises NotSent."""
        begins, ends = OutsideShow(conversation_id, "typing"), OutsideShow(conversation_id, "typing_ends")
        with self._connected() as line:
            _receipt(_asked(line, _request("show", begins, every_seconds=TYPING_RENEWAL_SECONDS)))
            try:
                yield
            finally:
                with suppress(NotSent):  # the person's client clears the indicator by itself
                    self._show(ends)

    def stream(
        self, conversation_id: str, *, markdown: bool = False, key: str | None = None
    ) -> "BlockingOutsideStream":
        """Returns a text that people see grow: `with it.stream(conversation_id) as stream: stream.write("…")`.

        The end of the block sends the whole text, with a `key` once; then `stream.receipt` is its receipt. An exception in it sends nothing
        more. Where it cannot be shown it is sent whole.
        """
        return BlockingOutsideStream(self, conversation_id, markdown=markdown, key=key)

    def _send(self, message: OutsideMessage) -> Receipt:
        with self._connected() as line:
            return _receipt(_asked(line, _request("send", message)))

    def _show(self, shown: OutsideShow) -> Receipt:
        with self._connected() as line:
            return _receipt(_asked(line, _request("show", shown)))

    @contextmanager
    def _connected(self) -> Iterator[ControlLine]:
        with _told(), self._control.connected() as line:
            yield line


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Unanswered as problem:
        reason, text = (problem.why.value, str(problem)) if problem.why.is_before else ("unknown", UNKNOWN)
        raise NotSent("text_too_long" if problem.why is Why.TOO_LARGE else reason, text) from None


def _request(command: str, message: OutsideMessage | OutsideShow, *, every_seconds: float | None = None) -> Request:
    try:
        packed = json_to_keep(message)
    except UNWRITABLE:
        raise NotSent(
            "bad_message", "this holds something that JSON does not have, or a number of over 64 bits"
        ) from None
    return Request(command, every_seconds=every_seconds, message=msgspec.Raw(packed))


def _asked(line: ControlLine, request: Request) -> ControlAnswer:
    with _told():
        return line.ask(request)


def _receipt(answer: ControlAnswer) -> Receipt:
    """Returns what an answer says. Raises NotSent."""
    try:
        if answer.ok:
            return msgspec.json.decode(answer.result, type=Receipt)
        reason = msgspec.json.decode(answer.result, type=_Refusal).reason
    except UNREADABLE:
        raise NotSent("unknown", UNKNOWN) from None
    raise NotSent(reason, answer.error)


class BlockingOutsideStream:
    """Made by `BlockingOutside.stream`. It is shown from the first text on, if nothing was sent under its key."""

    def __init__(self, outside: BlockingOutside, conversation_id: str, *, markdown: bool, key: str | None) -> None:
        self.receipt: Receipt | None = None
        """What became of the whole text; None before the end of the block, and where nothing was written."""
        self._outside = outside
        self._text = GrowingText(self._show)
        self._line = ExitStack()
        self._shows: ControlLine | None = None
        self._message = OutsideMessage(conversation_id, markdown=markdown, key=key, stream_id=ulid.new())

    def __enter__(self) -> Self:
        return self

    @property
    def is_begun(self) -> bool:
        """Whether something was written."""
        return self._text.is_begun

    def write(self, text: str) -> None:
        """Appends to the text. Raises NotSent if the whole is over 100,000 characters, or cannot be sent there."""
        is_first = bool(text) and not self._text.is_begun
        self._text.add(text)
        if is_first:
            self._begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._text.close()
        self._line.close()
        if error is None and self._text.is_begun:
            self.receipt = self._outside._send(msgspec.structs.replace(self._message, text=self._text.whole))
        elif self._text.is_shown:
            with suppress(NotSent):  # the relay ends it by itself, after half a minute
                self._outside._show(self._shown("abort"))

    def _begin(self) -> None:
        line = self._line.enter_context(self._outside._connected())
        begin = msgspec.structs.replace(self._shown("begin"), key=self._message.key)
        try:
            receipt = _receipt(_asked(line, _request("show", begin)))
        except NotSent as problem:
            if problem.reason not in WHOLE_ONLY:
                raise
            return
        if receipt.outcome != "already":
            self._shows = line
            self._text.show()

    def _show(self, seq: int, text: str) -> bool:
        """Shows a piece; returns whether the next one may be shown."""
        line = self._shows
        piece = msgspec.structs.replace(self._shown("delta"), seq=seq, text=text)
        try:
            return line is not None and line.ask(_request("show", piece)).ok
        except (Unanswered, OSError):
            return False

    def _shown(self, what: Shows) -> OutsideShow:
        return OutsideShow(self._message.conversation_id, what, self._message.stream_id)


class Outside:
    """`async with Outside() as it: await it.send(conversation_id, "Deployed", key="deploy-42")`, under trio or asyncio."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """As BlockingOutside."""
        self._blocking = BlockingOutside(environ)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Nothing is kept open."""

    async def send(
        self, conversation_id: str, what: str | Card, *, markdown: bool = False, key: str | None = None
    ) -> Receipt:
        """Queues a text or a card, as BlockingOutside. Raises NotSent."""
        return await _in_a_thread(partial(self._blocking.send, conversation_id, what, markdown=markdown, key=key))

    async def remind(self, conversation_id: str, name: str, data: object = None, *, key: str | None = None) -> Receipt:
        """Has the handler `@agent.on_reminder(name)` run in a conversation; with a `key` once. `data`: what JSON knows. Raises NotSent."""
        return await _in_a_thread(partial(self._blocking.remind, conversation_id, name, data, key=key))

    async def recall(self, conversation_id: str, sent: Receipt | str, *, key: str | None = None) -> Receipt:
        """Takes back what was sent, as BlockingOutside. Raises NotSent."""
        return await _in_a_thread(partial(self._blocking.recall, conversation_id, sent, key=key))

    async def react(
        self, conversation_id: str, message_id: str, emoji: str | None, *, key: str | None = None
    ) -> Receipt:
        """Shows an emoji at a message, as BlockingOutside. Raises NotSent."""
        return await _in_a_thread(partial(self._blocking.react, conversation_id, message_id, emoji, key=key))

    @asynccontextmanager
    async def typing(self, conversation_id: str) -> AsyncIterator[None]:
        """Shows "typing…" until the end of the block, or of this program. Raises NotSent."""
        shown = self._blocking.typing(conversation_id)
        await _in_a_thread(shown.__enter__)
        try:
            yield
        finally:
            await _in_a_thread(partial(shown.__exit__, None, None, None))

    def stream(self, conversation_id: str, *, markdown: bool = False, key: str | None = None) -> "OutsideStream":
        """Returns a text that people see grow: `async with it.stream(conversation_id) as stream: await stream.write("…")`; as BlockingOutside."""
        return OutsideStream(self._blocking.stream(conversation_id, markdown=markdown, key=key))


class OutsideStream:
    """Made by `Outside.stream`."""

    def __init__(self, blocking: BlockingOutsideStream) -> None:
        self._blocking = blocking

    @property
    def receipt(self) -> Receipt | None:
        """What became of the whole text; None before the end of the block, and where nothing was written."""
        return self._blocking.receipt

    async def __aenter__(self) -> Self:
        return self

    async def write(self, text: str) -> None:
        """Appends to the text. Raises NotSent if the whole is over 100,000 characters, or cannot be sent there."""
        await _in_a_thread(partial(self._blocking.write, text))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await _in_a_thread(partial(self._blocking.__exit__, kind, error, at))


async def _in_a_thread(ask: Callable[[], Result]) -> Result:
    """Runs in a thread of the event loop that there is."""
    asyncio = sys.modules.get("asyncio")  # which need not be imported to know that nobody uses it
    try:
        if asyncio is not None and asyncio.get_running_loop():
            result: Result = await asyncio.to_thread(ask)
            return result
    except RuntimeError:  # there is none
        pass
    return await trio.to_thread.run_sync(ask)
