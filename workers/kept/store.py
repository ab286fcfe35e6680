"""What handlers keep for the whole agent, under keys of the owner's: `store: Store`.

Changes are written with the end of the job, all or none. What was read and changed is written only if nobody else has changed it meanwhile;
else the run is repeated, with what stands there then. `add` conflicts with nobody. `change` is written at once.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol, overload

import msgspec

from bus.records.records import BadRecord, Job
from bus.steps.thread_steps import Effect
from host.unreadable import UNREADABLE, UNWRITABLE
from workers.errors import BadStored, StoreAfterWords, StoreLimit, StoreMixed
from workers.kept.outlet import Outlet, until_redis_answers

MOST_KEY_BYTES = 200
MOST_VALUE_BYTES = 64 * 1024
"""Encoded as msgpack. Of all keys together: 10,000, and 4 MiB (bus/scripts/_library.lua)."""


NOTHING = msgspec.msgpack.encode(None)
"""What is noted of a change that took its key away."""


class _Value(msgspec.Struct):
    """A key as a run has read it, and what it makes of it."""

    version: bytes
    body: bytes | None
    was_read: bool = False
    is_set: bool = False
    new_body: bytes | None = None
    added: float = 0


class Changes(Protocol):
    """Where changes that are written at once are noted: the run's thread."""

    def noted_change(self, key: str) -> tuple[str, bytes | None]: ...
    async def note_change(self, name: str, value: bytes, change: Effect) -> bool: ...


class StoreRun:
    """The store in one run of a job."""

    def __init__(self, job: Job, keeper: Outlet) -> None:
        self.job = job
        self._keeper = keeper
        self._values: dict[str, _Value] = {}
        self._changed: set[str] = set()

    async def read(self, key: str) -> _Value:
        if not isinstance(key, str) or not 1 <= len(key.encode()) <= MOST_KEY_BYTES:
            raise StoreLimit(f"a key of the store is a str of 1 to {MOST_KEY_BYTES} bytes in UTF-8")
        if key not in self._values:
            try:
                version, body = await until_redis_answers(lambda: self._keeper.read_stored(key))
            except BadRecord as error:
                raise BadStored(key, f"cannot be read ({error})") from None
            self._values[key] = _Value(version, body)
        return self._values[key]

    async def read_to_set(self, key: str) -> _Value:
        """As `read`, for a key that the job's end is to write. Raises StoreMixed if this run has changed it at once."""
        if key in self._changed:
            raise StoreMixed(key)
        return await self.read(key)

    async def change(
        self, key: str, function: Callable[[bytes | None], bytes | None], changes: Changes
    ) -> bytes | None:
        """Makes a value of the one that stands there, at once; returns the one that this change made in its first run."""
        value = self._values.get(key)
        if value is not None and (value.is_set or value.added):
            raise StoreMixed(key)
        name, noted = changes.noted_change(key)
        while noted is None:
            self._values.pop(key, None)
            before = await self.read(key)
            made = function(before.body)
            packed = NOTHING if made is None else made
            if await changes.note_change(name, packed, self._keeper.store_effect(key, before.version, made)):
                noted = packed
        self._values.pop(key, None)
        self._changed.add(key)
        return None if noted == NOTHING else noted

    def undo(self) -> None:
        """Forgets what a handler that failed has read and changed."""
        self._values.clear()

    def effects(self) -> list[Effect]:
        """Returns what the job's end is to write. Raises StoreLimit."""
        found = []
        for key, value in self._values.items():
            if value.added:
                found.append(self._keeper.store_effect(key, value.version, _sum(key, value)))
            elif value.is_set and (value.new_body != value.body or not value.was_read):
                version = value.version if value.was_read else None
                found.append(self._keeper.store_effect(key, version, value.new_body))
        return found

    async def renewed(self) -> list[Effect] | None:
        """Returns the effects anew after others have added to what they were made from; None if the run itself has to be repeated."""
        is_another = False
        for key, value in self._values.items():
            version, body = await until_redis_answers(lambda key=key: self._keeper.read_stored(key))  # type: ignore[misc]
            if version != value.version and value.was_read:
                return None
            is_another = is_another or version != value.version
            value.version, value.body = version, body
        return self.effects() if is_another else None


class Store:
    """The store, as a handler asks for it."""

    def __init__(self, run: StoreRun, changes: Changes, has_words: Callable[[], bool]) -> None:
        """`changes` notes what is changed at once; `has_words` says whether the run has said something."""
        self._run = run
        self._changes = changes
        self._has_words = has_words

    def __repr__(self) -> str:
        return "Store(…)"

    @overload
    async def get(self, key: str, default: Any = None) -> Any: ...
    @overload
    async def get(self, key: str, default: Any = None, *, type: type[Any]) -> Any: ...
    async def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:  # noqa: A002 - as msgspec calls it
        """Returns the value of a key as this run sees it, `default` where there is none. Raises BadState if it is no `type`, StoreLimit."""
        value = await self._run.read(key)
        value.was_read = True
        body = value.new_body if value.is_set else value.body
        if value.added:
            body = _sum(key, value)
        return default if body is None else _decoded(key, body, type)

    async def change(
        self,
        key: str,
        function: Callable[[Any], object],
        default: Any = None,
        *,
        type: Any = Any,  # noqa: A002
    ) -> Any:
        """Sets a key to what a function makes of its value (`default` where there is none), at once; returns what was set.

        The function is called again where others change the key meanwhile, and not in a later run. With None it takes the key away. Raises
        BadState, StoreLimit, StoreFull, JournalFull; StoreMixed if this run has set the key.
        """
        if inspect.iscoroutinefunction(function):
            raise StoreLimit(f"what store.change calls is a plain function of the value, that for {key!r} is async")

        def made(body: bytes | None) -> bytes | None:
            value = function(default if body is None else _decoded(key, body, type))
            return None if value is None else _encoded(key, value)

        body = await self._run.change(key, made, self._changes)
        return None if body is None else _decoded(key, body, type)

    async def set(self, key: str, value: object) -> None:
        """Sets a key, with None takes it away. Raises StoreLimit; StoreAfterWords where this run has read the key and said something."""
        stored = await self._run.read_to_set(key)
        if stored.was_read and self._has_words():
            raise StoreAfterWords(key)
        stored.is_set, stored.added = True, 0
        stored.new_body = None if value is None else _encoded(key, value)

    async def add(self, key: str, by: float = 1) -> None:
        """Adds to the number of a key, which begins with 0. Raises BadState where it has no number, StoreLimit."""
        stored = await self._run.read_to_set(key)
        if stored.is_set:
            before = 0 if stored.new_body is None else _number(key, stored.new_body)
            stored.new_body = _encoded(key, before + by)
            return
        _sum(key, stored)
        stored.added += by


def _decoded(key: str, body: bytes, kind: Any) -> Any:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except UNREADABLE:
        raise BadStored(key, f"is no {getattr(kind, '__name__', kind)}") from None


def _number(key: str, body: bytes) -> float:
    try:
        return msgspec.msgpack.decode(body, type=int | float)
    except UNREADABLE:
        raise BadStored(key, "is no number, to which something can be added") from None


def _sum(key: str, value: _Value) -> bytes:
    return _encoded(key, (0 if value.body is None else _number(key, value.body)) + value.added)


def _encoded(key: str, value: object) -> bytes:
    try:
        body = msgspec.msgpack.encode(value)
    except UNWRITABLE:
        # without the cause, which may quote the value
        raise StoreLimit(f"the value of {key!r} holds something that msgpack does not have") from None
    if len(body) > MOST_VALUE_BYTES:
        raise StoreLimit(f"a value has at most {MOST_VALUE_BYTES} bytes, that of {key!r} has {len(body)}")
    return body
