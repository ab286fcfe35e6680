"""What handlers keep for the whole agent, under keys of the owner's: `store: Store`.

Changes are written with the end of the job, all or none. What was read and changed is written only if nobody else has changed it meanwhile;
else the run is repeated, with what stands there then. `add` conflicts with nobody.
"""

from collections.abc import Callable
from typing import Any, overload

import msgspec

from bus.records.records import BadRecord, Job
from bus.steps.thread_steps import Effect
from workers.errors import BadState, StoreAfterWords, StoreLimit
from workers.outlet import Outlet, until_redis_answers

MOST_KEY_BYTES = 200
MOST_VALUE_BYTES = 64 * 1024
"""Encoded as msgpack. Of all keys together: 10,000, and 4 MiB (bus/scripts/_library.lua)."""


class _Value(msgspec.Struct):
    """A key as a run has read it, and what it makes of it."""

    version: bytes
    body: bytes | None
    was_read: bool = False
    is_set: bool = False
    new_body: bytes | None = None
    added: float = 0


class StoreRun:
    """The store in one run of a job. `has_words` says whether the run has said something."""

    def __init__(self, job: Job, keeper: Outlet) -> None:
        self.job = job
        self._keeper = keeper
        self._values: dict[str, _Value] = {}
        self.has_words: Callable[[], bool] = _no_words

    async def read(self, key: str) -> _Value:
        if not isinstance(key, str) or not 1 <= len(key.encode()) <= MOST_KEY_BYTES:
            raise StoreLimit(f"a key of the store is a str of 1 to {MOST_KEY_BYTES} bytes in UTF-8")
        if key not in self._values:
            try:
                version, body = await until_redis_answers(lambda: self._keeper.read_stored(key))
            except BadRecord as error:
                raise BadState("this program", f"the store's value of {key!r} cannot be read ({error})") from None
            self._values[key] = _Value(version, body)
        return self._values[key]

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


def _no_words() -> bool:
    """Nothing is said where there is no chat."""
    return False


class Store:
    """The store, as a handler asks for it."""

    def __init__(self, run: StoreRun) -> None:
        self._run = run

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
        if body is None:
            return default
        try:
            return msgspec.msgpack.decode(body, type=type)
        except msgspec.DecodeError:
            raise BadState(getattr(type, "__name__", str(type)), f"the store's value of {key!r} is another") from None

    async def set(self, key: str, value: object) -> None:
        """Sets a key, with None takes it away. Raises StoreLimit; StoreAfterWords where this run has read the key and said something."""
        stored = await self._run.read(key)
        if stored.was_read and self._run.has_words():
            raise StoreAfterWords(key)
        stored.is_set, stored.added = True, 0
        stored.new_body = None if value is None else _encoded(key, value)

    async def add(self, key: str, by: float = 1) -> None:
        """Adds to the number of a key, which begins with 0. Raises BadState where it has no number, StoreLimit."""
        stored = await self._run.read(key)
        if stored.is_set:
            before = 0 if stored.new_body is None else _number(key, stored.new_body)
            stored.new_body = _encoded(key, before + by)
            return
        _sum(key, stored)
        stored.added += by


def _number(key: str, body: bytes) -> float:
    try:
        return msgspec.msgpack.decode(body, type=int | float)
    except msgspec.DecodeError:
        raise BadState("a number", f"the store's value of {key!r} is none to add to") from None


def _sum(key: str, value: _Value) -> bytes:
    return _encoded(key, (0 if value.body is None else _number(key, value.body)) + value.added)


def _encoded(key: str, value: object) -> bytes:
    try:
        body = msgspec.msgpack.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError):
        # without the cause, which may quote the value
        raise StoreLimit(f"the value of {key!r} holds something that msgpack does not have") from None
    if len(body) > MOST_VALUE_BYTES:
        raise StoreLimit(f"a value has at most {MOST_VALUE_BYTES} bytes, that of {key!r} has {len(body)}")
    return body
