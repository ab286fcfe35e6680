"""The rounds of one answer: the model is asked, the tools that it calls are run, and it is asked again with what they have returned."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from workers.llm.endpoint import NOTHING_OFFERED, Offer, Write
from workers.llm.endpoint import Chat as Messages
from workers.llm.memory import tool_messages
from workers.llm.turn import Model, ModelTurns, Taken
from workers.tools.calls import Told, ToolCalls, Wanted, used

MOST_ROUNDS: Final = 10
"""In which a model may call tools, for one answer. Then it has to answer in words."""

MOST_CALLS: Final = 32
"""For one answer. What a model calls beyond is not run, and it is told so."""

TOO_MANY_CALLS: Final = "This was not run: there were too many calls. Answer with what you have."

Chats = Callable[[], Awaitable[Sequence[Messages]]]


@dataclass(eq=False)
class Rounds:
    """One answer of a model. `chats`: see ModelTurns.take; `calls` is None where no tools may be called; `may_ride`: see ToolCalls.work.

    `is_kept`: what tools were called is kept of what was said.
    """

    turns: ModelTurns
    model: Model
    chats: Chats
    calls: ToolCalls | None = None
    may_ride: bool = False
    is_kept: bool = False
    _since: list[dict[str, object]] = field(default_factory=list)
    _rounds: int = 0
    _called: int = 0

    @property
    def may_call(self) -> bool:
        """Whether the model may call tools in the turn that it takes next."""
        return self.calls is not None and self._rounds < MOST_ROUNDS

    async def take(self, write: Write) -> Taken:
        """Takes the model's next turn, in which it may call tools. Raises as ModelTurns.take."""
        return await self.turns.take(self.model, self._told, write, self._offer())

    async def work(self, taken: Taken) -> bool:
        """Runs the tools that a turn calls; returns whether the model is to be asked again. Raises what the calls raise for the owner to mend."""
        made = taken.completion.calls
        if self.calls is None or not made or self._rounds >= MOST_ROUNDS:
            return False
        is_first, self._rounds = self._rounds == 0, self._rounds + 1
        wanted = [Wanted(f"{taken.name}/{at}", call.name, call.arguments) for at, call in enumerate(made, start=1)]
        left = max(MOST_CALLS - self._called, 0)
        self._called += len(wanted)
        told = await self.calls.work(wanted[:left], may_ride=self.may_ride and is_first, seen=taken.saw)
        told += [Told(TOO_MANY_CALLS, "error")] * len(wanted[left:])
        self._since += tool_messages(taken.completion.text, made, [one.text for one in told])
        if self.is_kept:
            uses = [used(call.name, call.arguments, one) for call, one in zip(made, told, strict=True)]
            self.calls.thread.keeping.said_tools(taken.name, uses)
        return True

    def _offer(self) -> Offer:
        if self.calls is None:
            return NOTHING_OFFERED
        tools = [tool.as_offered() for tool in self.calls.offered()]
        return Offer(tools, may_call=self.may_call)

    async def _told(self) -> list[Messages]:
        return [[*chat, *self._since] for chat in await self.chats()]
