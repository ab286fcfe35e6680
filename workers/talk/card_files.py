"""Cards as people write them down: the JSON of PROTOCOL §4.1, without the id, as a card that is checked like one of a handler."""

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from bus.records.records import Payload
from host.unreadable import UNREADABLE
from workers.errors import BadCard
from workers.talk.cards import App, Approval, Card, Field, Form, Info, Media, MediaItem, Progress

SHAPES: Final[Mapping[str, type[Info | Approval | Progress]]] = {one.subtype: one for one in (Info, Approval, Progress)}
Shape = TypeVar("Shape")
KNOWN: Final = ", ".join(sorted({*SHAPES, Form.subtype, Media.subtype, App.subtype}))


def card_of(text: bytes) -> Card:
    """Returns the card that is written down so: `{"subtype": …, "title": …, "payload": {…}}`. Raises BadCard, which names what is wrong."""
    try:
        given = msgspec.json.decode(text, type=dict[str, object])
    except UNREADABLE:
        raise BadCard('a card is a JSON object: {"subtype": "info", "title": "…", "payload": {"body": "…"}}') from None
    subtype, title, payload = given.pop("subtype", None), given.pop("title", None), given.pop("payload", None)
    if given:
        raise BadCard(f"a card has subtype, title and payload, and not {_named(given)}; its id is made when it is sent")
    if not isinstance(payload, dict):
        raise BadCard("a card's payload is a JSON object")
    if title is not None and not isinstance(title, str):
        raise BadCard("a card's title is a text")
    if subtype == Form.subtype:
        return _form(payload, title)
    if subtype == Media.subtype:
        return _media(payload, title)
    if subtype == App.subtype:
        ui = payload.pop("ui", None)
        return App(ui if isinstance(ui, str) else "", payload, title)
    shape = SHAPES.get(subtype) if isinstance(subtype, str) else None
    if shape is None:
        raise BadCard(f"a card's subtype is one of {KNOWN}")
    _refuse_unknown(shape, payload)
    return _converted({**payload, "title": title}, shape)


def _form(payload: Payload, title: str | None) -> Form:
    _refuse_unknown(Form, payload)
    label = payload.get("submit_label")
    if label is not None and not isinstance(label, str):
        raise BadCard("Form.submit_label is a text")
    return Form(_converted(payload.get("fields"), list[Field]), title, label)


def _media(payload: Payload, title: str | None) -> Media:
    """A file of a card names what was uploaded; it uploads nothing."""
    _refuse_unknown(Media, payload)
    body = payload.get("body")
    if body is not None and not isinstance(body, str):
        raise BadCard("Media.body is a text")
    return Media(_converted(payload.get("items"), list[MediaItem]), body, title)


def _converted(value: object, shape: type[Shape]) -> Shape:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as problem:
        raise BadCard(f"the card: {problem}") from None  # it names the field and the type, and no value


def _refuse_unknown(shape: type[msgspec.Struct], payload: Payload) -> None:
    unknown = payload.keys() - set(shape.__struct_fields__) | payload.keys() & {"title"}
    if unknown:
        fields = ", ".join(one for one in shape.__struct_fields__ if one != "title")
        raise BadCard(f"the payload of this card has {fields}, and not {_named(unknown)}")


def _named(names: Iterable[str]) -> str:
    return ", ".join(repr(name)[:40] for name in sorted(names))
