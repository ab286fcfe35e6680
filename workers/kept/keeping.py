"""What one run of a job reads and leaves of what is kept of its conversation: the state, and what was said.

Read when a handler asks for it, once a run; written with the job's end, or not at all.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec

from bus.records.journal import READ_ENTRY
from bus.records.records import PLACED_KINDS, BadRecord, InboundMessage, Job, NewerRecord, Payload, Reply
from bus.steps.opened import Exchange
from bus.steps.thread_steps import Effect
from workers.errors import BadState, HistoryNotKept, StateBeforeAsk
from workers.kept.history import (
    MOST_TURNS,
    History,
    ToolUse,
    Turn,
    carried_on,
    decode_exchange,
    encode_exchange,
    turn_of,
    turn_of_answer,
    turn_of_reply,
)
from workers.kept.outlet import Outlet, until_redis_answers
from workers.kept.state import RunningState, StateShape
from workers.kept.store import StoreRun

BOTH = frozenset({"state", "history"})
SAID = "said:"
"""Begins the names of journal entries that hold what was said; no step has such a name."""


class Keeping:
    """What one run keeps. `has_history`: what is said is kept."""

    def __init__(
        self,
        job: Job,
        keeper: Outlet,
        messages: Sequence[InboundMessage],
        *,
        has_history: bool = False,
        journal: Mapping[str, bytes | None] | None = None,
        emitted: frozenset[str] = frozenset(),
    ) -> None:
        self._job = job
        self._keeper = keeper
        self._messages = messages
        self.has_history = has_history
        self._state: RunningState | None = None
        self._history: History | None = None
        self._read: Sequence[Exchange] | None = None
        self._seen = (journal or {}).get(READ_ENTRY)
        self._has_grants = False
        self._said: dict[str, Turn] = {}
        self._noted = self._noted_in(journal or {}, emitted) if has_history else {}
        self.store = StoreRun(job, keeper)
        self._is_forgotten = False
        self._reads_both = False

    async def state(self, shape: StateShape) -> object:
        """Returns the conversation's state, the same object throughout the run. Raises BadState."""
        if self._state is None:
            self._state = await self._read_state(shape)
        return self._state.value

    def expect(self, names: frozenset[str]) -> None:
        """Hears what a function is about to ask for: where it is both, both are read in one step."""
        self._reads_both = self._reads_both or names >= BOTH

    async def _read_state(self, shape: StateShape) -> RunningState:
        try:
            body = await until_redis_answers(self._body)
        except NewerRecord as error:
            raise BadState(shape.name, f"a later version of hashee-agent wrote it ({error})") from None
        except BadRecord:
            raise BadState(shape.name, "its record does not open with this store secret") from None
        return shape.begin() if body is None else shape.read(body)

    def check_unchanged(self) -> None:
        """Raises StateBeforeAsk if the handler has changed the state: it runs again after the answer, on what stands then."""
        if self._state is not None and self._state.changed() is not None:
            raise StateBeforeAsk

    def changed_state(self) -> bytes | None:
        """Returns the state as this run has changed it; None if it has not. Raises StateTooLarge, BadState."""
        return None if self._state is None else self._state.changed()

    async def _body(self) -> bytes | None:
        if not self._reads_both or self._history is not None:
            return await self._keeper.read_state(self._job)
        body, exchanges = await self._keeper.read_both(self._job)
        self._history = self._history_of(exchanges)
        return body

    def undo(self) -> None:
        """Forgets the changes of a handler that failed, before another function answers for it."""
        self._state = None
        self._is_forgotten = False
        self.store.undo()

    async def history(self) -> History:
        """Returns what was said before this job's thread began, oldest first: what the first of its runs that asked has read. Raises HistoryNotKept."""
        if not self.has_history:
            raise HistoryNotKept
        if self._history is None:
            exchanges = await until_redis_answers(lambda: self._keeper.read_exchanges(self._job))
            self._history = self._history_of(exchanges)
        return self._history

    def _history_of(self, exchanges: Sequence[Exchange]) -> History:
        self._read = exchanges
        until = None if self._seen is None else self._seen.decode()

        def opened() -> list[Turn]:
            opened_exchanges = self._keeper.open_exchanges(self._job, exchanges, decode_exchange, until=until)
            self._has_grants = any(exchange.has_grants for exchange in opened_exchanges)
            turns = list(chain.from_iterable(opened_exchanges))
            return turns if len(turns) <= MOST_TURNS else turns[-MOST_TURNS:]

        return History(open_turns=opened)

    def noted(self) -> dict[str, bytes]:
        """Returns what a run that waits has to leave in its thread's journal: up to where it has read the history, since what others say
        meanwhile is none of what it saw. Until a run waits nobody else writes there.
        """
        if self._read is None or self._seen is not None:
            return {}
        return {READ_ENTRY: self._keeper.newest_exchange(self._job, self._read).encode()}

    def said(self, place: str, reply: Reply) -> None:
        """Hears of a reply that goes out, or went out in an earlier run: then that run's words count."""
        if self.has_history and place not in self._said:
            turn = self._noted.get(place) or turn_of_reply(reply, _now_ms())
            if turn is not None:
                self._said[place] = turn

    def said_tools(self, name: str, uses: Sequence[ToolUse]) -> None:
        """Hears which tools a turn of the model has called, and what came of it: all of them are kept together."""
        if self.has_history:
            self._said.setdefault(name, Turn(role="assistant", text="", tools=tuple(uses), at_ms=_now_ms()))

    def answered(self, name: str, question: Reply, said: Payload | None, sender_id: str = "") -> None:
        """Hears of a question that an earlier run has asked, and what was answered to it (None: nothing): both are said in this thread."""
        if self.has_history:
            self.said(f"{name}?", question)
            if said is not None:
                self._said[f"{name}!"] = turn_of_answer(said, sender_id, _now_ms())

    async def note_said(self, place: str) -> None:
        """Writes down what is said at a place, before it is sent while the handler goes on: a later run may have other words for it.

        Where the journal has no room, those are what is kept.
        """
        turn = self._said.get(place)
        if turn is not None and place not in self._noted:
            self._noted[place] = turn
            entry = self._keeper.seal_entry(self._job, self._name_of(place), encode_exchange([turn]))
            await until_redis_answers(lambda: self._keeper.note(self._job, self._name_of(place), entry))

    def _name_of(self, place: str) -> str:
        return f"{SAID}{self._job.job_id}/{place}"

    def _noted_in(self, journal: Mapping[str, bytes | None], emitted: frozenset[str]) -> dict[str, Turn]:
        """Returns what earlier runs of this job have said, and not only written down; what was said before an answer came is another job's."""
        if not journal:
            return {}
        mine = self._name_of("")
        found = {name.removeprefix(mine): body for name, body in journal.items() if name.startswith(mine)}
        turns = {place: decode_exchange(body)[0] for place, body in found.items() if body and place in emitted}
        return dict(sorted(turns.items(), key=lambda noted: noted[1].at_ms))

    def forget(self) -> None:
        """Has all that is kept of the conversation deleted with the job's end."""
        self._is_forgotten = True

    def effects(self) -> list[Effect]:
        """Returns what the job's end is to write. Raises StateTooLarge, BadState."""
        if self._is_forgotten:
            return [*self.store.effects(), self._keeper.forget_effect(self._job)]
        body = None if self._state is None else self._state.changed()
        state = [] if body is None else [self._keeper.state_effect(self._job, body)]
        return [*self.store.effects(), *state, *self.exchange()]

    def _was_said(self, message: InboundMessage) -> bool:
        """Returns whether somebody has said it: nobody a reminder; a thread that nobody has answered goes on with what somebody said."""
        is_of_somebody = message.payload.get("type") not in (None, *PLACED_KINDS)
        return self._job.kind == "message" or (bool(self._job.continues) and is_of_somebody)

    def exchange(self) -> list[Effect]:
        """Returns what the job's end is to write of what was said, also that of a run that was superseded."""
        if not self.has_history:
            return []
        heard = [one for one in self._messages if self._was_said(one)]
        turns = [turn_of(message, self._job.accepted_ms) for message in heard]
        turns += [*self._said.values(), *(turn for place, turn in self._noted.items() if place not in self._said)]
        if not turns:
            return []
        grants = carried_on(self._history, _now_ms()) if self._history is not None and self._has_grants else []
        if grants:
            turns[-1] = msgspec.structs.replace(turns[-1], grants=tuple(grants))
        return [self._keeper.exchange_effect(self._job, _now_ms(), encode_exchange(turns))]


def _now_ms() -> int:
    return int(time.time() * 1000)
