"""The steps of a worker with what handlers keep of a conversation: read while a job runs, written with its end as effects of `settle`.

The job's lease is the guard: nobody else writes it meanwhile, so it needs no version.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TypeVar, cast

from bus.records.kept import (
    EXCHANGE,
    EXCHANGES_KEPT_MS,
    STATE,
    STORE,
    VERSION_BYTES,
    KeptRecord,
    decode_kept,
    exchange_name,
    open_kept,
    open_record,
    pack_kept,
    when_and_where,
)
from bus.records.records import BadRecord, Job
from bus.records.sealing import BusKey
from bus.steps.opened import OpenedExchange, OpenedExchanges, RecordsLately
from bus.steps.thread_steps import Effect, ThreadSteps
from bus.transport.client import together
from bus.transport.lua import Argument
from bus.transport.wire import Value

Decoded = TypeVar("Decoded")

TAIL = 4
"""So many of a history's newest records are read where the rest is known: more than one other worker may have served the conversation since."""


class KeptEffects:
    """What a job's end is to write, sealed; without Redis."""

    _bus_key: BusKey
    _agent_id: str

    @cached_property
    def _opened_lately(self) -> OpenedExchanges:
        return OpenedExchanges()

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

    @cached_property
    def _read_lately(self) -> RecordsLately:
        return RecordsLately()

    def forget_effect(self, job: Job) -> Effect:
        """Returns the effect that deletes all that is kept of the conversation."""
        self._opened_lately.forget(job.conversation_id)
        self._read_lately.forget(job.conversation_id)
        return ("forget", "", "", "")

    def _now_ms(self) -> float:
        return time.time() * 1000

    def _open_state(self, job: Job, packed: bytes) -> bytes:
        return open_kept(packed, STATE, job.conversation_id, key=self._bus_key, agent_id=self._agent_id)

    def newest_exchange(self, job: Job, records: Iterable[bytes]) -> str:
        """Returns the name of the newest exchange that was there before the job's thread ended; '' if there was none."""
        newest = ""
        for packed in records:
            try:
                at_ms, thread_id = when_and_where(decode_kept(packed))
            except BadRecord:
                continue
            if thread_id == job.thread_id:
                break
            newest = exchange_name(at_ms, thread_id)
        return newest

    def open_exchanges(
        self, job: Job, records: Iterable[bytes], decode: Callable[[bytes], Decoded], *, until: str | None = None
    ) -> list[Decoded]:
        """Returns what was said before the job's thread began, an exchange each, oldest first. `decode` is always the same.

        `until`: the newest that an earlier run of the thread has read, '' for none; what came later is left out, and where that one is there no more
        all older ones are gone too. What cannot be read (of a later version, or damaged) is left out: it stays where it is.
        """
        found, from_ms, is_until_there = list[Decoded](), self._now_ms() - EXCHANGES_KEPT_MS, until is None
        for packed in records:
            version = packed[:VERSION_BYTES]
            opened = self._opened_lately.get(version, job.conversation_id)
            try:
                if opened is None:
                    record = decode_kept(packed)
                    at_ms, thread_id = when_and_where(record)
                else:
                    at_ms, thread_id = opened.at_ms, opened.thread_id
                if thread_id == job.thread_id:
                    break
                if at_ms >= from_ms:
                    if opened is None:
                        opened = self._open_exchange(job, record)
                        self._opened_lately.put(version, opened)
                    if opened.decoded is None:
                        opened.decoded = decode(opened.body)
                    found.append(cast("Decoded", opened.decoded))
                if until is not None and until == exchange_name(at_ms, thread_id):
                    is_until_there = True
                    break
            except BadRecord:
                continue
        return found if is_until_there else []

    def _open_exchange(self, job: Job, record: KeptRecord) -> OpenedExchange:
        place = (EXCHANGE, self._agent_id, job.conversation_id, record.name)
        at_ms, thread_id = when_and_where(record)
        return OpenedExchange(job.conversation_id, at_ms, thread_id, open_record(record, place, self._bus_key))


class KeptSteps(KeptEffects, ThreadSteps):
    """The steps of one agent's jobs, with those of what is kept of their conversations."""

    async def read_state(self, job: Job) -> bytes | None:
        """Returns the state of the job's conversation, None if it has none. Raises BadRecord."""
        packed = cast("bytes | None", await self._commands.command("GET", self._keys.state(job.conversation_id)))
        return None if packed is None else self._open_state(job, packed)

    async def read_exchanges(self, job: Job) -> list[bytes]:
        """Returns the records of what was said, oldest first; `open_exchanges` opens them."""
        return await self._records(job, await together(self._commands, *self._asked_of_history(job)))

    def _asked_of_history(self, job: Job) -> list[tuple[Argument, ...]]:
        """Returns the commands that read a history: all of it, or what tells how it has changed since it was read here."""
        key = self._keys.history(job.conversation_id)
        if not self._read_lately.knows(job.conversation_id):
            return [("LRANGE", key, 0, -1)]
        return [("LLEN", key), ("LRANGE", key, -TAIL, -1)]

    async def _records(self, job: Job, answers: Sequence[Value]) -> list[bytes]:
        """Returns the whole history by what was answered, with what was read here lately; reads all of it where that does not go together."""
        at, *_, found = job.conversation_id, *answers
        records: list[bytes] | None = cast("list[bytes]", found)
        if len(answers) > 1:
            records = self._read_lately.whole(at, cast(int, answers[0]), cast("list[bytes]", found))
        if records is None:
            self._read_lately.forget(at)
            [found] = await together(self._commands, *self._asked_of_history(job))
            records = cast("list[bytes]", found)
        self._read_lately.put(at, records)
        return records

    async def read_stored(self, name: str) -> tuple[bytes, bytes | None]:
        """Returns a value of the store with its version; b"" and None where there is none. Raises BadRecord."""
        packed = cast("bytes | None", await self._commands.command("HGET", self._keys.store, name))
        return self._open_stored(name, packed)

    async def read_both(self, job: Job) -> tuple[bytes | None, list[bytes]]:
        """Returns what `read_state` and `read_exchanges` do, in one round trip. Raises BadRecord.

        By two commands: a script would copy all records twice more, and nobody else writes them while the job runs.
        """
        get = ("GET", self._keys.state(job.conversation_id))
        state, *answers = await together(self._commands, get, *self._asked_of_history(job))
        opened = None if state is None else self._open_state(job, cast("bytes", state))
        return opened, await self._records(job, answers)
