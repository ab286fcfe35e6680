"""The thread that a run is a part of: a handler's work from its message to its end, over all its runs.

What took time is noted as it comes, under a name and how often that name was used (`start#1`), and is not done again: a later run finds it.
Results are msgpack; what a later run gets is what the first one got.
"""

import hashlib
import inspect
import math
import re
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NoReturn, cast

import msgspec
import trio

from bus.records.budgets import Charge
from bus.records.journal import ENTRY_OVERHEAD_BYTES, MOST_ENTRY_BYTES, MOST_JOURNAL_BYTES
from bus.records.kept import MOST_WAITS_BYTES
from bus.records.records import Job
from bus.steps.thread_steps import Effect, Noted
from bus.transport.backoff import Backoff
from bus.transport.wire import MENDABLE, RedisFull
from host.unreadable import UNREADABLE, UNWRITABLE
from workers.errors import BadStep, Diverged, JournalFull, OutcomeUnknown, StoreFull, Suspended, WaitsFull
from workers.kept.effects import Effects
from workers.kept.keeping import Keeping
from workers.kept.outlet import Outlet, until_redis_answers
from workers.kept.within import within

# What was done is to be known to the next run, also of a handler that is cancelled meanwhile; Redis may be away, and must not hold us for ever.
LAST_NOTE_SECONDS = 2.0
# A Redis that is full gets room when jobs end: one that holds its slot to note something would be in the way of that.
FULL_SECONDS = 2.0
UNFINISHED = "unfinished"
RESERVED_BYTES = MOST_ENTRY_BYTES + ENTRY_OVERHEAD_BYTES
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,64}")


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What stands in the journal under a name. `unfit`: it was done, and its result cannot be kept; `value` says why.

    `answer`: what somebody said, and who; `none`: why there is no answer. `by`: of both, a name of the job that brought it.
    """

    kind: Literal["begun", "done", "unfit", "answer", "none"]
    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    by: str = ""


BEGUN = msgspec.msgpack.encode(Entry("begun"))


class Draft(msgspec.Struct, frozen=True):
    """What a run waits for: see workers/kept/waits.py `Wait`."""

    id: str
    entry: str
    kind: Literal["text", "form", "approval", "app", "tool_call"]
    who: list[str]
    due_ms: int
    question_hash: str
    asked_ms: int
    place: str


class ThreadRun:
    """One run of a thread. `found`: what earlier runs have noted, by name; None for an entry that cannot be read any more.

    `lost` is called when another worker has the job, `give_back` when another run of it is to note what a full Redis does not take; before either
    `close`, after which `check_open` raises Suspended. It raises ChatClosed once the run has ended. `effects`: what the run leaves
    behind at its end. `keeping`: what it keeps of its conversation. `carried`: what of `found` earlier jobs of the thread have noted, which a
    wait has kept. `answers`: the names of those with which it goes on, and to whose questions the handler has to come. `draft`: what it waits for then. `deadline`: when every run ends, whatever its handler does.
    `charged`: who pays for the tokens that it uses.
    """

    def __init__(
        self,
        job: Job,
        outlet: Outlet,
        found: Mapping[str, bytes | None],
        *,
        lost: Callable[[], None],
        check_open: Callable[[], None],
        keeping: Keeping,
        carried: Mapping[str, bytes | None] | None = None,
        answers: Iterable[str] = (),
        deadline: float = math.inf,
        give_back: Callable[[], None] | None = None,
        close: Callable[[], None] = lambda: None,
        charged: tuple[str, ...] = (),
    ) -> None:
        self.job = job
        self.keeping = keeping
        self.check_open = check_open
        self.charged = charged
        self._outlet = outlet
        self._found = dict(found)
        self._lost = lost
        self._give_back = give_back
        self._close = close
        self.is_left = False
        self._counts: dict[str, int] = {}
        self.effects = Effects()
        self._reserved = 0
        self.scope = trio.CancelScope()
        self.deadline = deadline
        self.draft: Draft | None = None
        self.suspended = Suspended()
        self.on_suspended: Callable[[], None] | None = None
        self._suspending = 0
        self._resumed = trio.Event()
        self.open_waits = 0
        self._left = set(answers)
        self._carried = sum(len(value or b"") + ENTRY_OVERHEAD_BYTES for value in (carried or {}).values())
        self._steppers: list[trio.lowlevel.Task] = []
        self._no_step = trio.Event()

    def name(self, base: str) -> str:
        """Returns the name of the next thing of this kind: the same in every run that does the same."""
        if (call := within()) is not None:
            base = f"{call.name}:{base}"
        count = self._counts[base] = self._counts.get(base, 0) + 1
        return f"{base}#{count}"

    @property
    def journal(self) -> dict[str, bytes]:
        """Returns what is noted by now; what cannot be read any more is left out."""
        return {name: value for name, value in self._found.items() if value is not None}

    @property
    def asked(self) -> int:
        """Returns how often the thread has asked and was answered, or was not."""
        return sum(name.startswith("ask:") for name in self._found)

    @property
    def left(self) -> list[str]:
        """Returns the names of the answers with which it goes on and to whose questions the handler has not come yet."""
        return sorted(self._left)

    def entry(self, name: str) -> Entry | None:
        """Returns what stands under a whole name."""
        return self._read(name) if name in self._found else None

    def check_answer_used(self) -> None:
        """Raises Diverged if the handler has ended without coming to each question whose answer it went on with."""
        if self._left:
            raise Diverged

    def has_used(self, name: str) -> None:
        """Notes that the handler has taken this answer."""
        self._left.discard(name)

    def has_used_all(self, prefix: str) -> str | None:
        """Notes that the handler has taken each answer whose name begins so. Returns from where places count after the last of them, None where
        there is none.
        """
        names = [name for name in self._found if name.startswith(prefix)]
        self._left.difference_update(names)
        return counted_from(names[-1], self._read(names[-1])) if names else None

    def suspend(self, draft: Draft) -> None:
        """Notes what the run waits for, with which it is over: `suspended` is to be raised."""
        self.draft = draft
        if self.on_suspended is not None:
            self.on_suspended()

    @contextmanager
    def suspending(self) -> Iterator[None]:
        """Has no step begin meanwhile."""
        self._suspending += 1
        try:
            yield
        finally:
            self._suspending -= 1
            self._resumed.set()
            self._resumed = trio.Event()

    async def until_a_step_may_begin(self) -> None:
        """Waits while the run is about to wait for an answer; what belongs to a step that runs goes on."""
        while self._suspending and not self.is_in_a_step():
            await self._resumed.wait()

    async def time_to_wait(self) -> int:
        """Returns Redis' time, by which a deadline is over. Raises WaitsFull where all waits of the agent take no more, as far as it can be known
        before the question is shown.
        """
        more = len(msgspec.msgpack.encode(self.job.message.payload)) + ENTRY_OVERHEAD_BYTES
        more += sum(len(value) + ENTRY_OVERHEAD_BYTES for value in self.journal.values()) - self._carried
        there = await until_redis_answers(self._outlet.waits_there)
        if there.bytes + more > MOST_WAITS_BYTES:
            raise WaitsFull
        return there.now_ms

    def is_in_a_step(self) -> bool:
        """Returns whether the present task is within a step, or was started by one that is."""
        task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        while self._steppers and task is not None:
            if task in self._steppers:
                return True
            task = task.parent_nursery.parent_task if task.parent_nursery is not None else None
        return False

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Notes that the present task is within a step."""
        task = trio.lowlevel.current_task()
        self._steppers.append(task)
        try:
            yield
        finally:
            self._steppers.remove(task)
            if not self._steppers:
                self._no_step.set()
                self._no_step = trio.Event()

    async def until_steps_are_noted(self) -> None:
        """Waits for the steps of other tasks that run."""
        while self._steppers:
            await self._no_step.wait()

    def begin(self, name: str, *, once: bool) -> "Step":
        """Returns the next step of this name, and what is known of it. Raises BadStep, ChatClosed, OutcomeUnknown."""
        self.check_open()
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadStep("a step's name has 1 to 64 characters of A-Z, a-z, 0-9, '_', '.', '/', '-'")
        named = self.name(name)
        if named not in self._found:
            return Step(named, None)
        entry = self._read(named)
        if once and (entry is None or entry.kind == "begun"):
            raise OutcomeUnknown(name)
        return Step(named, None if entry is not None and entry.kind == "begun" else entry)

    def _read(self, name: str) -> Entry | None:
        packed = self._found[name]
        try:
            return None if packed is None else msgspec.msgpack.decode(packed, type=Entry)
        except UNREADABLE:
            return None

    def known(self, name: str) -> str:
        """Returns what an earlier run has noted under a name by `note_how`; '' if none has."""
        entry = self.entry(name)
        return "" if entry is None else msgspec.msgpack.decode(entry.value, type=str)

    async def note_how(self, name: str, how: str) -> None:
        """Notes how something has ended, by which every later run goes. Raises JournalFull."""
        entry = Entry("done", msgspec.Raw(msgspec.msgpack.encode(how)))
        await self._note(name, msgspec.msgpack.encode(entry), room=self._reserved)

    async def note_begun(self, step: "Step") -> None:
        """Notes that a step which may be done once begins, and keeps room for its result. Raises JournalFull, OutcomeUnknown."""
        room = self._reserved + RESERVED_BYTES
        noted = await self._note(step.name, BEGUN, room=room, only_new=True, in_epoch=True)
        if noted in (Noted.ALREADY, Noted.RAISED):
            raise OutcomeUnknown(step.name.partition("#")[0])
        self._reserved += RESERVED_BYTES

    def has_ended(self) -> None:
        """Gives the room free that a step which may be done once had for its result."""
        self._reserved -= RESERVED_BYTES

    async def charge(self, tokens: int) -> None:
        """Has tokens paid for that no step has to show for: of an answer that did not come to its end. Raises JournalFull."""
        if tokens and self.charged:
            await self.keep(Step(self.name(UNFINISHED), None), int, tokens, once=False, tokens=tokens)

    async def keep(
        self, step: "Step", function: Callable[..., object], value: object, *, once: bool, tokens: int = 0
    ) -> object:
        """Notes what a step returned; returns it as every later run gets it. `tokens`: what it has used. Raises BadStep, JournalFull."""
        entry = _entry_of(step.name, function, value)
        room = self._reserved - (RESERVED_BYTES if once else 0)
        charge = Charge(self.charged, tokens) if tokens and self.charged else None
        await self._note(step.name, msgspec.msgpack.encode(entry), room=room, until_it_is_full=not once, charge=charge)
        return Step(step.name, entry).result(function)

    def noted_change(self, key: str) -> tuple[str, bytes | None]:
        """Returns the name of the next change of this key of the store, and the value that it had if an earlier run has made it.

        Raises ChatClosed; OutcomeUnknown where it was made, and what is noted of it cannot be read.
        """
        self.check_open()
        name = self.name("change:" + hashlib.sha256(key.encode()).hexdigest()[:16])
        if name not in self._found:
            return name, None
        entry = self._read(name)
        if entry is None:
            raise OutcomeUnknown("store.change")
        return name, bytes(entry.value)

    async def note_change(self, name: str, value: bytes, change: Effect) -> bool:
        """Writes a change of the store together with its entry; False if another value stands there by now.

        Raises JournalFull, OutcomeUnknown, StoreFull.
        """
        entry = msgspec.msgpack.encode(Entry("done", msgspec.Raw(value)))
        noted = await self._note(name, entry, room=self._reserved, only_new=True, change=change)
        if noted is Noted.ALREADY:
            raise OutcomeUnknown("store.change")
        if noted is Noted.STORE_FULL:
            raise StoreFull
        return noted is not Noted.CHANGED

    async def _note(
        self,
        name: str,
        value: bytes,
        *,
        room: int,
        only_new: bool = False,
        change: Effect | None = None,
        in_epoch: bool = False,
        until_it_is_full: bool = True,
        charge: Charge | None = None,
    ) -> Noted:
        sealed = self._outlet.seal_entry(self.job, name, value)
        note = partial(
            self._outlet.note,
            self.job,
            name,
            sealed,
            room=room,
            most=MOST_JOURNAL_BYTES - self._carried,
            only_new=only_new,
            change=change,
            in_epoch=in_epoch,
            charge=charge,
        )
        noted = await (self._unless_full(note) if until_it_is_full else until_redis_answers(note))
        if noted is Noted.FULL:
            raise JournalFull(name.partition("#")[0])
        if noted is Noted.FENCED:
            self._leave(self._lost)
        if noted is Noted.NOTED:
            self._found[name] = value
        return noted

    async def _unless_full(self, note: Callable[[], Awaitable[Noted]]) -> Noted:
        """Notes something however long Redis is away; where it is full the job is given back. Raises Suspended."""
        gives_up_at = trio.current_time() + FULL_SECONDS
        backoff = Backoff()
        while True:
            try:
                return await note()
            except RedisFull:
                if trio.current_time() >= gives_up_at:
                    self._leave(self._give_back or self._lost)
                await backoff.wait()
            except MENDABLE:
                await backoff.wait()

    def _leave(self, tell: Callable[[], None]) -> NoReturn:
        """Ends this run, of which nothing more is to be seen. Raises Suspended."""
        self.is_left = True
        self._close()
        tell()
        raise Suspended


class Step(msgspec.Struct, frozen=True):
    """A step of a thread. `entry`: what is known of it from an earlier run."""

    name: str
    entry: Entry | None

    @property
    def is_done(self) -> bool:
        return self.entry is not None

    def result(self, function: Callable[..., object]) -> object:
        """Returns what the step returned. Raises BadStep if that could not be kept."""
        if self.entry is None:
            raise ValueError("it is not done")
        if self.entry.kind == "unfit":
            raise BadStep(msgspec.msgpack.decode(self.entry.value, type=str))
        try:
            return msgspec.msgpack.decode(self.entry.value, type=_returned_by(function))
        except msgspec.ValidationError:
            # without the cause, which may quote the value
            raise BadStep(
                f"what step {self.name.partition('#')[0]!r} once returned is not what its function returns now: "
                "give the step another name, then the function is called again"
            ) from None


def counted_from(name: str, entry: Entry | None) -> str:
    """Returns what the places begin with of what is said behind an answer: it names the job that brought it."""
    return f"{name}@{entry.by}" if entry is not None and entry.by else name


def _entry_of(name: str, function: Callable[..., object], value: object) -> Entry:
    base, kind = name.partition("#")[0], _returned_by(function)
    try:
        packed = msgspec.msgpack.encode(value)
        kept = msgspec.msgpack.decode(packed, type=kind)
    except UNWRITABLE:
        return _unfit(
            f"what step {base!r} returned cannot be kept: return what msgpack has, or a Struct or dataclass of it"
        )
    if type(kept) is not type(value) and kept != value:
        return _unfit(
            f"step {base!r} returned a {type(value).__name__}, which a later run would get as {type(kept).__name__}: "
            "annotate what its function returns"
        )
    if len(packed) > MOST_ENTRY_BYTES:
        return _unfit(
            f"step {base!r} returned {len(packed)} bytes, and a journal takes {MOST_ENTRY_BYTES} of each: "
            "keep it elsewhere, and return where"
        )
    return Entry("done", msgspec.Raw(packed))


def _unfit(why: str) -> Entry:
    return Entry("unfit", msgspec.Raw(msgspec.msgpack.encode(why)))


def _returned_by(function: Callable[..., object]) -> Any:
    """Returns the type that a function is annotated to return; Any if it says nothing that msgspec knows."""
    try:
        kind = typing.get_type_hints(_plain(function)).get("return", Any)
        msgspec.inspect.type_info(kind)
    except Exception:  # noqa: BLE001 - an annotation may be any text and any object
        return Any
    return kind


def _plain(function: Callable[..., object]) -> Callable[..., object]:
    inner = inspect.unwrap(function)
    if inspect.isroutine(inner):
        return inner
    return cast("Callable[..., object]", getattr(inner, "func", getattr(inner, "__call__", inner)))  # noqa: B004
