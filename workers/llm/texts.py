"""Makes text of the pieces in which a model's answer comes: characters that are split over events are joined, and thoughts left out."""

import codecs
import re

_SURROGATE = re.compile("[\ud800-\udfff]+")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BYTES = re.compile("[\udc80-\udcff]+")
_LAST = re.compile("(?:[\ud800-\udbff]|[\udc80-\udcff]+)$")

THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),  # Mistral
    ("<seed:think>", "</seed:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss, where its server does not read it
)
"""What stands between these at the beginning of an answer is not for people."""

_END_ALONE = re.compile(r"(?:\A|\n)[ \t]*</think(?:ing)?>|</think(?:ing)?>[ \t]*(?:\n|\Z)")


class Joiner:
    """Joins halves of characters. A piece may hold halves of UTF-16, or bytes that are no UTF-8 by themselves (as `surrogateescape` has them)."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, piece: str) -> str:
        """Returns the whole characters by now."""
        text, self._half = self._half + piece, ""
        if _SURROGATE.search(text) is None:
            return text
        if last := _LAST.search(text):
            self._half = _unfinished(last[0])
            text = text.removesuffix(self._half)
        return _SURROGATE.sub(_whole, text)

    def end(self) -> str:
        """Returns what is left: half a character is a replacement character."""
        text, self._half = self._half, ""
        return _SURROGATE.sub(_whole, text)


def _unfinished(last: str) -> str:
    """Returns what the next piece may complete of the halves at the end of a text."""
    if last < "\udc00":
        return last
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(last.encode(errors="surrogateescape"))
    return decoder.getstate()[0].decode(errors="surrogateescape")


def _whole(found: re.Match[str]) -> str:
    run = _PAIR.sub(lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le"), found[0])
    run = _BYTES.sub(lambda escaped: escaped[0].encode(errors="surrogateescape").decode(errors="replace"), run)
    return _SURROGATE.sub("\ufffd", run)


class WithoutThoughts:
    """Leaves out white space and thoughts at the beginning of an answer."""

    def __init__(self) -> None:
        self._held = ""
        self._close = ""
        self._has_begun = False

    def feed(self, piece: str) -> str:
        """Returns what of the text by now is for people."""
        if self._has_begun:
            return piece
        self._held += piece
        while not self._has_begun:
            if self._close:
                _, found, behind = self._held.partition(self._close)
                if not found:
                    self._held = self._held[-len(self._close) :]
                    return ""
                self._held, self._close = behind, ""
            self._held = self._held.lstrip()
            opened = next((pair for pair in THOUGHTS if self._held.startswith(pair[0])), None)
            if opened is not None:
                self._held, self._close = self._held[len(opened[0]) :], opened[1]
            elif any(opening.startswith(self._held) for opening, _ in THOUGHTS):
                return ""
            else:
                self._has_begun = True
        return self._take()

    def end(self) -> str:
        """Returns what is left; nothing of thoughts that do not end."""
        return "" if self._close else self._take()

    def _take(self) -> str:
        text, self._held = self._held, ""
        return text


def without_thoughts_before(text: str) -> str:
    """Returns a whole answer without the thoughts before a `</think>` that nothing opens, as of models whose template opens it."""
    found = _END_ALONE.search(text)
    if found is None or any(opening in text[: found.end()] for opening, _ in THOUGHTS):
        return text
    return text[found.end() :].lstrip()
