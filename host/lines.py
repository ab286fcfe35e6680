"""Lines between our processes: one way from bytes to messages, which every such line shares.

What the other end says may be of another release, or damaged. A message with a tag that is not known, or with fields that cannot be
read, a line that is none of ours, a line without an end: each is passed over, counted, and said once by its tag. Nothing of it ends the
listening. A further field of a known message is left out without a word. Half a line waits for its other half: whether its sender still
lives is for those to say who watch it.
"""

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

# The longest of ours are a worker's stacks, and the status of 256 workers with their last lines of stderr.
LINE_LIMIT_BYTES = 1 << 20
# What the log gets of a line that could not be read; a tag of ours is a word.
_TAG = re.compile(r"[A-Za-z][A-Za-z_.-]{0,31}")
NO_TAG = "without a tag"
TOO_LONG = "too long"
# After so many different ones it is not a newer release that speaks, and the log has heard enough.
MOST_TAGS_SAID = 20

Message = TypeVar("Message")


class UnreadableLine(Exception):
    """A line that is no message of the expected side; `tag` as far as it has one. Nothing else of the line is in it."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag


class Lines:
    """Cuts bytes into lines. One over the limit is thrown away as it comes, up to its end, and counted in `too_long`."""

    def __init__(self, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()
        self._is_skipping = False
        self.too_long = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their newlines; empty ones are left out."""
        lines: list[bytes] = []
        *ends, rest = data.split(b"\n")
        for end in ends:
            line = bytes(self._rest) + end
            self._rest.clear()
            if self._is_skipping:
                self._is_skipping = False
            elif len(line) > self._limit_bytes:
                self.too_long += 1
            elif line:
                lines.append(line)
        if not self._is_skipping:
            self._rest += rest
            if len(self._rest) > self._limit_bytes:
                self._rest.clear()
                self._is_skipping = True
                self.too_long += 1
        return lines


class LineReader(Generic[Message]):
    """The messages of one line. `passed_over`: how many of its lines were not read."""

    def __init__(self, decode: Callable[[bytes], Message], say: Callable[[str], None]) -> None:
        """`decode` raises Unreadable; `say` is called with each tag that is passed over, once."""
        self._decode = decode
        self._say = say
        self._lines = Lines()
        self._said: set[str] = set()
        self.passed_over = 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in their order."""
        too_long = self._lines.too_long
        messages: list[Message] = []
        for line in self._lines.feed(data):
            try:
                messages.append(self._decode(line))
            except UnreadableLine as unreadable:
                self._pass_over(unreadable.tag)
        for _ in range(self._lines.too_long - too_long):
            self._pass_over(TOO_LONG)
        return messages

    def _pass_over(self, tag: str) -> None:
        self.passed_over += 1
        if tag not in self._said and len(self._said) < MOST_TAGS_SAID:
            self._said.add(tag)
            self._say(tag)


def json_decoder(kind: Any) -> Callable[[bytes], Any]:
    """A decoder of lines of JSON, whose messages are those of `kind`: a struct or a union of structs, tagged by `type`."""
    decoder = msgspec.json.Decoder(kind)

    def decode(line: bytes) -> Any:
        try:
            return decoder.decode(line)
        except (msgspec.DecodeError, RecursionError):
            raise UnreadableLine(tag_of(line)) from None

    return decode


class _Tagged(msgspec.Struct):
    type: str = ""


_tagged = msgspec.json.Decoder(_Tagged)


def tag_of(line: bytes) -> str:
    """The tag of a line of JSON that could not be read, if it has one that is a word."""
    try:
        return plain_tag(_tagged.decode(line).type)
    except (msgspec.DecodeError, RecursionError):
        return NO_TAG


def plain_tag(text: str) -> str:
    """`text` if it can be a tag, and nothing that would have to be kept out of a log."""
    return text if _TAG.fullmatch(text) else NO_TAG
