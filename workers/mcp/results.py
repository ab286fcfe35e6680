"""What a server answers to a call, as a model is told it: a text within bounds. Pure."""

import json
from typing import Final

from mcp import types

MOST_CHARACTERS: Final = 65_536
"""Of one answer. The loop cuts it once more, with a word for the model."""

NOTHING: Final = "(the tool has returned nothing)"


def text_of(result: types.CallToolResult) -> str:
    """Returns the texts of an answer, and of everything else what it is."""
    parts = [_part(block) for block in result.content]
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    text = "\n".join(parts).encode(errors="replace").decode() or NOTHING
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}\n(cut)"


def _part(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent() | types.AudioContent():
            return f"({block.type}, {block.mime_type}, left out)"
        case types.EmbeddedResource(resource=types.TextResourceContents() as inside):
            return inside.text
        case types.ResourceLink():
            return f"(link to {block.uri})"
        case _:
            return "(a file, left out)"
