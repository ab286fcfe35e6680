"""Reads messages, one a line, that another process of ours has sent: the one decoder that all pipes and control sockets share.

The sender may be of another release, or its line damaged. A message with an unknown tag or with unreadable fields, a line that is no
message, a line that is too long: each is passed over, counted, and reported once by its tag. None of it ends the reading. An unknown
field of a known message is ignored. Half a line waits for its other half: whether the sender still lives is watched elsewhere.
"""

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from host.unreadable import UNREADABLE

# The longest of ours are a worker's stacks, and the status of 256 workers with their last lines of stderr.
LINE_LIMIT_BYTES = 1 << 20
# All that the log shows of a line that could not be read; a tag of ours is a word.
_TAG = re.compile(r"[A-Za-z][A-Za-z_.-]{0,31}")
NO_TAG = "without a tag"
TOO_LONG = "too long"
# A newer release has fewer new tags than this; more are damage, and the log has enough of it.
MOST_TAGS_SAID = 20

Message = TypeVar("Message")


class UnreadableLine(Exception):
    """A line that is no known message. `tag` is its tag if it has one; nothing else of the line is kept."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag


class Lines:
    """Cuts bytes into lines. A line over the limit is dropped while it arrives, up to its end, and counted in `too_long`."""

    def __init__(self, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()
        self._is_skipping = False
        self.too_long = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the lines that `data` completes, without their newlines and without empty ones."""
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
    """Decodes the messages that come over one pipe or socket. `passed_over` counts the lines that could not be read."""

    def __init__(self, decode: Callable[[bytes], Message], say: Callable[[str], None]) -> None:
        """`decode` raises UnreadableLine; `say` is called once with each tag that is passed over."""
        self._decode = decode
        self._say = say
        self._lines = Lines()
        self._said: set[str] = set()
        self.passed_over = 0

    def feed(self, data: bytes) -> list[Message]:
        """Returns the messages that `data` completes, in order."""
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
    """Returns a decoder of lines of JSON to `kind`: a struct or a union of structs, tagged by `type`. It raises UnreadableLine."""
    decoder = msgspec.json.Decoder(kind)

    def decode(line: bytes) -> Any:
        try:
            return decoder.decode(line)
        except UNREADABLE:
            raise UnreadableLine(tag_of(line)) from None

    return decode


class _Tagged(msgspec.Struct):
    type: str = ""


_tagged = msgspec.json.Decoder(_Tagged)


def tag_of(line: bytes) -> str:
    """Returns the tag of a line of JSON that could not be decoded, or NO_TAG if it has none that is a word."""
    try:
        return plain_tag(_tagged.decode(line).type)
    except UNREADABLE:
        return NO_TAG


def plain_tag(text: str) -> str:
    """Returns `text` if it is a word and so can be logged, else NO_TAG."""
    return text if _TAG.fullmatch(text) else NO_TAG
