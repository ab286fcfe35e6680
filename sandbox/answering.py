"""What a typed line means below the cards of a conversation: a button by its number, or the fields of a form, one after the other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sandbox.cards import ShownCard
from sandbox.drawing import Button, asked_for, buttons_of, fields_of, filled_in

LEAVES: Final = "/cancel"
NOTHING: Final = "-"
LEFT: Final = "the form is left; it is still open: /cancel again ends its question"
NUMBER: Final = re.compile(r"(#?)(\d{1,2})")


@dataclass(frozen=True)
class Given:
    """An answer to a card (PROTOCOL §4.1)."""

    card: ShownCard
    answer: Mapping[str, object]
    files: Mapping[str, Path] = field(default_factory=dict)
    """What the fields of a form name that take a file: where it stands on the disk."""


@dataclass(frozen=True)
class Asks:
    """The next field of a form is asked for."""

    text: str


@dataclass(frozen=True)
class Note:
    """Something that is said to whoever types."""

    text: str


@dataclass
class _Form:
    card: ShownCard
    fields: list[Mapping[str, object]]
    values: dict[str, object] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


class CardAnswers:
    """The cards of one conversation that can be answered now: the last one with buttons, and the last form."""

    def __init__(self) -> None:
        self._buttons: tuple[ShownCard, list[Button]] | None = None
        self._is_last = False
        self._form: _Form | None = None

    def shown(self, card: ShownCard | None) -> Asks | None:
        """Notes what was said last: a card, or None for anything else. Returns the first field of a form."""
        if card is None:
            self._is_last = False
            return None
        buttons, fields = buttons_of(card), fields_of(card)
        if card.subtype == "form" and fields:
            if card.revision:
                return None
            self._form = _Form(card, fields)
            return Asks(asked_for(fields[0]))
        if buttons:
            self._buttons, self._is_last = (card, buttons), True
        return None

    def read(self, line: str) -> Given | Asks | Note | None:
        """Returns what a line means; None for words."""
        if self._form is not None:
            return self._fill(self._form, line)
        found = NUMBER.fullmatch(line)
        if found is None or self._buttons is None or not (found[1] or self._is_last):
            return None
        card, buttons = self._buttons
        number = int(found[2])
        if not 1 <= number <= len(buttons):
            return Note(f"the last card has buttons 1 to {len(buttons)}")
        return Given(card, buttons[number - 1].answer)

    def _fill(self, form: _Form, line: str) -> Given | Asks | Note:
        if line == LEAVES:
            self._form = None
            return Note(LEFT)
        one = form.fields[0]
        name, text = str(one["id"]), "" if line == NOTHING else line.strip()
        if one.get("type") == "file" and text:
            path = Path(text.strip("'\"")).expanduser()
            if not path.is_file():
                return Asks(f"{path} is no file here. {asked_for(one)}")
            form.files[name] = path
        elif (value := filled_in(one, text)) is not None:
            form.values[name] = value
        del form.fields[0]
        if form.fields:
            return Asks(asked_for(form.fields[0]))
        self._form = None
        return Given(form.card, {"values": form.values}, form.files)
