"""Cuts what a client says to Redis (RESP) into its commands, each with the bytes in which it came. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

END = b"\r\n"


class Command(NamedTuple):
    """One command. `raw`: as it was sent."""

    words: tuple[bytes, ...]
    raw: bytes


class CommandReader:
    """Fed with pieces as they come, gives whole commands. A line that is no list (`PING`) is a command of one word."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes | bytearray) -> Iterator[Command]:
        """Yields each command that is whole now."""
        self._rest += data
        while (command := self._next()) is not None:
            del self._rest[: len(command.raw)]
            yield command

    def _next(self) -> Command | None:
        head = self._line(0)
        if head is None:
            return None
        line, at = head
        if not line.startswith(b"*"):
            return Command((line,), bytes(self._rest[:at]))
        words = []
        for _ in range(int(line[1:])):
            length = self._line(at)
            if length is None:
                return None
            at = length[1] + int(length[0][1:]) + len(END)
            if at > len(self._rest):
                return None
            words.append(bytes(self._rest[length[1] : at - len(END)]))
        return Command(tuple(words), bytes(self._rest[:at]))

    def _line(self, at: int) -> tuple[bytes, int] | None:
        """Returns the line that begins there, and where the next one does; None where it is not whole."""
        end = self._rest.find(END, at)
        return None if end < 0 else (bytes(self._rest[at:end]), end + len(END))
