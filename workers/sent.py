"""What `chat.reply` returns: the name of what was sent."""

import msgspec


class Sent(msgspec.Struct, frozen=True):
    """A reply that was sent. `id`: of a card its artifact id, of a text its job and place; the same in every run of the job."""

    id: str
