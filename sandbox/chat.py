"""A chat on the terminal: one person, typed by whoever sits there; "typing…" and the answer as it streams in.

Lines come from the terminal's own line editing, read without a thread, so that Ctrl-C, Ctrl-D and /quit all end it at
once. It starts and ends nothing but its own display.
"""

import os
import sys
from collections.abc import AsyncIterator

import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from sandbox.background import background
from sandbox.people import Person

QUIT = frozenset({"/quit", "/exit"})
PROMPT = "you › "
READ_BYTES = 64 * 1024


class ChatScreen:
    def __init__(self, person: Person, conversation_id: str, console: Console) -> None:
        self._person = person
        self._conversation_id = conversation_id
        self._console = console
        self._shown = 0
        self._drawn = ""

    async def run(self) -> None:
        """Until /quit or the end of the input. The person is connected meanwhile by the caller."""
        async with background() as nursery:
            nursery.start_soon(self._display)
            self._prompt()
            async for line in terminal_lines():
                text = line.strip()
                if text in QUIT:
                    return
                if text:
                    await self._person.say(self._conversation_id, text)
                else:
                    self._prompt()
        self._console.print()

    async def _display(self) -> None:
        transcript = self._person.transcript
        while True:
            await transcript.until(lambda: self._is_waiting() or self._has_news())
            if self._is_waiting():
                await self._show_growing()
            self._show_news()
            if not self._is_waiting():
                self._prompt()

    async def _show_growing(self) -> None:
        """What is under way, on a line that goes away, until there is a line to keep."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._drawn = ""
            while not self._has_news():
                self._drawn = self._under_way()
                live.update(_agent_line(self._drawn, unfinished=True), refresh=True)
                await self._person.transcript.until(self._must_redraw)

    def _must_redraw(self) -> bool:
        return self._has_news() or self._under_way() != self._drawn

    def _show_news(self) -> None:
        for line in self._person.transcript.lines(self._conversation_id)[self._shown :]:
            self._shown += 1
            if line.direction == "in":
                self._console.print(_agent_line(line.text))

    def _has_news(self) -> bool:
        lines = self._person.transcript.lines(self._conversation_id)
        return any(line.direction == "in" for line in lines[self._shown :])

    def _is_waiting(self) -> bool:
        transcript = self._person.transcript
        return len(transcript.said(self._conversation_id)) > len(transcript.heard(self._conversation_id))

    def _under_way(self) -> str:
        growing = self._person.growing.get(self._conversation_id)
        if growing is not None and growing.text:
            return growing.text
        return "typing…" if self._conversation_id in self._person.typing else ""

    def _prompt(self) -> None:
        sys.stdout.write(f"\r{PROMPT}")
        sys.stdout.flush()


def _agent_line(text: str, *, unfinished: bool = False) -> Text:
    style = "dim" if unfinished else ""
    return Text.assemble(("agent › ", "bold cyan"), (text, style)) if text else Text("")


async def terminal_lines(descriptor: int = 0) -> AsyncIterator[str]:
    """Lines from a terminal or pipe until its end (Ctrl-D)."""
    pending = b""
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        data = os.read(descriptor, READ_BYTES)
        if not data:
            if pending:
                yield pending.decode(errors="replace")
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
