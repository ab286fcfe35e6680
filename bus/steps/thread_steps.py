"""The steps of a worker with a thread: what took time is noted as it comes, what nobody sees is written with the end of the job.

A thread is a handler's work from its message to its end. Agents that neither note nor leave effects never come here.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import msgspec

from bus.records.budgets import ADMITTED, TOLD_AGAIN_AFTER_MS, Charge, Limit, of_sender
from bus.records.journal import JOURNAL_PREFIX, MOST_JOURNAL_BYTES, pack_entry
from bus.records.kept import WAIT, is_wait, open_kept, pack_kept
from bus.records.numbers import number_in
from bus.records.presence import Presence, presence_of
from bus.records.records import BadRecord, Job, NewerRecord, decode_job_record
from bus.records.saved import pairs
from bus.records.timers import Timer, pack_timer
from bus.steps.job_steps import Finished, JobSteps, Said, Settled
from bus.transport.client import together
from bus.transport.clock import ms_of, redis_ms
from bus.transport.lua import Argument
from bus.transport.wire import Value

PAGE, MOST_PAGES = 1000, 10
"""Of the ledger, in which `message_id_of` looks: ten seconds of a busy agent. A question that the relay took later is known by no quote."""

LETTERS_PAGE = 10
"""Of dead letters, each of up to a mebibyte, in which `may_come_back` looks for one."""

MOST_WORKERS = 1000
"""Of those that were seen last, which `is_beside_another_version` looks at."""

Effect = tuple[str, Argument, Argument, Argument]
"""An operation of settle.lua and its words."""


class Noted(enum.Enum):
    """The outcomes of `note`."""

    NOTED = b"noted"
    ALREADY = b"already"
    """Nothing was changed, since the name has another entry already."""

    FULL = b"full"
    """Nothing was changed, since the journal has no room for it."""

    RAISED = b"raised"
    """Nothing was changed, since Redis went back after the thread's message was taken in: what was noted may be lost."""

    CHANGED = b"changed"
    """Nothing was changed, since the store has another value by now than the change was made from."""

    STORE_FULL = b"store_full"
    """Nothing was changed, since the store has reached its bound."""

    FENCED = b"fenced"


class Admitted(msgspec.Struct, frozen=True):
    """Whether a message is within its budgets. `beyond`: the number of the limit that it is beyond, None within all; `is_told`: its sender hears of it."""

    outcome: Literal["admitted", "beyond", "fenced"]
    beyond: int | None = None
    is_told: bool = False


class TimersThere(msgspec.Struct, frozen=True):
    """What is known of a conversation's timers at Redis' time `now_ms`: how many there are, and whether one with the id that was asked for is."""

    now_ms: int
    count: int
    is_there: bool


class WaitsThere(msgspec.Struct, frozen=True):
    """What is known of all waits of an agent at Redis' time `now_ms`: how many bytes they have, of MOST_WAITS_BYTES."""

    now_ms: int
    bytes: int


class Bound(enum.Enum):
    """The outcomes of `bind_wait`."""

    BOUND = b"bound"
    TAKEN = b"taken"
    """Another job answers it."""

    GONE = b"gone"
    FENCED = b"fenced"


class OpenWait(msgspec.Struct, frozen=True):
    """A wait of a conversation. `body`: what the worker sealed; `from_seq`: from which seq on a text may be its answer; `bound_to`: the job
    that answers it.
    """

    id: str
    body: bytes
    from_seq: int
    bound_to: str = ""

    def __repr__(self) -> str:
        return f"OpenWait(id={self.id!r}, from_seq={self.from_seq}, bound_to={self.bound_to!r})"


class ThreadSteps(JobSteps):
    """The steps of one agent's jobs, with those of their threads."""

    async def has_noted(self, conversation_id: str, name: str) -> bool:
        """Returns whether the job that runs in a conversation, or is to run there again, has noted an entry of this name."""
        found = await self._commands.command("HGET", self._keys.emitted(conversation_id), JOURNAL_PREFIX + name)
        return found is not None

    def seal_entry(self, job: Job, name: str, value: bytes) -> bytes:
        """Returns an entry for `note`: made once, so that a repeated note is known as the same."""
        return pack_entry(value, job, name, self._bus_key, self._agent_id)

    async def note(
        self,
        job: Job,
        name: str,
        entry: bytes,
        *,
        room: int = 0,
        most: int = MOST_JOURNAL_BYTES,
        only_new: bool = False,
        change: Effect | None = None,
        in_epoch: bool = False,
        charge: Charge | None = None,
    ) -> Noted:
        """Notes an entry in the journal of the job's thread. `room`: bytes that must be free beside it; `most`: bytes of the whole journal;
        `change`: an effect `store` that is written with the entry, or neither is. `in_epoch`: only while Redis has not gone back since the
        thread's message was taken in. `charge`: what is paid for it, once.
        """
        keys = [*self._keys.board(job.conversation_id), *((self._keys.store,) if change else ())]
        keys += map(self._keys.budget, charge.subjects if charge else ())
        epoch = job.epoch if in_epoch and job.epoch is not None else ""
        words: list[Argument] = [name, entry, room, most, int(only_new), epoch]
        words += [charge.tokens if charge else 0, *(change[1:] if change else ())]
        return Noted(
            await self._commands.script("note", keys, job.conversation_id, job.entry_id, self._consumer, *words)
        )

    async def admit(self, job: Job, limits: Sequence[Limit], entry: bytes, *, tells: bool) -> Admitted:
        """Counts a job's message against these limits, once; or says which of them it is beyond. `entry`: of the journal, under ADMITTED, sealed.

        `tells`: its sender may be told, which is so seldom.
        """
        subjects = sorted({limit.subject for limit in limits})
        keys = [*self._keys.board(job.conversation_id), self._keys.budget(of_sender(job.message.sender_id))]
        keys += map(self._keys.budget, subjects)
        words: list[Argument] = [job.job_id, ADMITTED, entry, TOLD_AGAIN_AFTER_MS if tells else ""]
        for limit in limits:
            words += [subjects.index(limit.subject) + 1, limit.kind, limit.most]
        answer = await self._commands.script("admit", keys, job.conversation_id, job.entry_id, self._consumer, *words)
        outcome, *more = cast("list[Value]", answer)
        how = cast("Literal['admitted', 'beyond', 'fenced']", cast(bytes, outcome).decode())
        return Admitted(how, cast(int, more[0]), more[1] == 1) if more else Admitted(how)

    def seal_timer(self, timer: Timer) -> bytes:
        """Returns the record of a timer, for the effect `timer`."""
        return pack_timer(timer, key=self._bus_key, agent_id=self._agent_id)

    async def timers_there(self, job: Job, timer_id: str) -> TimersThere:
        """Returns what is known of the timers of the job's conversation."""
        key = self._keys.timers(job.conversation_id)
        count, is_there = await together(self._commands, ("HLEN", key), ("HEXISTS", key, timer_id))
        return TimersThere(await redis_ms(self._commands), cast(int, count), is_there == 1)

    def seal_wait(self, job: Job, wait_id: str, body: bytes) -> bytes:
        """Returns the record of a wait in the job's conversation, for an effect `wait`."""
        return pack_kept(body, WAIT, job.conversation_id, wait_id, key=self._bus_key, agent_id=self._agent_id)

    async def open_waits(self, job: Job) -> list[OpenWait]:
        """Returns the waits of the job's conversation. Raises BadRecord; NewerRecord for one that a later version wrote."""
        found = await self._commands.command("HGETALL", self._keys.waits(job.conversation_id))
        fields = {name.decode(): value for name, value in pairs(cast("list[bytes]", found))}
        return [self._opened(job, name, fields) for name in fields if is_wait(name.encode())]

    def _opened(self, job: Job, wait_id: str, fields: Mapping[str, bytes]) -> OpenWait:
        body = open_kept(
            fields[wait_id], WAIT, job.conversation_id, wait_id, key=self._bus_key, agent_id=self._agent_id
        )
        return OpenWait(
            wait_id, body, int(fields.get(f"from:{wait_id}", 1)), fields.get(f"bound:{wait_id}", b"").decode()
        )

    async def message_id_of(self, thread_id: str, place: str, since_ms: int) -> str:
        """Returns the relay's id of what a thread has said at a place, and was acknowledged soon after this time; '' if that is not found."""
        since, wanted = str(since_ms), (b"acknowledged", thread_id.encode())
        for _ in range(MOST_PAGES):
            found = await self._commands.command("XRANGE", self._keys.ledger, since, "+", "COUNT", PAGE)
            rows = cast("list[tuple[bytes, list[bytes]]]", found)
            for _, words in rows:
                event, job_id, told = words[1::2]
                if (event, job_id) == wanted and told.decode().split(" ")[0] == place:
                    return told.decode().split(" ")[1]
            if len(rows) < PAGE:
                break
            since = f"({rows[-1][0].decode()}"
        return ""

    async def is_beside_another_version(self, mine: Presence) -> bool:
        """Returns whether a worker of another version of this program, or of the handlers, reports of itself."""
        found = await self._commands.command("ZREVRANGE", self._keys.consumers, 0, MOST_WORKERS)
        names = [name.decode() for name in cast("list[bytes]", found) if name.decode() != self._consumer]
        texts = await self._commands.command("MGET", *map(self._keys.presence, names)) if names else []
        reports = [(text, presence_of(text)) for text in cast("list[bytes | None]", texts) if text is not None]
        return any(other is None or mine.is_of_another_version(other) for _, other in reports)

    async def waits_there(self) -> WaitsThere:
        """Returns what is known of all waits of the agent, in one round trip."""
        time, waits = await together(self._commands, ("TIME",), ("HGET", self._keys.load, "waits"))
        return WaitsThere(ms_of(time), number_in(waits))

    async def may_come_back(self, job: Job, job_id: str) -> bool:
        """Returns whether an earlier job of the job's conversation is a dead letter, or was one and waits to run again; else nothing runs it any more."""
        since = "-"
        while True:
            found = await self._commands.command("XRANGE", self._keys.dead, since, "+", "COUNT", LETTERS_PAGE)
            rows = cast("list[tuple[bytes, list[bytes]]]", found)
            if any(_is_of(dict(pairs(flat)).get(b"r", b""), job_id) for _, flat in rows):
                return True
            if len(rows) < LETTERS_PAGE:
                break
            since = f"({rows[-1][0].decode()}"
        kept = await self._commands.command("HEXISTS", self._keys.conversation(job.conversation_id), f"p:{job_id}")
        return kept == 1

    async def bind_wait(self, job: Job, wait_id: str, *, instead_of: str = "") -> Bound:
        """Binds a wait to the job that answers it, unless another one does. `instead_of`: one that nothing runs any more."""
        keys = [*self._keys.board(job.conversation_id), self._keys.waits(job.conversation_id)]
        words = (job.conversation_id, job.entry_id, self._consumer, job.job_id, wait_id, instead_of)
        return Bound(await self._commands.script("bind_wait", keys, *words))

    async def settle(
        self,
        job: Job,
        outcome: Settled,
        effects: Sequence[Effect],
        *,
        last: Sequence[Said] = (),
        began_ms: int | None = None,
    ) -> Finished:
        """Ends a job as `finish` does, and writes its effects in the same step, all of them or none."""
        began = "" if began_ms is None else began_ms
        arguments: list[Argument] = [job.job_id, outcome, job.attempt, job.deliveries, began, len(last)]
        for place, reply in last:
            arguments += [place, self._pack(job, place, reply)]
        for effect in effects:
            arguments += effect
        names, at = self._keys, job.conversation_id
        keys = (*names.board(at), *names.kept_in(at))
        words = (at, job.entry_id, self._consumer, *arguments)
        return Finished(await self._commands.script("settle", keys, *words))


def _is_of(record: bytes, job_id: str) -> bool:
    """Returns whether a dead letter may be of this job: one that a later version wrote may."""
    try:
        return decode_job_record(record).job_id == job_id
    except NewerRecord:
        return True
    except BadRecord:
        return False  # a reply's
