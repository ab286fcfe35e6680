"""Checks payloads before they are sent; no error shows any part of one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from bus.records.records import InboundMessage, Payload, Reply, mention_of
from host.unreadable import UNREADABLE, UNWRITABLE, json_to_keep
from workers.errors import BadReply, TextTooLong
from workers.talk.texts import parts_of

# PROTOCOL §1: the platform refuses longer texts.
TEXT_LIMIT_CHARACTERS = 100_000
ANSWERS = ("response", "tool_response")
"""Subtypes of an artifact that answers another one (PROTOCOL §4.1)."""
_USER_ID = re.compile(r"[!-;=?-~]{1,128}")  # an id (PROTOCOL §1) without < and >, which end a mention

Quote: TypeAlias = bool | str | InboundMessage
"""What a reply quotes: nothing (False), the message that is answered (True), or this message."""

Mention: TypeAlias = str | InboundMessage | Sequence[str | InboundMessage]
"""Whom a reply is for: a user id, the sender of a message, or several of them."""


def text_payload(text: str, *, markdown: bool) -> Payload:
    """Returns the payload of a text (PROTOCOL §4). Raises TextTooLong, BadReply."""
    payload: Payload = {"type": "text", "text": text}
    if markdown:
        payload["markdown"] = True
    return checked_payload(payload)


def text_reply(text: str) -> Reply:
    """Returns a text of ours as a reply. Raises TextTooLong, BadReply."""
    return Reply(kind="message", content_type="text", payload=text_payload(text, markdown=False))


def card_in(payload: Mapping[str, object]) -> tuple[str, str]:
    """Returns the id of the card that a payload shows, and its kind (bus/records/cards.py `CardKept`); empty texts if it shows none."""
    artifact = payload.get("artifact")
    if not isinstance(artifact, dict) or "ref_artifact" in payload or artifact.get("subtype") in ANSWERS:
        return "", ""
    card_id, subtype, inner = artifact.get("artifact_id"), artifact.get("subtype"), artifact.get("payload")
    if not isinstance(card_id, str) or not isinstance(subtype, str):
        return "", ""
    ui = inner.get("ui") if isinstance(inner, dict) else None
    return card_id, f"{subtype} {ui}" if subtype == "app" and isinstance(ui, str) else subtype


def text_payloads(
    text: str, *, markdown: bool, message: InboundMessage, quote: Quote = False, mention: Mention = ()
) -> list[Payload]:
    """Returns the payloads of a text of any length, cut at paragraphs; the first one has what it quotes and whom it mentions. Raises BadReply."""
    check_text(text, most=None)
    first = addressed({"type": "text", "text": text}, message, quote, mention)
    check_says_something(str(first["text"]))
    head, *others = parts_of(str(first["text"]), TEXT_LIMIT_CHARACTERS)
    return [
        {**first, **text_payload(head, markdown=markdown)},
        *(text_payload(one, markdown=markdown) for one in others),
    ]


def checked_payload(payload: Mapping[str, object]) -> Payload:
    """Returns a copy of the payload that is certain to be JSON. Raises TextTooLong, BadReply."""
    is_mapping = isinstance(payload, Mapping)  # whatever a type checker would say of it
    payload_type, text = (payload.get("type"), payload.get("text")) if is_mapping else (None, None)
    if not isinstance(payload_type, str) or not payload_type:
        raise BadReply("a payload is a mapping with a 'type', such as {'type': 'text', 'text': …}")
    if payload_type == "text":
        check_text(text)
    try:
        copy: Payload = msgspec.json.decode(json_to_keep(dict(payload)), type=dict[str, object])
    except (*UNREADABLE, *UNWRITABLE):
        # without the cause, which may quote the value
        raise BadReply(
            f"this {payload_type} payload holds something that JSON does not have, or a number of over 64 bits"
        ) from None
    return copy


def addressed(payload: Payload, message: InboundMessage, quote: Quote, mention: Mention) -> Payload:
    """Returns the payload with what it quotes and whom it mentions (PROTOCOL §4.1). `message`: the one that is answered. Raises BadReply."""
    if quote is not False:
        payload = {**payload, "reply_to": {"message_id": _quoted(message, quote)}}
    people = list(dict.fromkeys(_mentioned(mention)))
    if not people:
        return payload
    text = payload.get("text")
    if isinstance(text, str):
        marks = [mark for one in people if (mark := mention_of(one)) not in text]
        payload = {**payload, "text": " ".join([*marks, text])}
    return {**payload, "mentions": people}


def _quoted(message: InboundMessage, quote: bool | str | InboundMessage) -> str:
    if quote is True:
        return message.message_id
    quoted = quote.message_id if isinstance(quote, InboundMessage) else quote
    if not isinstance(quoted, str) or not quoted:
        raise BadReply("quote is True for the message that is answered, else a message or its message_id")
    return quoted


def _mentioned(mention: Mention) -> Iterator[str]:
    for one in (mention,) if isinstance(mention, str | InboundMessage) else mention:
        user_id = one.sender_id if isinstance(one, InboundMessage) else one
        if not isinstance(user_id, str) or not _USER_ID.fullmatch(user_id):
            raise BadReply("mention takes user ids, or messages of theirs")
        yield user_id


def check_says_something(text: object) -> None:
    """Checks that people see something of a text: an empty variable, or a model without an answer, makes an empty one. Raises BadReply."""
    if isinstance(text, str) and not text.strip():
        raise BadReply("this text is empty, or blank: send nothing where there is nothing to say, or say so in words")


def check_text(text: object, already: int = 0, most: int | None = TEXT_LIMIT_CHARACTERS) -> None:
    """Checks that it is a str in valid Unicode and, with the `already` characters before it, not too long. Raises TextTooLong, BadReply."""
    if not isinstance(text, str):
        raise BadReply(f"a text is a str, not {type(text).__name__}")
    if most is not None and already + len(text) > most:
        raise TextTooLong(already + len(text), most)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadReply("this text holds a lone surrogate, which UTF-8 does not have") from None
