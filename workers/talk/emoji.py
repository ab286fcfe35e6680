"""Tells whether a text is one emoji: one grapheme (UAX #29, as far as emoji go) that begins with a symbol."""

import unicodedata

MOST_CHARACTERS = 16  # the longest emoji, a family with skin tones, has ten
_JOINER = 0x200D
_KEYCAP = 0x20E3
_TAGS = range(0xE0020, 0xE0080)
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_VARIATIONS = range(0xFE00, 0xFE10)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_FLAG = 2
_ASCII = 0x80
_SYMBOLS = ("So", "Sk", "Sm", "Po")
_NO_BASE = frozenset((*_FLAG_LETTERS, *_SKIN_TONES))


def is_one_emoji(text: object) -> bool:
    """Returns whether it is a text of exactly one emoji: a symbol with what modifies it, a flag, a keycap, or several that are joined."""
    if not isinstance(text, str) or not 1 <= len(text) <= MOST_CHARACTERS:
        return False
    points = [ord(character) for character in text]
    if all(point in _FLAG_LETTERS for point in points):
        return len(points) == _FLAG
    if points[-1] == _KEYCAP:
        return text[0] in "0123456789#*" and all(point in _VARIATIONS for point in points[1:-1])
    is_symbol_due = True
    for point in points:
        if is_symbol_due:
            if unicodedata.category(chr(point)) not in _SYMBOLS or point < _ASCII or point in _NO_BASE:
                return False
            is_symbol_due = False
        elif point == _JOINER:
            is_symbol_due = True
        elif not (point in _SKIN_TONES or point in _VARIATIONS or point in _TAGS):
            return False
    return not is_symbol_due
