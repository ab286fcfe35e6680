"""What one run of a job reads and leaves of what is kept of its conversation: the state, and what was said.

Read when a handler asks for it, once a run; written with the job's end, or not at all.
"""

import time
from collections.abc import Sequence

from bus.records.records import BadRecord, InboundMessage, Job, NewerRecord, Reply
from bus.steps.thread_steps import Effect
from workers.errors import BadState, HistoryNotKept
from workers.history import MOST_TURNS, History, decode_exchange, encode_exchange, turn_of, turn_of_reply
from workers.outlet import Outlet, until_redis_answers
from workers.state import RunningState, StateShape


class Keeping:
    """What one run keeps. `has_history`: what is said is kept."""

    def __init__(
        self,
        job: Job,
        keeper: Outlet,
        messages: Sequence[InboundMessage],
        *,
        has_history: bool = False,
    ) -> None:
        self._job = job
        self._keeper = keeper
        self._messages = messages
        self.has_history = has_history
        self._state: RunningState | None = None
        self._history: History | None = None
        self._said: dict[str, tuple[int, Reply]] = {}

    async def state(self, shape: StateShape) -> object:
        """Returns the conversation's state, the same object throughout the run. Raises BadState."""
        if self._state is None:
            self._state = await self._read_state(shape)
        return self._state.value

    async def _read_state(self, shape: StateShape) -> RunningState:
        try:
            body = await until_redis_answers(lambda: self._keeper.read_state(self._job))
        except NewerRecord as error:
            raise BadState(shape.name, f"a later version of hashee-agent wrote it ({error})") from None
        except BadRecord:
            raise BadState(shape.name, "its record does not open with this store secret") from None
        return shape.begin() if body is None else shape.read(body)

    def undo(self) -> None:
        """Forgets the changes of a handler that failed, before another function answers for it."""
        self._state = None

    async def history(self) -> History:
        """Returns what was said before this job's thread began, oldest first. Raises HistoryNotKept."""
        if not self.has_history:
            raise HistoryNotKept
        if self._history is None:
            bodies = await until_redis_answers(lambda: self._keeper.read_exchanges(self._job))
            turns = [turn for body in bodies for turn in decode_exchange(body)]
            self._history = History(turns[-MOST_TURNS:])
        return self._history

    def said(self, place: str, reply: Reply) -> None:
        """Notes a reply that goes out, or went out in an earlier run."""
        if self.has_history:
            self._said.setdefault(place, (_now_ms(), reply))

    def effects(self) -> list[Effect]:
        """Returns what the job's end is to write. Raises StateTooLarge, BadState."""
        body = None if self._state is None else self._state.changed()
        state = [] if body is None else [self._keeper.state_effect(self._job, body)]
        return [*state, *self.exchange()]

    def exchange(self) -> list[Effect]:
        """Returns what the job's end is to write of what was said, also that of a run that was superseded."""
        if not self.has_history:
            return []
        turns = [turn_of(message, self._job.accepted_ms) for message in self._messages]
        turns += [turn for at_ms, reply in self._said.values() if (turn := turn_of_reply(reply, at_ms)) is not None]
        return [self._keeper.exchange_effect(self._job, _now_ms(), encode_exchange(turns))]


def _now_ms() -> int:
    return int(time.time() * 1000)
