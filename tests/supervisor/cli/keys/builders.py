"""A store with a value of every sealed kind, and a look at all of them that knows nothing of rotations."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

from bus.memory.world import size_of
from bus.records.journal import is_entry, words_of
from bus.records.kept import (
    DAY_MS,
    EXCHANGE,
    STATE,
    STORE,
    WAIT,
    decode_kept,
    exchange_name,
    exchanged_ms,
    open_kept,
    pack_kept,
    size_of_exchange,
)
from bus.records.keys import REPLIES_GROUP, Keys
from bus.records.records import (
    SCHEMA_VERSION,
    BadRecord,
    InboundMessage,
    OutboxRecord,
    Reply,
    ReplyPlace,
    ReplyRecord,
    decode_outbox_record,
    decode_reply_record,
    open_reply,
    pack_job,
    pack_placed_job,
    pack_reply,
    unpack_job,
)
from bus.records.saved import pairs
from bus.records.sealing import SealBroken, StoreKeys
from bus.records.timers import Timer, open_timer, pack_timer
from bus.steps.jobs import JobStore
from bus.steps.letters import DeadLetters
from bus.steps.outbox import Committed, Outbox
from bus.steps.placing import Placing
from bus.steps.policies import Policies, PolicyStore
from bus.steps.store import Arrival, InboundStore, SessionWrite, Source, now_ms
from bus.steps.vault import LedgerStep, Vault, Versioned
from bus.transport.client import RedisClient
from bus.transport.readers import RedisStreamReader, StreamEntry
from bus.whole.reseal import job_or_reply
from tests.supervisor.settings.environment import AGENT_ID

KEPT: dict[str, tuple[str | int, ...]] = {STATE: ("GET",), EXCHANGE: ("LRANGE", 0, -1), STORE: ("HGET", "bread")}
"""How the records of each kind are read."""

CONSUMER = "supervisor-of-the-test"
LEDGER_MACS = (bytes(32), b"\x01" * 32, b"\x02" * 32)
ONE_TIME_PREKEYS = 3


async def fill(client: RedisClient, keys: StoreKeys, *, sessions: int = 2) -> None:
    """Jobs running, waiting, due and dead; replies waiting, committed and dropped; sessions, owners, prekeys, quarantine."""
    filling = _Filling(client, keys)
    replies = RedisStreamReader(client, stream=filling.names.replies, group=REPLIES_GROUP, consumer=CONSUMER)
    await replies.make_group()
    worker = JobStore(client.url, AGENT_ID, keys.bus, "worker-of-the-test")
    await worker.open()
    replies.start()
    try:
        await filling.jobs(worker)
        await filling.replies(replies)
    finally:
        await replies.close()
        await worker.close()
    await filling.values(sessions)


@dataclass
class _Filling:
    client: RedisClient
    keys: StoreKeys
    names: Keys = field(default_factory=lambda: Keys(AGENT_ID))

    @property
    def store(self) -> InboundStore:
        return InboundStore(self.client, AGENT_ID, CONSUMER)

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.client, AGENT_ID, CONSUMER)

    async def jobs(self, worker: JobStore) -> None:
        for conversation in ("busy", "due", "dead", "answered"):
            for seq in (1, 2, 3):
                await self.accept(conversation, seq)
        held: dict[str, Callable[[], Awaitable[object]]] = {}
        jobs = {job.conversation_id: job for job in [*await worker.take(2), *await worker.take(2)]}
        for conversation in ("busy", "answered", "dead"):
            for number in (1, 2, 3):
                await worker.emit(jobs[conversation], str(number), _reply(f"reply {number} in {conversation}"))
        for conversation in ("busy", "due", "dead"):
            job = jobs[conversation]
            await worker.note(job, "start#1", worker.seal_entry(job, "start#1", f"noted in {conversation}".encode()))
        wait = pack_kept(b"what it needs", WAIT, "answered", "card", key=self.keys.bus, agent_id=AGENT_ID)
        await self.client.command("HSET", self.names.waits("answered"), "card", wait, "from:card", 2)
        for name, more in (("waits_open", 1), ("waits", size_of(wait))):
            await self.client.command("HINCRBY", self.names.load, name, more)
        held["due"] = lambda: worker.fail(jobs["due"], "handler", 3_600_000)
        held["dead"] = lambda: worker.fail(jobs["dead"], "handler", None)
        for end in held.values():
            await end()

    async def replies(self, reader: RedisStreamReader) -> None:
        taken: dict[str, StreamEntry] = {}
        while len(taken) < 3:
            for entry in await reader.read(10):
                taken[decode_reply_record(entry.fields["r"]).conversation_id] = entry
        await self.commit(taken["answered"], "answered")
        await self.outbox.drop_reply("dead", "too_large", entry_id=taken["dead"].id)
        [again] = await reader.read(1)
        await self.commit(again, "dead")
        await self.outbox.drop_reply("dead", "refused", client_message_id="dead-1")

    async def values(self, sessions: int) -> None:
        vault = Vault(self.client, self.names, self.keys.state)
        for number in range(sessions):
            peer = ("person", f"device:{number}")
            write = vault.seal_session(*peer, 0, b"record %d" % number)
            key = self.names.session(*peer)
            await self.client.command("HSET", key, "v", write.version + 1, "b", write.sealed, "e", 0)
        apart = self._packed("busy", 7), self._packed("busy", 8)
        await self.client.command("ZADD", self.names.parked("busy"), 7, apart[0])
        await self.client.command("RPUSH", self.names.together("busy"), apart[1])
        state = pack_kept(b"what was kept", STATE, "busy", key=self.keys.bus, agent_id=AGENT_ID)
        await self.client.command("SET", self.names.state("busy"), state)
        await Placing(self.client, self.names).place(self._placed("busy"))
        timer = Timer(id="digest", conversation_id="busy", due_ms=1 << 42, kind="reminder", name="digest", data=b"\x01")
        packed = pack_timer(timer, key=self.keys.bus, agent_id=AGENT_ID)
        await self.client.command("HSET", self.names.timers("busy"), timer.id, packed)
        await self.client.command("ZADD", self.names.alarms, timer.due_ms, f"busy\x00{timer.id}")
        stored = pack_kept(b"a value", STORE, "", "bread", key=self.keys.bus, agent_id=AGENT_ID)
        await self.client.command("HSET", self.names.store, "bread", stored, "", len(stored) + 200)
        for number in (1, 2):
            at = exchange_name(now_ms(), f"thread {number}")
            said = pack_kept(b"said %d" % number, EXCHANGE, "busy", at, key=self.keys.bus, agent_id=AGENT_ID)
            await self.client.command("RPUSH", self.names.history("busy"), said)
            day = exchanged_ms(said) // DAY_MS
            await self.client.command("HINCRBY", self.names.histories, day, size_of_exchange(said))
        policies = Policies(refusal="too many", apology="sorry")
        await PolicyStore(self.client, self.names, self.keys.bus).publish(policies)
        line = self._said("busy", "outside:1"), self._said("due", "outside:2")
        await self.client.command("RPUSH", self.names.outside, *line)
        await self.client.command("HINCRBY", self.names.load, "outside", sum(map(size_of, line)))
        await self.client.command("HSET", self.names.send_keys(7), b"name", b"digest")
        await vault.put_member("member", await vault.member("member"), b"a member's pair")
        await vault.put_group("group", await vault.group("group"), b"a group's keys")
        await vault.put_owner("person", await vault.owner("person"), b"row of a person")
        for previous, mac in pairwise(LEDGER_MACS):
            step = LedgerStep(previous, b"entry before " + mac[:1], mac)
            assert await vault.put_grant("other", await vault.owner("other"), b"row", step)
        signed = await vault.next_prekey_ids("signed", 1)
        await vault.put_prekeys(self.names.signed_prekeys, {signed: b"signed prekey"})
        first = await vault.next_prekey_ids("one_time", ONE_TIME_PREKEYS)
        made = {first + number: b"one-time %d" % number for number in range(ONE_TIME_PREKEYS)}
        await vault.put_prekeys(self.names.one_time_prekeys, made)
        await vault.put_prekeys(self.names.restored_signed_prekeys, {7: b"signed prekey of before"})
        await vault.put_prekeys(self.names.restored_one_time_prekeys, {9: b"one-time prekey of before"})
        sealed = self.keys.state.seal(b"unusable content", "quarantine", AGENT_ID, "message-q")
        arrival = Arrival(
            conversation_id="busy",
            source=Source.POLL,
            seq=9,
            signed_id=os.urandom(8),
            message_ms=1,
            peer=("person", "q"),
            message_id="message-q",
        )
        await self.client.command("HSET", self.names.cards("busy"), "card", "1\x1fbusy-1\x1f1\x1finfo")
        await self.store.quarantine(arrival, reason="bad_payload", frame=b"{}", plaintext=sealed)

    async def accept(self, conversation: str, seq: int) -> None:
        job = self._packed(conversation, seq)
        arrival = Arrival(
            conversation_id=conversation,
            source=Source.PUSH,
            seq=seq,
            signed_id=os.urandom(8),
            message_ms=seq,
            peer=("person", conversation),
            person="person",
        )
        outcome = await self.store.accept(arrival, job)
        assert outcome.is_new

    def _packed(self, conversation: str, seq: int) -> bytes:
        message = InboundMessage(
            message_id=f"{conversation}-{seq}",
            conversation_id=conversation,
            conversation_type="h2a",
            sender_id="person",
            sender_type="human",
            payload={"type": "text", "text": f"message {seq} in {conversation}"},
        )
        return pack_job(message, seq=seq, accepted_ms=1, message_ms=seq, key=self.keys.bus, agent_id=AGENT_ID)

    def _placed(self, conversation: str) -> bytes:
        content = InboundMessage(
            message_id="timer:digest:1",
            conversation_id=conversation,
            conversation_type="h2a",
            sender_id="person",
            sender_type="human",
            payload={"type": "reminder", "text": "a reminder"},
        )
        return pack_placed_job("reminder", content, placed_ms=1, key=self.keys.bus, agent_id=AGENT_ID)

    def _said(self, conversation: str, message_id: str) -> bytes:
        place = ReplyPlace(message_id, conversation, "0", 1)
        return pack_reply(place, _reply("from outside"), emitted_ms=1, key=self.keys.bus, agent_id=AGENT_ID)

    async def commit(self, entry: StreamEntry, conversation: str) -> None:
        message_id = f"{conversation}-1"
        record = OutboxRecord(SCHEMA_VERSION, message_id, conversation, "text", "ciphertext", None, "h2a", "text", 1)
        commit = await self.outbox.commit(
            answers=(message_id, "0"),
            entry_id=entry.id,
            conversation_id=conversation,
            client_message_id=message_id,
            record=record,
            sessions=[SessionWrite("person", f"of {conversation}", 0, self.session_of(conversation))],
            epoch=0,
            rate_per_second=0,
        )
        assert commit.outcome is Committed.COMMITTED

    def session_of(self, conversation: str) -> bytes:
        return self.keys.state.seal(b"a session", self.names.session("person", f"of {conversation}"), 1)


async def opened(client: RedisClient, keys: StoreKeys) -> dict[str, object]:
    """Everything that is sealed, opened with these keys, by where it belongs. Raises SealBroken, BadRecord."""
    names, vault = Keys(AGENT_ID), Vault(client, Keys(AGENT_ID), keys.state)
    found: dict[str, object] = {
        "signed": await vault.prekeys(names.signed_prekeys),
        "one time": await vault.prekeys(names.one_time_prekeys),
        "restored signed": await vault.prekeys(names.restored_signed_prekeys),
        "restored one time": await vault.prekeys(names.restored_one_time_prekeys),
        "grants": await vault.grant_log(),
    }
    versioned = {"owner": vault.owner, "member": vault.member, "group": vault.group}
    for raw in sorted(cast("list[bytes]", await client.command("KEYS", names.pattern))):
        key = raw.decode()
        kind, ids = names.split(key)
        if kind == "session":
            owner, _, device = ids.partition(":")
            version, sealed = cast("list[bytes]", await client.command("HMGET", key, "v", "b"))
            found[key] = vault.open_session(owner, device, int(version), sealed)
        elif kind in versioned:
            found[key] = _present(await versioned[kind](ids))
        elif kind in ("box", "parked", "placed"):
            rows = cast("list[bytes]", await client.command("ZRANGE", key, 0, -1, "WITHSCORES"))
            found[key] = [(_text(packed, keys), float(seq)) for packed, seq in zip(rows[::2], rows[1::2], strict=True)]
        elif kind == "timers":
            rows = cast("list[bytes]", await client.command("HGETALL", key))
            found[key] = [
                open_timer(packed, ids, name.decode(), key=keys.bus, agent_id=AGENT_ID)
                for name, packed in zip(rows[::2], rows[1::2], strict=True)
            ]
        elif kind == "policy":
            policies = PolicyStore(client, names, keys.bus)
            found[key] = (await policies.refusal(), await policies.apology())
        elif kind in ("out", "together", "outside"):
            found[key] = [
                _text(packed, keys) for packed in cast("list[bytes]", await client.command("LRANGE", key, 0, -1))
            ]
        elif kind == "conv":
            retry = cast("bytes | None", await client.command("HGET", key, "retry"))
            found[key] = None if retry is None else _text(retry, keys)
        elif kind in ("waits", "emitted"):
            found[key] = _thread(cast("list[bytes]", await client.command("HGETALL", key)), keys)
        elif kind == "quarantined":
            sealed = cast(bytes, await client.command("HGET", key, "plaintext"))
            found[key] = keys.state.open(sealed, "quarantine", AGENT_ID, ids)
        elif kind in KEPT:
            found[key] = await _kept(client, key, kind, ids, keys)
        elif kind == "sent":
            found[key] = await client.command("HGETALL", key)
    found["jobs"] = sorted(_text(packed, keys) for _, packed in await _stream(client, names.jobs))
    found["replies"] = sorted(_text(packed, keys) for _, packed in await _stream(client, names.replies))
    found["dead"] = [
        (letter.id, letter.reason, letter.died_ms, _text(letter.record, keys), _thread(words_of(letter.values), keys))
        for letter in await DeadLetters(client, names).first()
    ]
    return found


async def _kept(client: RedisClient, key: str, kind: str, ids: str, keys: StoreKeys) -> list[bytes]:
    """What handlers keep."""
    answer = await client.command(*KEPT[kind][:1], key, *KEPT[kind][1:])
    records = cast("list[bytes]", answer if isinstance(answer, list) else [answer])
    return [open_kept(one, kind, ids, decode_kept(one).name, key=keys.bus, agent_id=AGENT_ID) for one in records]


async def kinds(client: RedisClient) -> set[str]:
    """Of the keys that are there."""
    names = Keys(AGENT_ID)
    return {names.split(raw.decode())[0] for raw in cast("list[bytes]", await client.command("KEYS", names.pattern))}


async def loose_ends(client: RedisClient) -> list[str]:
    """Conversations whose job or reply under way is not what stands in the stream."""
    names, wrong = Keys(AGENT_ID), []
    jobs, replies = dict(await _stream(client, names.jobs)), dict(await _stream(client, names.replies))
    for raw in cast("list[bytes]", await client.command("KEYS", names.conversation("*"))):
        conversation = names.split(raw.decode())[1]
        entry, reply = cast("list[bytes | None]", await client.command("HMGET", raw, "entry", "reply"))
        if entry not in (None, b"due") and entry not in jobs:
            wrong.append(f"job of {conversation}")
        head = await client.command("LINDEX", names.out_box(conversation), 0)
        if reply not in (None, b"sent") and (reply is None or replies.get(reply) != head):
            wrong.append(f"reply of {conversation}")
    return wrong


def _text(packed: bytes, keys: StoreKeys) -> str:
    """What a record says."""
    try:
        return decode_outbox_record(packed).encrypted_payload
    except BadRecord:
        record = job_or_reply(packed)
    if isinstance(record, ReplyRecord):
        reply = open_reply(record, key=keys.bus, agent_id=AGENT_ID)
        return f"{record.emitted_ms} {record.place} {reply.payload['text']}"
    return unpack_job(packed, entry_id="", attempt=1, deliveries=1, key=keys.bus, agent_id=AGENT_ID).message.text


def _thread(flat: list[bytes], keys: StoreKeys) -> dict[bytes, bytes]:
    """What threads have noted, and what they wait for."""
    records = [(name, decode_kept(value)) for name, value in pairs(flat) if is_entry(name, value) or name == b"card"]
    return {name: keys.bus.open(record.sealed, *record.place(AGENT_ID)) for name, record in records}


async def _stream(client: RedisClient, key: str) -> list[tuple[bytes, bytes]]:
    rows = cast("list[tuple[bytes, list[bytes]]]", await client.command("XRANGE", key, "-", "+"))
    return [(entry, dict(zip(flat[::2], flat[1::2], strict=True))[b"r"]) for entry, flat in rows]


def _reply(text: str) -> Reply:
    return Reply(kind="message", content_type="text", payload={"type": "text", "text": text})


def _present(read: Versioned) -> Versioned:
    """The supervisor goes on without a value that does not open; here it is what is looked for."""
    if read.value is None:
        raise SealBroken("a value does not open")
    return read
