"""Publishes and reads what a handler's code declares for conversations that are busy or full (DESIGN rules 9 and 11).

Workers publish it when they are ready; scripts read the plain fields, the supervisor the two texts, which are sealed. What the last
worker published counts for all.
"""

from typing import Literal, cast

import msgspec

from bus.records.keys import Keys
from bus.records.sealing import BusKey, SealBroken
from bus.transport.client import Commands
from host.unreadable import UNREADABLE

Busy = Literal["queue", "interrupt", "coalesce"]
Full = Literal["refuse", "park"]
InGroups = Literal["mentioned", "all"]

MOST_WAITING = 100
APOLOGY = "Sorry, something went wrong here, and this message could not be answered."
REFUSAL = "There are too many messages waiting to be answered. Please send this one again later."


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of messages of a busy or full conversation.

    `busy`: a message that comes while another is handled waits, interrupts it, or is handled together with all that wait by then.
    `most_waiting`: so many may wait; beyond it `full` refuses a message (with the text `refusal`) or parks it. `apology`: the text that
    a sender gets when their message becomes a dead letter; None: nothing. `groups`: which messages of a group go to a handler, those that
    mention the agent or all. `events`: the names of those that a handler asks for (bus/records/events.py). `every`: how often
    which function runs by itself, in seconds by its name. `stop`: a person's /stop ends the job under way that is for them.
    """

    busy: Busy = "queue"
    most_waiting: int = MOST_WAITING
    full: Full = "refuse"
    refusal: str = REFUSAL
    apology: str | None = APOLOGY
    groups: InGroups = "mentioned"
    events: tuple[str, ...] = ()
    every: dict[str, int] = {}
    stop: bool = False


class PolicyStore:
    """The published policies of one agent."""

    def __init__(self, client: Commands, keys: Keys, bus_key: BusKey) -> None:
        self._client = client
        self._key = keys.policy
        self._agent_id = keys.agent_id
        self._bus_key = bus_key

    async def publish(self, policies: Policies) -> None:
        """Publishes them, as a worker before its first job. Raises RedisFailed."""
        await self._client.command(
            "HSET",
            self._key,
            *("busy", policies.busy, "most", policies.most_waiting, "full", policies.full),
            *("groups", policies.groups, "events", " ".join(policies.events)),
            *("every", msgspec.json.encode(policies.every), "stop", int(policies.stop)),
            *("refusal", self._seal("refusal", policies.refusal)),
            *("apology", b"" if policies.apology is None else self._seal("apology", policies.apology)),
        )

    async def hears_all_in_groups(self) -> bool:
        """Returns whether also messages of a group that do not mention the agent go to a handler. Raises RedisFailed.

        They do where the workers are of a version that knew nothing else.
        """
        return await self._client.command("HGET", self._key, "groups") != b"mentioned"

    async def events(self) -> frozenset[str]:
        """Returns the names of the events that a handler asks for. Raises RedisFailed."""
        names = cast("bytes | None", await self._client.command("HGET", self._key, "events"))
        return frozenset((names or b"").decode().split())

    async def every(self) -> dict[str, int]:
        """Returns how often which function runs by itself, in seconds by its name. Raises RedisFailed."""
        found = cast("bytes | None", await self._client.command("HGET", self._key, "every"))
        try:
            return msgspec.json.decode(found or b"{}", type=dict[str, int])
        except UNREADABLE:  # of another version
            return {}

    async def refusal(self) -> str:
        """Returns the text for the sender of a message whose mailbox is full. Raises RedisFailed."""
        return await self._text("refusal") or REFUSAL

    async def apology(self) -> str | None:
        """Returns the text for the sender of a dead letter, or None. Raises RedisFailed."""
        return await self._text("apology", broken=APOLOGY)

    async def _text(self, name: str, *, broken: str | None = None) -> str | None:
        """Returns a text, None where none was published, `broken` where it does not open."""
        sealed = cast("bytes | None", await self._client.command("HGET", self._key, name))
        if not sealed:
            return None
        try:
            return self._bus_key.open(sealed, *self.place(self._agent_id, name)).decode()
        except SealBroken:
            return broken  # published under a store secret that has been rotated; the next worker publishes again

    def _seal(self, name: str, text: str) -> bytes:
        return self._bus_key.seal(text.encode(), *self.place(self._agent_id, name))

    @staticmethod
    def place(agent_id: str, name: str) -> tuple[str, str, str]:
        """Returns the place that a text is sealed for."""
        return ("policy", agent_id, name)
