"""What a person said and read, conversation by conversation, and waiting for more of it."""

from collections.abc import Callable

import msgspec
import trio


class TranscriptLine(msgspec.Struct, frozen=True):
    """`direction` is `out` or `in`; `seq` is the relay's number, of an outgoing line once acknowledged. `card_id`: of a card.

    `sender_id`: who said it, of an incoming line; in a group not only the agent does.
    """

    direction: str
    text: str
    client_message_id: str
    seq: int | None
    at: float
    card_id: str = ""
    sender_id: str = ""


class Transcript:
    def __init__(self) -> None:
        self._lines: dict[str, list[TranscriptLine]] = {}
        self._changed = trio.Event()

    def add(self, conversation_id: str, line: TranscriptLine) -> None:
        self._lines.setdefault(conversation_id, []).append(line)
        self.notify()

    def acknowledged(self, conversation_id: str, client_message_id: str, seq: int) -> None:
        lines = self._lines.get(conversation_id, [])
        for place, line in enumerate(lines):
            if line.client_message_id == client_message_id and line.direction == "out":
                lines[place] = msgspec.structs.replace(line, seq=seq)
        self.notify()

    def lines(self, conversation_id: str) -> tuple[TranscriptLine, ...]:
        return tuple(self._lines.get(conversation_id, ()))

    def said(self, conversation_id: str) -> list[str]:
        return [line.text for line in self.lines(conversation_id) if line.direction == "out"]

    def heard(self, conversation_id: str) -> list[str]:
        return [line.text for line in self.lines(conversation_id) if line.direction == "in"]

    def notify(self) -> None:
        """Wakes whoever waits; also called for changes that are no lines (acks, streams)."""
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once `condition()` holds. The caller bounds the wait."""
        while not condition():
            await self._changed.wait()

    async def more(self, conversation_id: str, than: int) -> tuple[TranscriptLine, ...]:
        """The lines after the first `than`, once there are any."""
        await self.until(lambda: len(self._lines.get(conversation_id, ())) > than)
        return self.lines(conversation_id)[than:]
