"""A card as lines of text, with its buttons numbered: what it is stands there in words, nothing is said by colour or lines alone."""

from collections.abc import Mapping
from typing import cast

import msgspec

from sandbox.cards import ShownCard

REJECT, APPROVE = "rejected", "approved"


class Button(msgspec.Struct, frozen=True):
    """A button of a card: its label, and what it answers."""

    label: str
    answer: dict[str, object]


def buttons_of(card: ShownCard) -> list[Button]:
    """Returns the buttons of a card, in the order of their numbers."""
    if card.subtype == "approval":
        question_hash = card.payload.get("question_hash", "")
        return [
            Button("approve", {"decision": APPROVE, "question_hash": question_hash}),
            Button("reject", {"decision": REJECT, "question_hash": question_hash}),
        ]
    actions = [one for one in _list(card.payload.get("actions")) if "id" in one]
    return [Button(str(one.get("label") or one["id"]), {"action": one["id"]}) for one in actions]


def fields_of(card: ShownCard) -> list[Mapping[str, object]]:
    """Returns the fields of a form."""
    return [one for one in _list(card.payload.get("fields")) if "id" in one]


def drawn(card: ShownCard) -> list[str]:
    """Returns the lines of a card. Its fields are asked for one by one and are not drawn."""
    head = f"[{card.payload.get('ui', card.subtype)}]"
    if card.revision:
        head += f" (changed, {card.revision})"
    numbered = [f"#{number} {button.label}" for number, button in enumerate(buttons_of(card), start=1)]
    lines = "\n".join([*card.said, "  ".join(numbered)]).strip().splitlines()
    return [f"{head} {lines[0]}", *lines[1:]] if lines else [head]


def asked_for(field: Mapping[str, object]) -> str:
    """Returns the line by which a field is asked for."""
    options = [str(one.get("value")) for one in _list(field.get("options"))]
    said = str(field.get("type", "text"))
    kind = " | ".join(options) or ("the path of a file" if said == "file" else said)
    return f"{field.get('label') or field['id']} ({kind}{'' if field.get('required') else ', or nothing'})"


def filled_in(field: Mapping[str, object], text: str) -> object:
    """Returns what a line of text is as the value of a field; None for nothing. What does not fit stays as it is, and the agent says so."""
    text = text.strip()
    kind = field.get("type")
    if not text:
        return None
    if kind == "multiselect":
        return [one.strip() for one in text.split(",") if one.strip()]
    if kind == "boolean":
        return text.lower() in ("yes", "y", "true", "1", "on")
    if kind == "number":
        try:
            return int(text)
        except ValueError:
            try:
                return float(text)
            except ValueError:
                return text
    return text


def _list(value: object) -> list[dict[str, object]]:
    return [cast("dict[str, object]", one) for one in value if isinstance(one, dict)] if isinstance(value, list) else []
