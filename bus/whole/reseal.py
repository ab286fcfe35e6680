"""Re-seals every sealed value of a store from the keys of one store secret to those of the next, one after the other.

Each is replaced by a script that changes nothing unless it still finds the value that was read. A value carries its key epoch, so that
a walk can be interrupted anywhere and begun again. Which kinds of key hold sealed values is in bus/records/kinds.py.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

import msgspec

from bus.records.journal import is_entry, joined, words_of
from bus.records.kept import STORE_BYTES_FIELD, decode_kept, is_wait
from bus.records.keys import JOBS_GROUP, REPLIES_GROUP, Keys
from bus.records.kinds import PLAIN_KINDS
from bus.records.records import (
    BadRecord,
    JobRecord,
    ReplyRecord,
    decode_job_record,
    decode_outbox_record,
    decode_reply_record,
    encode_record,
)
from bus.records.saved import pairs
from bus.records.sealing import SealBroken, SealingKey, StoreKeys, epoch_of
from bus.records.timers import decode_timer_record
from bus.steps.policies import PolicyStore
from bus.steps.vault import MAC_BYTES
from bus.transport.at_once import all_of
from bus.transport.client import Commands, keys_like
from bus.transport.lua import Argument

PAGE = 200
MAC_HEX_BYTES = 2 * MAC_BYTES
BY_THEMSELVES = frozenset({"jobs", "replies", "dead", "dead_copy", "seal"})
"""Kinds of a single key, walked after the others; the seal is left to bus/steps/seal.py."""

Write = Callable[[str, Sequence[str], tuple[Argument, ...]], Awaitable[bool]]
"""Runs a script with keys and arguments; returns whether it found the value that was read."""


@dataclass
class Tally:
    """What a walk found: how many values were `turned` to the new keys, how many were `current`, and which keys hold unreadable ones.

    `unknown`: kinds of key that this program does not know. Unreadable dead letters are only counted.
    """

    turned: int = 0
    current: int = 0
    unreadable: list[str] = field(default_factory=list)
    unreadable_dead_letters: int = 0
    unknown: set[str] = field(default_factory=set)


class Turner:
    """Re-seals single values from the old keys to the new ones, without Redis."""

    def __init__(self, old: StoreKeys, new: StoreKeys, agent_id: str) -> None:
        self._old = old
        self._new = new
        self._agent_id = agent_id

    def value(self, sealed: bytes, *place: str | int) -> bytes | None:
        """Re-seals a value of the state key; returns None if it has the new key already. Raises SealBroken."""
        return _turned(self._old.state, self._new.state, sealed, place)

    def record(self, packed: bytes) -> bytes | None:
        """Re-seals the body of a job or reply record; returns None if it has the new key already. Raises BadRecord, SealBroken."""
        record = job_or_reply(packed)
        if isinstance(record, JobRecord):
            sealed = self._body(record.sealed, "job", record.job_id)
        else:
            sealed = self._body(record.sealed, "reply", record.job_id, record.place)
        return None if sealed is None else encode_record(msgspec.structs.replace(record, sealed=sealed))

    def kept(self, packed: bytes) -> bytes | None:
        """Re-seals what a handler keeps; returns None if it has the new key already. Raises BadRecord, SealBroken."""
        record = decode_kept(packed)
        sealed = _turned(self._old.bus, self._new.bus, record.sealed, record.place(self._agent_id))
        return None if sealed is None else msgspec.msgpack.encode(msgspec.structs.replace(record, sealed=sealed))

    def timer(self, packed: bytes) -> bytes | None:
        """Re-seals a timer; returns None if it has the new key already. Raises BadRecord, SealBroken."""
        record = decode_timer_record(packed)
        sealed = _turned(self._old.bus, self._new.bus, record.sealed, record.place(self._agent_id))
        return None if sealed is None else msgspec.msgpack.encode(msgspec.structs.replace(record, sealed=sealed))

    def policy(self, sealed: bytes, name: str) -> bytes | None:
        """Re-seals a text of the policies; returns None if it has the new key already. Raises SealBroken."""
        return _turned(self._old.bus, self._new.bus, sealed, PolicyStore.place(self._agent_id, name))

    def _body(self, sealed: bytes, kind: str, *place: str) -> bytes | None:
        return _turned(self._old.bus, self._new.bus, sealed, (kind, self._agent_id, *place))


def job_or_reply(packed: bytes) -> JobRecord | ReplyRecord:
    """Decodes a record of either shape. Raises BadRecord."""
    try:
        return decode_job_record(packed)
    except BadRecord:
        return decode_reply_record(packed)


def _turned(old: SealingKey, new: SealingKey, sealed: bytes, place: tuple[str | int, ...]) -> bytes | None:
    if epoch_of(sealed) == new.epoch:
        new.open(sealed, *place)
        return None
    return new.seal(old.open(sealed, *place), *place)


class Resealer:
    """Walks the store of one agent, while nobody else has it open."""

    def __init__(self, client: Commands, names: Keys, old: StoreKeys, new: StoreKeys) -> None:
        self._client = client
        self._names = names
        self._turner = Turner(old, new, names.agent_id)

    async def survey(self) -> Tally:
        """Returns what a walk would do; writes nothing. Raises RedisFailed."""
        return await self._walk(_write_nothing)

    async def turn(self) -> Tally:
        """Re-seals what is under the old keys; repeat it until it finds nothing. Raises RedisFailed."""
        return await self._walk(self._run_script)

    async def _walk(self, write: Write) -> Tally:
        walk = _Walk(self._client, self._names, self._turner, write)
        async with aclosing(keys_like(self._client, self._names.pattern, PAGE)) as pages:
            async for page in pages:
                await walk.keys(page)
        # After the out-boxes: re-sealing a head has replaced its entry in `replies` too.
        await walk.stream(self._names.replies, REPLIES_GROUP, "reply")
        await walk.stream(self._names.jobs, JOBS_GROUP, "entry")
        await walk.dead_letters()
        return walk.tally

    async def _run_script(self, script: str, keys: Sequence[str], arguments: tuple[Argument, ...]) -> bool:
        return await self._client.script(script, keys, *arguments) == 1


async def _write_nothing(_script: str, _keys: Sequence[str], _arguments: tuple[Argument, ...]) -> bool:
    return True


class _Walk:
    """One walk over the store: reads each value, and writes by the function that it was given."""

    def __init__(self, client: Commands, names: Keys, turner: Turner, write: Write) -> None:
        self._client = client
        self._names = names
        self._turner = turner
        self._write = write
        self.tally = Tally()
        self._kinds: Mapping[str, Callable[[str], Awaitable[None]]] = {
            "conv": self._retry,
            "state": self._state,
            "emitted": self._emitted,
            "waits": self._waits,
            "timers": self._timers,
            "history": self._history,
            "store": self._store,
            "box": self._mailbox,
            "parked": self._mailbox,
            "placed": self._mailbox,
            "together": self._list,
            "outside": self._list,
            "policy": self._policy,
            "grant_log": self._grant_log,
        }

    async def keys(self, page: list[str]) -> None:
        """Walks a page of keys at once; the client sends the commands together."""
        await all_of(self._key, page)

    async def _key(self, key: str) -> None:
        kind, ids = self._names.split(key)
        match kind:
            case "session" | "owner" | "member" | "group":
                await self._versioned(key)
            case "signed_prekeys" | "one_time_prekeys" | "restored_signed_prekeys" | "restored_one_time_prekeys":
                for prekey_id, sealed in (await self._hash(key)).items():
                    await self._field(key, prekey_id.decode(), sealed, (key, int(prekey_id)))
            case "quarantined":
                sealed = (await self._hash(key)).get(b"plaintext", b"")
                if sealed:
                    await self._field(key, "plaintext", sealed, ("quarantine", self._names.agent_id, ids))
            case "out":
                await self._out_box(key, ids)
            case _ if kind in self._kinds:
                await self._kinds[kind](key)
            case _ if kind not in PLAIN_KINDS | BY_THEMSELVES:
                self.tally.unknown.add(kind)

    async def _versioned(self, key: str) -> None:
        found = await self._hash(key)
        if b"b" in found:
            await self._field(key, "b", found[b"b"], (key, int(found.get(b"v", 0))))

    async def _field(self, key: str, name: str, sealed: bytes, place: tuple[str | int, ...]) -> None:
        turned = self._value(key, sealed, place)
        if turned is not None:
            await self._put("reseal_field", [key, self._names.write_count], name, sealed, turned)

    async def _retry(self, key: str) -> None:
        found = await self._client.command("HMGET", key, "retry", "kept")
        packed, kept = cast("list[bytes | None]", found)
        turned = None if packed is None else self._record(key, packed)
        if packed is not None and turned is not None:
            await self._put("reseal_field", [key, self._names.write_count], "retry", packed, turned)
        if kept is not None:
            await self._journals(key)

    async def _journals(self, key: str) -> None:
        """Re-seals the journals of dead letters that were brought back and have not run since."""
        for name, values in (await self._hash(key)).items():
            turned = self._values(key, values) if name.startswith(b"j:") else values
            if turned != values:
                await self._put("reseal_field", [key, self._names.write_count], name, values, turned)

    async def _emitted(self, key: str) -> None:
        """Re-seals the journal of a running thread."""
        for name, packed in (await self._hash(key)).items():
            turned = self._entry(key, packed) if is_entry(name, packed) else None
            if turned is not None:
                await self._put("reseal_field", [key, self._names.write_count], name, packed, turned)

    async def _waits(self, key: str) -> None:
        for name, packed in (await self._hash(key)).items():
            turned = self._turned(key, packed, self._turner.kept) if is_wait(name) else None
            if turned is not None:
                await self._put("reseal_field", [key, self._names.write_count], name, packed, turned)

    async def _state(self, key: str) -> None:
        packed = cast("bytes | None", await self._client.command("GET", key))
        turned = None if packed is None else self._turned(key, packed, self._turner.kept)
        if packed is not None and turned is not None:
            await self._put("reseal_string", [key, self._names.write_count], packed, turned)

    async def _timers(self, key: str) -> None:
        for timer_id, packed in (await self._hash(key)).items():
            turned = self._turned(key, packed, self._turner.timer)
            if turned is not None:
                await self._put("reseal_field", [key, self._names.write_count], timer_id.decode(), packed, turned)

    async def _store(self, key: str) -> None:
        for name, packed in (await self._hash(key)).items():
            turned = self._turned(key, packed, self._turner.kept) if name != STORE_BYTES_FIELD.encode() else None
            if turned is not None:
                await self._put("reseal_field", [key, self._names.write_count], name, packed, turned)

    async def _history(self, key: str) -> None:
        for index, packed in enumerate(cast("list[bytes]", await self._client.command("LRANGE", key, 0, -1))):
            turned = self._turned(key, packed, self._turner.kept)
            if turned is not None:
                await self._put("reseal_item", [key, self._names.write_count], index, packed, turned)

    async def _mailbox(self, key: str) -> None:
        for packed in cast("list[bytes]", await self._client.command("ZRANGE", key, 0, -1)):
            turned = self._record(key, packed)
            if turned is not None:
                await self._put("reseal_member", [key, self._names.write_count], packed, turned)

    async def _list(self, key: str) -> None:
        for index, packed in enumerate(cast("list[bytes]", await self._client.command("LRANGE", key, 0, -1))):
            turned = self._record(key, packed)
            if turned is not None:
                await self._put("reseal_item", [key, self._names.write_count], index, packed, turned)

    async def _policy(self, key: str) -> None:
        """Re-seals the texts of the policies; an unreadable one is left, since workers publish them anew at their start."""
        for name in ("refusal", "apology"):
            sealed = (await self._hash(key)).get(name.encode(), b"")
            if not sealed:
                continue
            try:
                turned = self._turner.policy(sealed, name)
            except SealBroken:
                continue  # nobody can read it, and nothing is lost
            self._count(turned)
            if turned is not None:
                await self._put("reseal_field", [key, self._names.write_count], name, sealed, turned)

    async def _out_box(self, key: str, conversation_id: str) -> None:
        names = self._names
        keys = [key, names.replies, names.conversation(conversation_id), names.write_count]
        for index, packed in enumerate(cast("list[bytes]", await self._client.command("LRANGE", key, 0, -1))):
            turned = self._record(key, packed)
            if turned is not None:
                await self._put("reseal_reply", keys, index, packed, turned)

    async def _grant_log(self, key: str) -> None:
        """Re-seals the grant log: each item is a MAC in hex and an entry that is sealed to the MAC before it."""
        previous = bytes(MAC_BYTES).hex()
        for index, row in enumerate(cast("list[bytes]", await self._client.command("LRANGE", key, 0, -1))):
            mac, sealed = row[:MAC_HEX_BYTES], row[MAC_HEX_BYTES:]
            turned = self._value(key, sealed, (key, previous))
            if turned is not None:
                await self._put("reseal_item", [key, self._names.write_count], index, row, mac + turned)
            previous = mac.decode("ascii", "replace")

    async def stream(self, key: str, group: str, field_of_conversation: str) -> None:
        """Re-seals the entries of a stream one after the other, so that their order stays."""
        async with aclosing(self._entries(key)) as entries:
            async for entry, fields in entries:
                packed = dict(pairs(fields)).get(b"r", b"")
                turned = self._record(key, packed)
                if turned is not None:
                    conversation = self._names.conversation(job_or_reply(packed).conversation_id)
                    keys = [key, conversation, self._names.write_count]
                    await self._put("reseal_entry", keys, entry, packed, turned, group, field_of_conversation)

    async def dead_letters(self) -> None:
        """Re-seals all dead letters into a copy that replaces the stream, so that they keep their ids."""
        names, copied, newest = self._names, 0, b""
        before = self.tally.turned
        await self._put("reseal_copy", [names.dead_copy], "")
        async with aclosing(self._entries(names.dead)) as entries:
            async for entry, fields in entries:
                copy = [part for name, value in pairs(fields) for part in (name, self._dead_value(name, value))]
                await self._put("reseal_copy", [names.dead_copy], entry, *copy)
                copied, newest = copied + 1, entry
        if self.tally.turned > before:
            await self._put("reseal_swap", [names.dead, names.dead_copy, names.write_count], copied, newest)
        else:
            await self._put("reseal_copy", [names.dead_copy], "")

    def _dead_value(self, name: bytes, value: bytes) -> bytes:
        if name == b"j":
            return self._values(self._names.dead, value)
        if name != b"r" or is_outbox_record(value):  # an outbox record holds ciphertext only
            return value
        return self._record(self._names.dead, value) or value

    async def _entries(self, key: str) -> AsyncGenerator[tuple[bytes, list[bytes]]]:
        """Yields the present entries of the stream, without those that the walk adds."""
        newest = cast("list[tuple[bytes, object]]", await self._client.command("XREVRANGE", key, "+", "-", "COUNT", 1))
        start: bytes = b"-"
        while newest:
            answer = await self._client.command("XRANGE", key, start, newest[0][0], "COUNT", PAGE)
            rows = cast("list[tuple[bytes, list[bytes]]]", answer)
            for entry, fields in rows:
                yield entry, fields
            if len(rows) < PAGE:
                return
            start = b"(" + rows[-1][0]

    def _value(self, key: str, sealed: bytes, place: tuple[str | int, ...]) -> bytes | None:
        try:
            turned = self._turner.value(sealed, *place)
        except SealBroken:
            self.tally.unreadable.append(key)
            return None
        self._count(turned)
        return turned

    def _values(self, key: str, values: bytes) -> bytes:
        """Returns the journal of a dead letter with its entries re-sealed."""
        words = words_of(values)
        for at in range(0, len(words), 2):
            if is_entry(words[at], words[at + 1]):
                words[at + 1] = self._entry(key, words[at + 1]) or words[at + 1]
        return joined(words)

    def _entry(self, key: str, packed: bytes) -> bytes | None:
        return self._turned(key, packed, self._turner.kept)

    def _record(self, key: str, packed: bytes) -> bytes | None:
        return self._turned(key, packed, self._turner.record)

    def _turned(self, key: str, packed: bytes, turn: Callable[[bytes], bytes | None]) -> bytes | None:
        try:
            turned = turn(packed)
        except (BadRecord, SealBroken):
            if key == self._names.dead:
                self.tally.unreadable_dead_letters += 1
            else:
                self.tally.unreadable.append(key)
            return None
        self._count(turned)
        return turned

    def _count(self, turned: bytes | None) -> None:
        self.tally.turned += turned is not None
        self.tally.current += turned is None

    async def _hash(self, key: str) -> dict[bytes, bytes]:
        return dict(pairs(cast("list[bytes]", await self._client.command("HGETALL", key))))

    async def _put(self, script: str, keys: Sequence[str], *arguments: Argument) -> None:
        await self._write(script, keys, arguments)  # a value that has changed meanwhile is left to the next walk


def is_outbox_record(packed: bytes) -> bool:
    """Returns whether it is an outbox record, which holds ciphertext only."""
    try:
        decode_outbox_record(packed)
    except BadRecord:
        return False
    return True
