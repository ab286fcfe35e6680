"""What `chat.reply` returns: the name of what was sent, by which it can be taken back."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sent:
    """A reply that was sent. `id`: of a card its artifact id, of a text its job and place; the same in every run of the job."""

    id: str
    _recall: "Callable[[str], Awaitable[None]]" = field(repr=False, compare=False)

    async def recall(self) -> None:
        """Takes it back, as Chat.recall."""
        await self._recall(self.id)
