"""Pictures for a model that takes them: as parts of the person's last message. They are fetched when the model is asked, and kept nowhere."""

import base64
from collections.abc import Mapping, Sequence
from typing import Final, cast

from workers.errors import BadReply, FileTooLarge, LLMNoPictures
from workers.files.inbound import InboundFile

MOST_PICTURES_BYTES: Final = 8 * 1024 * 1024
"""Of one turn: written as base64 they are a third more, and endpoints take some 20 MB. A phone's picture has 2 to 5."""

PICTURE = "image_url"
"""A part of a message that endpoints take for a picture."""


async def with_pictures(
    messages: Sequence[Mapping[str, object]], pictures: Sequence[InboundFile]
) -> list[Mapping[str, object]]:
    """Returns a conversation whose last message shows pictures too. Raises FileError, FileTooLarge, BadReply."""
    if not pictures:
        return list(messages)
    if any(one.kind != "image" for one in pictures):
        raise BadReply("images= takes pictures: [file for file in message.files if file.kind == 'image']")
    if (size := sum(one.size for one in pictures)) > MOST_PICTURES_BYTES:
        raise FileTooLarge(size, MOST_PICTURES_BYTES, "ask for smaller pictures, or for fewer at a time")
    *before, last = messages
    shown = [
        {
            "type": PICTURE,
            PICTURE: {"url": f"data:{one.type};base64,{base64.b64encode(await one.bytes(most=one.size)).decode()}"},
        }
        for one in pictures
    ]
    return [*before, {**last, "content": [{"type": "text", "text": last["content"]}, *shown]}]


def text_of(content: object) -> str:
    """Returns the text of a message's content: all of it, or of its parts those that are text."""
    if isinstance(content, list):
        return "".join(str(cast("dict[str, object]", part).get("text", "")) for part in content)
    return str(content)


def check_taken(setting: str) -> None:
    """Raises LLMNoPictures where the model is said to take none."""
    if setting == "off":
        raise LLMNoPictures
