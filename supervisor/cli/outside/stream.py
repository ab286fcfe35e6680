"""`hashee-agent stream`: what comes in on stdin is shown in a conversation while it grows, and sent whole at its end."""

import codecs
import os
import sys

import click
import msgspec
import trio

from bus.records import ulid
from bus.records.outside import OutsideMessage, OutsideShow, Shows
from bus.transport.wire import RedisFailed
from supervisor.cli.keys.telling import told
from supervisor.cli.outside.queueing import EXIT_REFUSED, one_conversation, outside_of, queue_into, queued
from supervisor.cli.store import REFUSALS, open_store
from supervisor.outbound.from_outside import FromOutside, NotTakenIn
from supervisor.store.access import running_supervisor
from workers.errors import NotSent
from workers.outside_stream import GrowingText

READ_BYTES = 65536


@click.command(short_help="Show stdin in a conversation while it grows.")
@one_conversation
@queued
@click.option("--markdown", is_flag=True, help="The text is Markdown.")
def stream(*, conversation_id: str, key: str | None, wait_seconds: float | None, as_json: bool, markdown: bool) -> int:
    """Show what comes in on stdin while it grows, and send the whole of it at its end: make 2>&1 | hashee-agent stream --to CONVERSATION

    \b
    A stream is shown for 5 minutes, and not beyond half a minute in which nothing comes.
    Whatever happens to that, the whole text is sent. Where no agent runs it is only
    sent, when one starts. Ends as send does; Ctrl-C sends nothing.
    """
    message = OutsideMessage(conversation_id, markdown=markdown, key=key, stream_id=ulid.new())
    with told(*REFUSALS):
        return trio.run(_stream, message, wait_seconds, as_json)


async def _stream(message: OutsideMessage, wait_seconds: float | None, as_json: bool) -> int:
    async with open_store() as store:
        is_running = await running_supervisor(store.client, store.names) is not None
        shown = _Shown(outside_of(store), message, has_watchers=is_running)
        try:
            whole = await shown.read_all()
        except (NotTakenIn, NotSent) as problem:
            click.echo(f"Error: {problem}", err=True)
            return EXIT_REFUSED
        return await queue_into(store, [msgspec.structs.replace(message, text=whole)], wait_seconds, as_json)


class _Shown:
    """Reads stdin to its end, and shows what comes."""

    def __init__(self, outside: FromOutside, message: OutsideMessage, *, has_watchers: bool) -> None:
        """`has_watchers`: whether an agent runs, which can show it."""
        self._has_watchers = has_watchers
        self._outside = outside
        self._message = message
        self._token = trio.lowlevel.current_trio_token()
        self._text = GrowingText(self._show)

    async def read_all(self) -> str:
        """Returns the text without its last line end. Raises NotSent."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        is_whole = False
        try:
            while data := await trio.to_thread.run_sync(_read, abandon_on_cancel=True):
                await self._add(decoder.decode(data))
            await self._add(decoder.decode(b"", final=True))
            is_whole = True
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._text.close)
                if self._text.is_shown and not is_whole:
                    await self._outside.show(self._of("abort"))
        return self._text.whole.removesuffix("\n")

    async def _add(self, text: str) -> None:
        is_first = bool(text) and not self._text.is_begun and self._has_watchers
        self._text.add(text)
        if is_first:
            await self._begin()

    async def _begin(self) -> None:
        begin = msgspec.structs.replace(self._of("begin"), key=self._message.key)
        try:
            receipt = await self._outside.show(begin)
        except NotTakenIn as problem:
            if not problem.is_temporary:
                raise
            return
        if receipt.outcome != "already":
            self._text.show()

    def _show(self, seq: int, text: str) -> bool:
        piece = msgspec.structs.replace(self._of("delta"), seq=seq, text=text)
        try:
            trio.from_thread.run(self._outside.show, piece, trio_token=self._token)
        except (NotTakenIn, RedisFailed, trio.Cancelled, trio.RunFinishedError):
            return False
        return True

    def _of(self, what: Shows) -> OutsideShow:
        return OutsideShow(self._message.conversation_id, what, self._message.stream_id)


def _read() -> bytes:
    return os.read(sys.stdin.fileno(), READ_BYTES)
