"""A chat on the terminal: one person, typed by whoever sits there; "typing…", the answer as it streams in, cards with numbered buttons.

Lines come from the terminal's own line editing, read without a thread, so that Ctrl-C, Ctrl-D and /quit all end it at
once. It starts and ends nothing but its own display.
"""

import sys

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sandbox.answering import Asks, CardAnswers, Given, Note
from sandbox.background import background
from sandbox.chat_files import COMMAND, ChatFiles
from sandbox.drawing import drawn
from sandbox.people import Person
from sandbox.terminal import terminal_lines
from sandbox.transcript import TranscriptLine

QUIT = frozenset({"/quit", "/exit"})
PROMPT = "you › "


class ChatScreen:
    def __init__(self, person: Person, conversation_id: str, console: Console) -> None:
        self._person = person
        self._conversation_id = conversation_id
        self._console = console
        self._shown = 0
        self._drawn = ""
        self._answers = CardAnswers()
        self._files = ChatFiles(person, conversation_id, self._say)

    async def run(self) -> None:
        """Until /quit or the end of the input. The person is connected meanwhile by the caller."""
        async with background() as nursery:
            nursery.start_soon(self._display)
            nursery.start_soon(self._files.run)
            self.prompt()
            async for line in terminal_lines():
                text = line.strip()
                if text in QUIT:
                    return
                if text.split(maxsplit=1)[:1] == [COMMAND]:
                    await self._files.send(text)
                elif text:
                    await self._take(text)
                self.prompt()
        self._console.print()

    async def _take(self, text: str) -> None:
        match self._answers.read(text):
            case Given(card, answer):
                await self._person.answer(self._conversation_id, card.card_id, dict(answer))
            case Asks(asked):
                self._console.print(Text(f"field › {asked}"))
            case Note(said):
                self._console.print(Text(said))
            case None:
                await self._person.say(self._conversation_id, text)

    async def _display(self) -> None:
        """Shows what comes. Behind it the prompt stands again, also where the agent says nothing more to what was said."""
        transcript = self._person.transcript
        while True:
            await transcript.until(lambda: self._has_news() or bool(self._under_way()))
            if not self._has_news():
                await self._show_growing()
            self._show_news()
            self.prompt()

    async def _show_growing(self) -> None:
        """What is under way, on a line that goes away, until there is a line to keep, or nothing is under way any more."""
        self._leave_prompt()
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._drawn = ""
            while not self._has_news() and self._under_way():
                self._drawn = self._under_way()
                live.update(_agent_line(self._drawn, unfinished=True), refresh=True)
                await self._person.transcript.until(self._must_redraw)

    def _must_redraw(self) -> bool:
        return self._has_news() or self._under_way() != self._drawn

    def _show_news(self) -> None:
        for line in self._person.transcript.lines(self._conversation_id)[self._shown :]:
            self._shown += 1
            if line.direction == "in":
                self._show_line(line)

    def _show_line(self, line: TranscriptLine) -> None:
        card = self._person.cards.get(line.card_id)
        self._leave_prompt()
        self._console.print(_agent_line(line.text if card is None else "\n  ".join(drawn(card))))
        if (asks := self._answers.shown(card)) is not None:
            self._console.print(Text(f"field › {asks.text}"))

    def _has_news(self) -> bool:
        lines = self._person.transcript.lines(self._conversation_id)
        return any(line.direction == "in" for line in lines[self._shown :])

    def _under_way(self) -> str:
        growing = self._person.growing.get(self._conversation_id)
        if growing is not None and growing.text:
            return growing.text
        return "typing…" if self._conversation_id in self._person.typing else ""

    def _say(self, text: str) -> None:
        """Shows a line that is nobody's."""
        self._leave_prompt()
        self._console.print(Text(text, style="dim"))
        self.prompt()

    def _leave_prompt(self) -> None:
        """Has what comes next stand where the prompt stands."""
        sys.stdout.write("\r")
        sys.stdout.flush()

    def prompt(self) -> None:
        """Shows that the next line may be typed."""
        sys.stdout.write(f"\r{PROMPT}")
        sys.stdout.flush()


def _agent_line(text: str, *, unfinished: bool = False) -> Text:
    style = "dim" if unfinished else ""
    return Text.assemble(("agent › ", "bold cyan"), (text, style)) if text else Text("")
