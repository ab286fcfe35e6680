"""The thread that a run is a part of: a handler's work from its message to its end, over all its runs.

What took time is noted as it comes, under a name and how often that name was used (`start#1`), and is not done again: a later run finds it.
Results are msgpack; what a later run gets is what the first one got.
"""

import inspect
import re
import typing
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import msgspec
import trio

from bus.records.journal import ENTRY_OVERHEAD_BYTES, MOST_ENTRY_BYTES
from bus.records.records import Job
from bus.steps.thread_steps import Noted
from workers.effects import Effects
from workers.errors import BadStep, JournalFull, OutcomeUnknown
from workers.keeping import Keeping
from workers.outlet import Outlet, until_redis_answers

# What was done is to be known to the next run, also of a handler that is cancelled meanwhile; Redis may be away, and must not hold us for ever.
LAST_NOTE_SECONDS = 2.0
RESERVED_BYTES = MOST_ENTRY_BYTES + ENTRY_OVERHEAD_BYTES
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,64}")


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What stands in the journal under a name. `unfit`: it was done, and its result cannot be kept; `value` says why."""

    kind: Literal["begun", "done", "unfit"]
    value: msgspec.Raw = msgspec.Raw(b"\xc0")


BEGUN = msgspec.msgpack.encode(Entry("begun"))


class ThreadRun:
    """One run of a thread. `found`: what earlier runs have noted, by name; None for an entry that cannot be read any more.

    `lost` is called when another worker has the job; `check_open` raises ChatClosed once the run has ended. `effects`: what the run leaves
    behind at its end. `keeping`: what it keeps of its conversation.
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
    ) -> None:
        self.job = job
        self.keeping = keeping
        self.check_open = check_open
        self._outlet = outlet
        self._found = dict(found)
        self._lost = lost
        self._counts = Counter[str]()
        self.effects = Effects()
        self._reserved = 0

    def name(self, base: str) -> str:
        """Returns the name of the next thing of this kind: the same in every run that does the same."""
        self._counts[base] += 1
        return f"{base}#{self._counts[base]}"

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
        except msgspec.DecodeError:
            return None

    async def note_begun(self, step: "Step") -> None:
        """Notes that a step which may be done once begins, and keeps room for its result. Raises JournalFull, OutcomeUnknown."""
        if await self._note(step.name, BEGUN, room=self._reserved + RESERVED_BYTES, only_new=True) is Noted.ALREADY:
            raise OutcomeUnknown(step.name.partition("#")[0])
        self._reserved += RESERVED_BYTES

    def has_ended(self) -> None:
        """Gives the room free that a step which may be done once had for its result."""
        self._reserved -= RESERVED_BYTES

    async def keep(self, step: "Step", function: Callable[..., object], value: object, *, once: bool) -> object:
        """Notes what a step returned; returns it as every later run gets it. Raises BadStep, JournalFull."""
        entry = _entry_of(step.name, function, value)
        room = self._reserved - (RESERVED_BYTES if once else 0)
        await self._note(step.name, msgspec.msgpack.encode(entry), room=room)
        return Step(step.name, entry).result(function)

    async def _note(self, name: str, value: bytes, *, room: int, only_new: bool = False) -> Noted:
        sealed = self._outlet.seal_entry(self.job, name, value)
        noted = await until_redis_answers(
            lambda: self._outlet.note(self.job, name, sealed, room=room, only_new=only_new)
        )
        if noted is Noted.FULL:
            raise JournalFull(name.partition("#")[0])
        if noted is Noted.FENCED:
            self._lost()
            await trio.lowlevel.checkpoint()
        return noted


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


def _entry_of(name: str, function: Callable[..., object], value: object) -> Entry:
    base, kind = name.partition("#")[0], _returned_by(function)
    try:
        packed = msgspec.msgpack.encode(value)
        kept = msgspec.msgpack.decode(packed, type=kind)
    except (TypeError, ValueError, RecursionError, OverflowError):
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
