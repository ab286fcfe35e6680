"""What a run leaves behind at its end: nobody sees it before, and it is written in one step with the job's end, or not at all."""

from bus.steps.thread_steps import Effect
from bus.transport.lua import Argument
from workers.kept.within import within


class Effects:
    """The effects of one run, in their order. A run that leaves none ends as one that knows nothing of effects."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []

    def add(self, operation: str, first: Argument = "", second: Argument = "", third: Argument = "") -> None:
        """Adds an operation of settle.lua with its words."""
        effect = (operation, first, second, third)
        self._effects.append(effect)
        if (call := within()) is not None:
            call.effects.append(effect)

    def undo(self) -> None:
        """Drops all of them: the handler that left them has failed."""
        self._effects.clear()

    def taken(self) -> tuple[Effect, ...]:
        """Returns all of them."""
        return tuple(self._effects)
