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


def text_id(job_id: str, *places: str) -> str:
    """Returns the id of a text that was sent at these places of a job (several for a long one), which have no spaces."""
    return " ".join((job_id, *places))


def places_in(sent_id: str) -> list[tuple[str, str]]:
    """Returns the job and place of each part of a text with this id; none for the id of a card."""
    job_id, *places = sent_id.split(" ")
    return [(job_id, place) for place in places]
