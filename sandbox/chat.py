"""A chat on the terminal: what whoever sits there types is said by one person; "typing…", the answer as it streams in, cards with numbered buttons.

Lines come from the terminal's own line editing, read without a thread, so that Ctrl-C, Ctrl-D and /quit all end it at
once. It starts and ends nothing but its own display.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import trio
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
from sandbox.typed import QUIT, without_mark

ASIDE: Final = "~"
"""Begins a line that in a group is not for the agent."""

Commands = Mapping[str, Callable[[str], Awaitable[None]]]
"""What words at the beginning of a line do, by those words; called with the rest of the line."""


@dataclass(eq=False)
class Place:
    """A conversation with the agent. `listener`: whose device shows what the agent says in it; `name`: of a group, '' where it is none."""

    conversation_id: str
    agent_id: str
    listener: Person
    name: str = ""
    shown: int = 0
    answers: CardAnswers = field(default_factory=CardAnswers)

    @property
    def in_words(self) -> str:
        """Returns where that is."""
        return f"in the group {self.name}" if self.name else "alone with the agent"

    @property
    def whose(self) -> str:
        """Returns which conversation it is, for who is in another one."""
        return f"in {self.name}" if self.name else f"to {self.listener.name}"


class ChatScreen:
    """`you`: who sits there, called so by the prompt."""

    def __init__(self, you: Person, place: Place, console: Console) -> None:
        self._you = you
        self._person = you
        self._place = place
        self._console = console
        self._drawn = ""
        self._files: dict[Place, ChatFiles] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, commands: Commands | None = None) -> None:
        """Until /quit or the end of the input. The people are connected meanwhile by the caller."""
        commands = commands or {}
        async with background() as nursery:
            self._nursery = nursery
            self.enter(self._person, self._place)
            self.prompt()
            async for line in terminal_lines():
                text = line.strip()
                word, _, rest = text.partition(" ")
                if text in QUIT:
                    return
                if word in commands:
                    await commands[word](rest.strip())
                elif word == COMMAND:
                    await self._files_of(self._place, self._person).send(text)
                elif text:
                    await self._take(text)
                self.prompt()
        self._console.print()

    def enter(self, person: Person, place: Place) -> None:
        """Has a person say what is typed from now on, in a place; what the agent says there is shown until the chat ends."""
        self._person, self._place = person, place
        if place not in self._files and self._nursery is not None:
            self._files[place] = ChatFiles(place.listener, place.conversation_id, self.say)
            self._nursery.start_soon(self._display, place)
            self._nursery.start_soon(self._files[place].run)

    @property
    def person(self) -> Person:
        """Who says what is typed."""
        return self._person

    @property
    def place(self) -> Place:
        """Where it is said."""
        return self._place

    def say(self, text: str) -> None:
        """Shows a line that is nobody's."""
        self._leave_prompt()
        self._console.print(Text(text))
        self.prompt()

    def _files_of(self, place: Place, person: Person) -> ChatFiles:
        return (
            self._files[place]
            if person is place.listener
            else ChatFiles(person, place.conversation_id, self.say)  # who saves nothing
        )

    async def _take(self, text: str) -> None:
        place, person = self._place, self._person
        match place.answers.read(text):
            case Given(card, answer, paths):
                await self._files_of(place, person).answer(card.card_id, dict(answer), paths)
            case Asks(asked):
                self._console.print(Text(f"field › {asked}"))
            case Note(said):
                self._console.print(Text(said))
            case None if place.name and text.startswith(ASIDE):
                await person.say(place.conversation_id, text.removeprefix(ASIDE).strip())
            case None:
                words = without_mark(text)
                await person.say(place.conversation_id, f"@<U:{place.agent_id}> {words}" if place.name else words)

    async def _display(self, place: Place) -> None:
        """Shows what comes. Behind it the prompt stands again, also where the agent says nothing more to what was said."""
        transcript = place.listener.transcript
        while True:
            await transcript.until(lambda: self._has_news(place) or bool(self._under_way(place)))
            if not self._has_news(place):
                await self._show_growing(place)
            self._show_news(place)
            self.prompt()

    async def _show_growing(self, place: Place) -> None:
        """What is under way, on a line that goes away, until there is a line to keep, or nothing is under way any more."""
        self._leave_prompt()
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._drawn = ""
            while not self._has_news(place) and self._under_way(place):
                self._drawn = self._under_way(place)
                live.update(_agent_line(self._drawn, unfinished=True), refresh=True)
                await place.listener.transcript.until(lambda: self._must_redraw(place))

    def _must_redraw(self, place: Place) -> bool:
        return self._has_news(place) or self._under_way(place) != self._drawn

    def _show_news(self, place: Place) -> None:
        for line in place.listener.transcript.lines(place.conversation_id)[place.shown :]:
            place.shown += 1
            if _is_the_agents(line, place):
                self._show_line(line, place)

    def _show_line(self, line: TranscriptLine, place: Place) -> None:
        card = place.listener.cards.get(line.card_id)
        self._leave_prompt()
        text = line.text if card is None else "\n  ".join(drawn(card))
        self._console.print(_agent_line(text, where="" if place is self._place else f" {place.whose}"))
        if (asks := place.answers.shown(card)) is not None:
            self._console.print(Text(f"field › {asks.text}"))

    def _has_news(self, place: Place) -> bool:
        lines = place.listener.transcript.lines(place.conversation_id)
        return any(_is_the_agents(line, place) for line in lines[place.shown :])

    def _under_way(self, place: Place) -> str:
        """Returns what grows where the chat is; elsewhere only what is whole is shown."""
        if place is not self._place:
            return ""
        growing = place.listener.growing.get(place.conversation_id)
        if growing is not None and growing.text:
            return growing.text
        return "typing…" if place.conversation_id in place.listener.typing else ""

    def _leave_prompt(self) -> None:
        """Has what comes next stand where the prompt stands."""
        sys.stdout.write("\r")
        sys.stdout.flush()

    def prompt(self) -> None:
        """Shows that the next line may be typed."""
        name = "you" if self._person is self._you else self._person.name
        sys.stdout.write(f"\r{name} › ")
        sys.stdout.flush()


def _is_the_agents(line: TranscriptLine, place: Place) -> bool:
    """Returns whether the agent said it: what others say in a group was typed here."""
    return line.direction == "in" and line.sender_id == place.agent_id


def _agent_line(text: str, *, unfinished: bool = False, where: str = "") -> Text:
    style = "dim" if unfinished else ""
    return Text.assemble((f"agent{where} › ", "bold cyan"), (text, style)) if text else Text("")
