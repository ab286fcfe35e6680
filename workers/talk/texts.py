"""Cuts a text that is too long for one message into parts, at paragraphs; a code fence that is cut is closed and opened again."""

import re

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_BREAKS = ("\n\n", "\n", " ")
MOST_FENCE_CHARACTERS = 100
"""Of a fence's first line that is repeated in the next part; a longer one is repeated without its words."""


def parts_of(text: str, limit: int) -> list[str]:
    """Returns the text in parts of at most `limit` characters; the same ones each time. A text that fits is one part."""
    parts, opening = list[str](), ""
    while len(opening) + len(text) > limit:
        room = limit - len(opening) - len("\n") - MOST_FENCE_CHARACTERS
        part, text = _cut(text, room)
        part = opening + part
        fence = _open_fence(part)
        opening = f"{fence}\n" if fence else ""
        parts.append(f"{part}\n{_ticks(fence)}" if fence else part)
    return [*parts, opening + text]


def _cut(text: str, room: int) -> tuple[str, str]:
    """Returns the text up to the last paragraph, line or word that ends within `room`, and what comes behind it."""
    for mark in _BREAKS:
        at = text.rfind(mark, room // 2, room + len(mark))
        if at > 0:
            return text[:at], text[at + len(mark) :]
    return text[:room], text[room:]


def _open_fence(part: str) -> str:
    """Returns the first line of the fence that is open at the end of a part, '' if none is."""
    opened = ""
    for line in part.split("\n"):
        found = _FENCE.fullmatch(line)
        if found is None:
            continue
        ticks, words = found[1], found[2]
        if not opened:
            opened = f"{ticks}{words}" if len(ticks) + len(words) <= MOST_FENCE_CHARACTERS else ticks
        elif ticks.startswith(_ticks(opened)) and not words.strip():
            opened = ""
    return opened[:MOST_FENCE_CHARACTERS]


def _ticks(fence: str) -> str:
    found = _FENCE.fullmatch(fence)
    return found[1] if found else ""
