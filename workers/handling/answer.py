"""What a function that takes answers to cards is given: which card, who answered, and what they pressed or filled in."""

from collections.abc import Mapping
from typing import Any

import msgspec

from bus.records.records import InboundMessage


class Answer(msgspec.Struct, frozen=True):
    """An answer to a card. `card_id`: as `Sent.id` of the reply that showed it; '' where it names none. `payload`: such as `{"option": "stew"}`."""

    card_id: str
    sender_id: str
    payload: Mapping[str, Any]


def answer_of(message: InboundMessage) -> Answer:
    """Returns the answer that a message is (PROTOCOL §4.1). What it does not have is empty."""
    artifact = message.payload.get("artifact")
    said: Mapping[str, Any] = artifact if isinstance(artifact, dict) else {}
    card_id, payload = said.get("ref_artifact"), said.get("payload")
    return Answer(
        card_id if isinstance(card_id, str) else "",
        message.sender_id,
        payload if isinstance(payload, dict) else {},
    )
