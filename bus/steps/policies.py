"""What a handler's code declares for conversations that are busy or full (DESIGN rules 9 and 11).

Workers publish it when they are ready; scripts read the plain fields, the supervisor the two texts, which are sealed. The newest
worker's word counts for all.
"""

from typing import Literal, cast

import msgspec

from bus.records.keys import Keys
from bus.records.sealing import BusKey, SealBroken
from bus.transport.client import Commands

Busy = Literal["queue", "interrupt", "coalesce"]
Full = Literal["refuse", "park"]

MOST_WAITING = 100
REFUSAL = "There are too many messages waiting to be answered. Please send this one again later."


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """`busy`: a message that comes while another of its conversation is handled waits, interrupts it, or is handled together with
    all that wait by then. `most_waiting` of one conversation; beyond it `full` refuses (with the text `refusal`) or parks.
    `apology`: what the sender is told when a message becomes a dead letter; None: nothing.
    """

    busy: Busy = "queue"
    most_waiting: int = MOST_WAITING
    full: Full = "refuse"
    refusal: str = REFUSAL
    apology: str | None = None


class PolicyStore:
    """Where they are published, for one agent."""

    def __init__(self, client: Commands, keys: Keys, bus_key: BusKey) -> None:
        self._client = client
        self._key = keys.policy
        self._agent_id = keys.agent_id
        self._bus_key = bus_key

    async def publish(self, policies: Policies) -> None:
        """As a worker, before the first job. Raises RedisFailed."""
        await self._client.command(
            "HSET",
            self._key,
            *("busy", policies.busy, "most", policies.most_waiting, "full", policies.full),
            *("refusal", self._seal("refusal", policies.refusal)),
            *("apology", b"" if policies.apology is None else self._seal("apology", policies.apology)),
        )

    async def refusal(self) -> str:
        """The text for a message that finds its mailbox full. Raises RedisFailed."""
        return await self._text("refusal") or REFUSAL

    async def apology(self) -> str | None:
        """The text for the sender of a dead letter. Raises RedisFailed."""
        return await self._text("apology")

    async def _text(self, name: str) -> str | None:
        sealed = cast("bytes | None", await self._client.command("HGET", self._key, name))
        if not sealed:
            return None
        try:
            return self._bus_key.open(sealed, *self.place(self._agent_id, name)).decode()
        except SealBroken:
            return None  # published under a store secret that has been rotated; the next worker publishes again

    def _seal(self, name: str, text: str) -> bytes:
        return self._bus_key.seal(text.encode(), *self.place(self._agent_id, name))

    @staticmethod
    def place(agent_id: str, name: str) -> tuple[str, str, str]:
        """To what a text is sealed."""
        return ("policy", agent_id, name)
