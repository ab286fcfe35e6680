"""The steps of a worker with what handlers keep of a conversation: read while a job runs, written with its end as effects of `settle`.

The job's lease is the guard: nobody else writes it meanwhile, so it needs no version.
"""

import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, TypeVar, cast

from bus.records.kept import (
    EXCHANGE,
    EXCHANGES_KEPT_MS,
    STATE,
    STORE,
    VERSION_BYTES,
    exchange_name,
    open_kept,
    open_sealed,
    pack_kept,
)
from bus.records.records import BadRecord, Job
from bus.records.sealing import BusKey
from bus.steps.opened import Exchange, HistoriesLately
from bus.steps.thread_steps import Effect, ThreadSteps
from bus.transport.client import together
from bus.transport.lua import Argument
from bus.transport.wire import Value

Decoded = TypeVar("Decoded")


class KeptEffects:
    """What a job's end is to write, sealed; without Redis."""

    _bus_key: BusKey
    _agent_id: str

    @cached_property
    def _read_lately(self) -> HistoriesLately:
        return HistoriesLately.here()

    def state_effect(self, job: Job, body: bytes) -> Effect:
        """Returns the effect that writes the state."""
        packed = pack_kept(body, STATE, job.conversation_id, key=self._bus_key, agent_id=self._agent_id)
        return ("state", packed, "", "")

    def exchange_effect(self, job: Job, at_ms: int, body: bytes) -> Effect:
        """Returns the effect that adds what was said in the job."""
        name = exchange_name(at_ms, job.thread_id)
        packed = pack_kept(body, EXCHANGE, job.conversation_id, name, key=self._bus_key, agent_id=self._agent_id)
        return ("exchange", packed, "", "")

    def store_effect(self, name: str, version: bytes | None, body: bytes | None) -> Effect:
        """Returns the effect that puts a value into the store, or with None takes it away.

        `version`: of the value that was read, b"" where there was none; None to write it whatever is there.
        """
        packed: bytes | str = ""
        if body is not None:
            packed = pack_kept(body, STORE, "", name, key=self._bus_key, agent_id=self._agent_id)
        return ("store", name, "*" if version is None else version, packed)

    def _open_stored(self, name: str, packed: bytes | None) -> tuple[bytes, bytes | None]:
        if packed is None:
            return b"", None
        body = open_kept(packed, STORE, "", name, key=self._bus_key, agent_id=self._agent_id)
        return packed[:VERSION_BYTES], body

    def forget_effect(self, job: Job) -> Effect:
        """Returns the effect that deletes all that is kept of the conversation."""
        self._read_lately.forget(job.conversation_id)
        return ("forget", "", "", "")

    def _now_ms(self) -> float:
        return time.time() * 1000

    def _open_state(self, job: Job, packed: bytes) -> bytes:
        return open_kept(packed, STATE, job.conversation_id, key=self._bus_key, agent_id=self._agent_id)

    def newest_exchange(self, job: Job, exchanges: Iterable[Exchange]) -> str:
        """Returns the name of the newest exchange that was there before the job's thread ended; '' if there was none."""
        newest = ""
        for one in exchanges:
            if one.thread_id == job.thread_id:
                break
            if one.thread_id:
                newest = exchange_name(one.at_ms, one.thread_id)
        return newest

    def open_exchanges(
        self, job: Job, exchanges: Iterable[Exchange], decode: Callable[[bytes], Decoded], *, until: str | None = None
    ) -> list[Decoded]:
        """Returns what was said before the job's thread began, an exchange each, oldest first. `decode` is always the same.

        `until`: the newest that an earlier run of the thread has read, '' for none; what came later is left out, and where that one is there no more
        all older ones are gone too. What cannot be read (of a later version, or damaged) is left out: it stays where it is.
        """
        found, from_ms, own = list[Any](), self._now_ms() - EXCHANGES_KEPT_MS, job.thread_id
        for one in exchanges:
            if one.thread_id == own:
                break
            if one.at_ms >= from_ms:
                if one.decoded is None and not self._open_exchange(job, one, decode):
                    continue
                found.append(one.decoded)  # by `decode`, whoever has opened it
            if until is not None and until == exchange_name(one.at_ms, one.thread_id):
                return found
        return found if until is None else []

    def _open_exchange(self, job: Job, exchange: Exchange, decode: Callable[[bytes], object]) -> bool:
        """Opens and decodes an exchange, in whichever thread its handler looks at it; False if it does not open."""
        sealed = exchange.sealed
        if exchange.decoded is None:  # else another thread was first, and has taken what is sealed away
            name = exchange_name(exchange.at_ms, exchange.thread_id)
            try:
                body = open_sealed(sealed, (EXCHANGE, self._agent_id, job.conversation_id, name), self._bus_key)
            except BadRecord:
                return False
            exchange.decoded = decode(body)
            exchange.sealed = b""
        return True


class KeptSteps(KeptEffects, ThreadSteps):
    """The steps of one agent's jobs, with those of what is kept of their conversations."""

    async def read_state(self, job: Job) -> bytes | None:
        """Returns the state of the job's conversation, None if it has none. Raises BadRecord."""
        packed = cast(
            "bytes | None", await self._commands.command("GET", self._keys.kept_in(job.conversation_id).state)
        )
        return None if packed is None else self._open_state(job, packed)

    async def read_exchanges(self, job: Job) -> list[Exchange]:
        """Returns the records of what was said, oldest first; `open_exchanges` opens them."""
        place, asked = self._asked_of_history(job)
        return await self._exchanges(job, place, await self._commands.command(*asked))

    def _asked_of_history(self, job: Job) -> tuple[int, tuple[Argument, ...]]:
        """Returns the command that reads what of a history is not known here, and from which place on that is."""
        place = self._read_lately.ask_from(job.conversation_id)
        return place, ("LRANGE", self._keys.kept_in(job.conversation_id).history, place, -1)

    async def _exchanges(self, job: Job, place: int, answer: Value) -> list[Exchange]:
        """Returns the whole history by its records from `place` on; reads all of it where that does not follow."""
        at, records = job.conversation_id, cast("list[bytes]", answer)
        found = self._read_lately.follow(at, place, records)
        if found is None and place:
            whole = await self._commands.command("LRANGE", self._keys.history(at), 0, -1)
            records = cast("list[bytes]", whole)
            found = self._read_lately.follow(at, 0, records)
        return self._read_lately.begin(at, records) if found is None else found

    async def read_stored(self, name: str) -> tuple[bytes, bytes | None]:
        """Returns a value of the store with its version; b"" and None where there is none. Raises BadRecord."""
        packed = cast("bytes | None", await self._commands.command("HGET", self._keys.store, name))
        return self._open_stored(name, packed)

    async def read_both(self, job: Job) -> tuple[bytes | None, list[Exchange]]:
        """Returns what `read_state` and `read_exchanges` do, in one round trip. Raises BadRecord.

        By two commands: a script would copy all records twice more, and nobody else writes them while the job runs.
        """
        place, asked = self._asked_of_history(job)
        state, answer = await together(self._commands, ("GET", self._keys.kept_in(job.conversation_id).state), asked)
        opened = None if state is None else self._open_state(job, cast("bytes", state))
        return opened, await self._exchanges(job, place, answer)
