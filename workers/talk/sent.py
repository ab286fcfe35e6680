"""What `chat.reply` returns: the name of what was sent, by which it can be taken back."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sent:
    """A reply that was sent. `handle`: of a card its artifact id, of a text its job and places (bus/records/sent_ids.py).

    `_recall` takes it back, `_id_of` returns the id of what has this handle, which is made when somebody asks for it.
    """

    handle: str
    _recall: "Callable[[str], Awaitable[None]]" = field(repr=False, compare=False)
    _id_of: "Callable[[str], str]" = field(default=str, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"Sent(id={self.id!r})"

    @property
    def id(self) -> str:
        """Of a card its artifact id, of a text its client_message_id, several with spaces between for one that went in parts.

        The same in every run of the job.
        """
        return self._id_of(self.handle)

    async def recall(self) -> None:
        """Takes it back, as Chat.recall."""
        await self._recall(self.handle)
