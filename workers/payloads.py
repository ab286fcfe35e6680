"""Checks payloads before they are sent; no error shows any part of one."""

from collections.abc import Mapping

import msgspec

from bus.records.records import Payload
from workers.errors import BadReply, TextTooLong

# PROTOCOL §1: the platform refuses longer texts.
TEXT_LIMIT_CHARACTERS = 100_000


def text_payload(text: str, *, markdown: bool) -> Payload:
    """Returns the payload of a text (PROTOCOL §4). Raises TextTooLong, BadReply."""
    payload: Payload = {"type": "text", "text": text}
    if markdown:
        payload["markdown"] = True
    return checked_payload(payload)


def checked_payload(payload: Mapping[str, object]) -> Payload:
    """Returns a copy of the payload that is certain to be JSON. Raises TextTooLong, BadReply."""
    payload_type, text = payload.get("type"), payload.get("text")
    if not isinstance(payload_type, str) or not payload_type:
        raise BadReply("a payload is a mapping with a 'type', such as {'type': 'text', 'text': …}")
    if payload_type == "text":
        check_text(text)
    try:
        copy: Payload = msgspec.json.decode(msgspec.json.encode(dict(payload)), type=dict[str, object])
    except (TypeError, ValueError, RecursionError):
        # without the cause, which may quote the value
        raise BadReply(f"this {payload_type} payload holds something that JSON does not have") from None
    return copy


def check_text(text: object, already: int = 0) -> None:
    """Checks that it is a str in valid Unicode and, with the `already` characters before it, not too long. Raises TextTooLong, BadReply."""
    if not isinstance(text, str):
        raise BadReply(f"a text is a str, not {type(text).__name__}")
    if already + len(text) > TEXT_LIMIT_CHARACTERS:
        raise TextTooLong(already + len(text), TEXT_LIMIT_CHARACTERS)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadReply("this text holds a lone surrogate, which UTF-8 does not have") from None
