"""An answer to a card (PROTOCOL §4.1), as a handler of `on_artifact_response` is given it, and as `chat.ask(App(…))` returns it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from bus.records.records import InboundMessage, Payload
from workers.kept.waits import card_named_in, said_in


class Answer(msgspec.Struct, frozen=True):
    """What somebody answered to a card.

    `card_id`: the card's, as `chat.reply` returned it; `sender_id`: who answered. `payload`: what came, whole; the properties are what
    stands in it of each kind of card. `kind`: what the card is: its subtype, or of an app the name of its renderer.
    """

    card_id: str
    sender_id: str
    payload: Mapping[str, Any]
    kind: str = ""
    sender_display_name: str | None = None

    def __repr__(self) -> str:
        return f"Answer(card_id={self.card_id!r}, sender_id={self.sender_id!r}, kind={self.kind!r}, …)"

    @property
    def action(self) -> str:
        """The id of the button that was pressed, '' for none."""
        return self._text("action")

    @property
    def data(self) -> Payload:
        """What an action brings with it."""
        return self._mapping("data")

    @property
    def values(self) -> Payload:
        """What was filled in, by the ids of a form's fields."""
        return self._mapping("values")

    @property
    def is_approved(self) -> bool:
        """Whether an approval was answered with yes."""
        return self.payload.get("decision") == "approved"

    @property
    def comment(self) -> str:
        """What was written beside a decision, '' for nothing."""
        return self._text("comment")

    def _text(self, name: str) -> str:
        value = self.payload.get(name)
        return value if isinstance(value, str) else ""

    def _mapping(self, name: str) -> Payload:
        value = self.payload.get(name)
        return dict(value) if isinstance(value, Mapping) else {}


def answer_of(message: InboundMessage) -> Answer:
    """Returns the answer that a message is, whose artifact says in `ui` what the card is."""
    artifact = message.payload.get("artifact")
    found = artifact if isinstance(artifact, dict) else {}
    return Answer(
        card_id=card_named_in(found),
        sender_id=message.sender_id,
        payload=said_in(found),
        kind=str(found.get("ui", "")),
        sender_display_name=message.sender_display_name,
    )
