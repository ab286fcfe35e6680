"""Writes what a backup holds into an empty place of a store, piece by piece, while nobody has it open.

What is not saved is made anew here (bus/records/saved.py lists it): entries of `jobs` and `replies` get new ids, also where they are
referred to; a job that was under way counts one more delivery, so that its next run asks what was sent; counters are counted; the epoch
is raised, so that no restored session encrypts; prekeys are kept apart for 30 days.
"""

import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import cast

from bus.records.kept import DAY_MS, EXCHANGES_KEPT_MS, OVERHEAD_BYTES, exchanged_ms, is_wait, size_of_exchange
from bus.records.keys import Keys
from bus.records.records import BadRecord, decode_job_record, decode_reply_record
from bus.records.saved import Saved, SavedConversation, Value, Waiting, pairs
from bus.records.sealing import SealBroken, StateKey
from bus.records.timers import decode_timer_record
from bus.steps.outside import KEPT_SECONDS
from bus.steps.prekey_wish import ROTATE_THROUGH
from bus.steps.store import now_ms
from bus.steps.vault import MAC_BYTES
from bus.transport.at_once import all_of
from bus.transport.client import Commands
from bus.transport.lua import Argument

PREKEYS_READ_SECONDS = 30 * 86_400
CARDS_KEPT_SECONDS = 90 * 86_400  # as bus/scripts/jobs/emit_card.lua keeps them after the last one
MOST_ID = 2**32 - 1
ID_ROOM = 1 << 26
"""New prekey ids begin at least so far from the end of the ids and from every restored id."""
FEWEST_ROOM = 1 << 20
PAGE = 8  # records of up to a mebibyte


PLAIN_HASHES = frozenset(
    {"seal", "policy", "group", "member", "session", "owner", "held", "cards", "send_keys", "store"}
)


class Restoring:
    """Restores one agent's store. `place`: returns the key that a value of this kind with these ids is written to.

    `least_epoch`, `least_writes`: those of the replaced store; the restored one goes on above them.
    """

    def __init__(
        self,
        client: Commands,
        names: Keys,
        state_key: StateKey,
        *,
        place: Callable[[str, str], str],
        least_epoch: int = 0,
        least_writes: int = 0,
    ) -> None:
        self._client = client
        self._names = names
        self._state_key = state_key
        self._place = place
        self._epoch = least_epoch
        self._writes = least_writes
        self._grant_head = ""
        self._prekey_ids: list[int] = []
        self._notes_of: Counter[str] = Counter()
        self._notes_in: Counter[str] = Counter()
        self._in_parts: set[str] = set()
        self.unreadable_prekeys = 0

    def seen_epoch(self, epoch: int) -> None:
        """Notes the backup's epoch."""
        self._epoch = max(self._epoch, epoch)

    async def take(self, saved: Saved) -> None:
        """Writes one piece, in the order of the backup. Raises RedisFailed."""
        match saved:
            case Value():
                await self._value(saved)
            case Waiting():
                await self._waiting(saved)
            case SavedConversation():
                await self._conversation(saved)

    async def finish(self) -> None:
        """Writes what is made anew, after the last piece. Raises RedisFailed."""
        epoch, writes = self._place("epoch", ""), self._place("gen", "")
        await self._do(("SET", epoch, self._epoch + 1), ("SET", writes, self._writes + 1))
        signed, one_time = self._far_id(), self._far_id()
        counters = ("signed", signed, "one_time", one_time, ROTATE_THROUGH, signed)
        await self._do(("HSET", self._place("prekey_state", ""), *counters))
        if self._grant_head:
            await self._do(("SET", self._place("grant_head", ""), self._grant_head))
        for field, count in self._notes_of.items():
            await self._do(("HSET", self._place("held", ""), field, count))

    def _far_id(self) -> int:
        """Returns an id for new prekeys that is likely far from all that were restored, or given out and forgotten (PROTOCOL §5.5)."""
        while True:
            first = FEWEST_ROOM + secrets.randbelow(MOST_ID - ID_ROOM - FEWEST_ROOM)
            if all(abs(first - taken) > FEWEST_ROOM for taken in self._prekey_ids):
                return first

    async def _value(self, value: Value) -> None:
        if not value.parts:
            return
        key = self._place(value.kind, value.ids)
        match value.kind:
            case kind if kind in PLAIN_HASHES:
                await self._do(("HSET", key, *value.parts))
                await self._follows_from(value)
            case "signed_prekeys" | "one_time_prekeys":
                await self._prekeys(value)
            case "grant_log":
                await self._do(("RPUSH", key, *value.parts))
                self._grant_head = value.parts[-1][: 2 * MAC_BYTES].decode()
            case "quarantined":
                await self._quarantined(key, value)
            case "timers":
                await self._timers(key, value)
            case "dead" | "ledger":
                await self._do(("XADD", key, value.parts[0], *value.parts[2:]))
            case "old" | "placements":
                await self._do(("ZADD", key, *_swapped(value.parts)))
            case "outside":
                await self._outside(key, value.parts)
            case "first_sync":
                await self._do(("SET", key, value.parts[0]))

    async def _follows_from(self, value: Value) -> None:
        if value.kind == "cards":
            await self._do(("EXPIRE", self._place("cards", value.ids), CARDS_KEPT_SECONDS))
        elif value.kind == "owner":
            await self._do(("SADD", self._place("owners", ""), value.ids))
        elif value.kind == "session":
            self.seen_epoch(int(dict(pairs(value.parts)).get(b"e", 0)))
        elif value.kind == "send_keys":
            await self._do(("EXPIRE", self._place(value.kind, value.ids), KEPT_SECONDS))
        elif value.kind == "held":
            notes = value.parts[1::2]
            self._notes_of.update({f"s:{value.ids}": len(notes), "total": len(notes)})
            self._notes_in.update(note.split(b"\x1f")[2].decode() for note in notes)

    async def _outside(self, key: str, records: list[bytes]) -> None:
        """Writes a page of the line of messages from outside before those that were read from its end."""
        await self._do(("LPUSH", key, *reversed(records)))
        size = sum(len(record) + OVERHEAD_BYTES for record in records)
        await self._do(("HINCRBY", self._place("load", ""), "outside", size))

    async def _prekeys(self, value: Value) -> None:
        """Opens prekeys and seals them for the key of restored ones, since a seal is bound to its place."""
        source, target = self._names.of(value.kind), self._names.of(f"restored_{value.kind}")
        key = self._place(f"restored_{value.kind}", "")
        fields: list[Argument] = []
        for raw_id, sealed in pairs(value.parts):
            prekey_id = int(raw_id)
            self._prekey_ids.append(prekey_id)
            try:
                private = self._state_key.open(sealed, source, prekey_id)
            except SealBroken:
                self.unreadable_prekeys += 1
                continue
            fields += [prekey_id, self._state_key.seal(private, target, prekey_id)]
        if fields:
            await self._do(("HSET", key, *fields))
            await self._do(("EXPIRE", key, PREKEYS_READ_SECONDS))

    async def _timers(self, key: str, value: Value) -> None:
        alarms: list[Argument] = []
        timers: list[bytes] = []
        for timer_id, packed in pairs(value.parts):
            try:
                due_ms = decode_timer_record(packed).due_ms
            except BadRecord:
                continue  # it would never fire; `backup verify` and `restore` tell how many values do not open
            timers += [timer_id, packed]
            alarms += [due_ms, b"\0".join((value.ids.encode(), timer_id))]
        if timers:
            await self._do(("HSET", key, *timers), ("ZADD", self._place("alarms", ""), *alarms))

    async def _quarantined(self, key: str, value: Value) -> None:
        if await self._client.command("EXISTS", key) == 1:  # it was read twice
            return
        row, name = dict(pairs(value.parts)), value.ids
        await self._do(("HSET", key, *value.parts), ("ZADD", self._place("quarantine", ""), row.get(b"at", b"0"), name))
        if b"for" in row:
            member = row[b"for"] + b"\0" + row.get(b"why", b"") + b"\0" + name.encode()
            await self._do(("ZADD", self._place("waiting_for", ""), 0, member))
        payer, _, size = row.get(b"kept", b"").rpartition(b" ")
        if payer and int(size) > 0:
            kept = self._place("kept", "")
            await self._do(("HINCRBY", kept, payer, size), ("HINCRBY", kept, "total", size))

    async def _waiting(self, saved: Waiting) -> None:
        """Writes a part of a large mailbox or out-box; parts come from the end, and some items twice."""
        key = self._place(saved.place, saved.conversation_id)
        if await self._client.command("EXISTS", self._place("conv", saved.conversation_id)) == 1:  # it was read twice
            return
        self._in_parts.add(saved.conversation_id)
        if saved.place in ("box", "parked"):
            await self._do(("ZADD", key, *_swapped(saved.parts)))
            return
        for record in reversed(saved.parts):
            if await self._client.command("LPOS", key, record) is None:
                await self._do(("LPUSH", key, record))

    async def _conversation(self, one: SavedConversation) -> None:
        key, conversation_id = self._place("conv", one.conversation_id), one.conversation_id
        if await self._client.command("EXISTS", key) == 1:  # it was read twice
            return
        row = dict(pairs(one.row))
        for name in (b"began", b"held"):
            row.pop(name, None)
        await self._entries(one, row)
        if held := self._notes_in[conversation_id]:
            row[b"held"] = b"%d" % held
        await self._rest_of(one)
        if conversation_id in self._in_parts:
            self._in_parts.discard(conversation_id)
            await self._without_what_is_done(one)
        box = self._place("box", conversation_id)
        waits = cast(int, await self._client.command("ZCARD", box))
        if waits:
            await self._do(("INCRBY", self._place("waiting", ""), waits))
        if one.placed:
            await self._do(("ZADD", self._place("behind", ""), now_ms(), conversation_id))
        if waits or row.keys() & {b"entry", b"reply"} or one.out or one.parked or one.placed:
            await self._do(("ZADD", self._place("busy", ""), now_ms(), conversation_id))
        if row:
            await self._do(("HSET", key, *[part for pair in row.items() for part in pair]))

    async def _entries(self, one: SavedConversation, row: dict[bytes, bytes]) -> None:
        """Adds new entries for what is under way; what waited for a time is due at once."""
        if row.get(b"entry") == b"due":
            await self._do(("ZADD", self._place("due", ""), now_ms(), one.conversation_id))
        else:
            row.pop(b"entry", None)
            if one.job:
                row[b"entry"] = await self._started("jobs", _delivered_once_more(one.job))
                if one.is_superseded:
                    await self._do(("SADD", self._place("interrupted", ""), row[b"entry"]))
        reply = row.pop(b"reply", None)
        sent = dict(pairs(one.sent))
        if reply == b"sent" and sent:
            row[b"reply"] = reply
            await self._do(
                ("ZADD", self._place("outbox", ""), now_ms(), one.conversation_id),
                ("HSET", self._place("acks", ""), sent[b"cmid"], one.conversation_id),
            )
        elif one.reply:
            row[b"reply"] = await self._started("replies", one.reply)

    async def _started(self, stream: str, words: list[bytes]) -> bytes:
        return cast(bytes, await self._client.command("XADD", self._place(stream, ""), "*", *words))

    async def _rest_of(self, one: SavedConversation) -> None:
        commands: list[tuple[Argument, ...]] = []

        def put(kind: str, *words: Argument, command: str, until_ms: int = -1) -> None:
            if words:
                key = self._place(kind, one.conversation_id)
                commands.append((command, key, *words))
                if until_ms >= 0:
                    ends.append(("PEXPIREAT", key, until_ms))

        ends: list[tuple[Argument, ...]] = []
        put("ids", *([one.ids] if one.ids else []), command="SET", until_ms=one.ids_until_ms)
        taken = [word for seq in one.taken for word in (seq, seq)]
        put("taken", *taken, command="ZADD", until_ms=one.taken_until_ms)
        put("emitted", *[word for place in one.emitted for word in (place, b"1")], command="HSET")
        put("emitted", *one.values, command="HSET")
        put("waits", *one.waits, command="HSET")
        put("sent", *one.sent, command="HSET")
        put("load", *one.load, command="HSET")
        put("box", *_swapped(one.box), command="ZADD")
        put("parked", *_swapped(one.parked), command="ZADD")
        put("placed", *_swapped(one.placed), command="ZADD")
        put("together", *one.together, command="RPUSH")
        put("out", *one.out, command="RPUSH")
        put("state", *([one.state] if one.state else []), command="SET")
        ended = [(exchange, exchanged_ms(exchange)) for exchange in one.history]
        put("history", *one.history, command="RPUSH", until_ms=ended[-1][1] + EXCHANGES_KEPT_MS if ended else -1)
        days = self._place("histories", "")
        commands += [("HINCRBY", days, at_ms // DAY_MS, size_of_exchange(exchange)) for exchange, at_ms in ended]
        load = self._place("load", "")
        for name, record in pairs(one.waits):
            if is_wait(name):
                has = len(record) + OVERHEAD_BYTES
                commands += [("HINCRBY", load, "waits_open", 1), ("HINCRBY", load, "waits", has)]
        for payer, size in pairs(one.load):
            commands.append(("HINCRBY", load, payer, size))
            if payer != b"out":
                commands.append(("HINCRBY", load, "total", size))
        await self._do(*commands)
        await self._do(*ends)

    async def _without_what_is_done(self, one: SavedConversation) -> None:
        """Removes from parts that were read before the conversation what is under way or finished in it."""
        under_way = {_job_id(record) for record in _jobs_of(one)}
        under_way |= await self._jobs_in(self._place("together", one.conversation_id))
        has_job = bool(one.job) or b"entry" in one.row[::2]
        if not has_job:  # a conversation at rest: all of it was answered
            await self._do(
                *[("DEL", self._place(place, one.conversation_id)) for place in ("box", "parked", "together")]
            )
        for place in ("box", "parked"):
            key = self._place(place, one.conversation_id)
            for record in await self._those(key, "ZRANGE", lambda record: _job_id(record) in under_way):
                await self._do(("ZREM", key, record))
        key, reply, sent = self._place("out", one.conversation_id), dict(pairs(one.reply)), dict(pairs(one.sent))
        if not (reply or sent):
            await self._do(("DEL", key))
        # Its head is what is under way; what is sent has left it.
        for record in await self._those(
            key, "LRANGE", lambda record: _answers(record) == sent.get(b"what", b"").decode()
        ):
            await self._trim(key, record, 1)
        if reply:
            await self._trim(key, reply[b"r"], 0)

    async def _trim(self, key: str, head: bytes, further: int) -> None:
        at = await self._client.command("LPOS", key, head)
        if isinstance(at, int):
            await self._do(("LTRIM", key, at + further, -1))

    async def _those(self, key: str, command: str, is_one: Callable[[bytes], bool]) -> list[bytes]:
        """Returns the items of a large mailbox or list that match."""
        return [record async for page in self._pages(command, key) for record in page if is_one(record)]

    async def _jobs_in(self, key: str) -> set[str]:
        """Returns the ids of the jobs in a key."""
        return {_job_id(record) async for page in self._pages("LRANGE", key) for record in page}

    async def _pages(self, command: str, key: str) -> AsyncGenerator[list[bytes]]:
        at = 0
        while page := cast("list[bytes]", await self._client.command(command, key, at, at + PAGE - 1)):
            yield page
            at += len(page)

    async def _do(self, *commands: tuple[Argument, ...]) -> None:
        """Runs independent commands, sent together."""
        await all_of(lambda command: self._client.command(*command), commands)


def _swapped(flat: list[bytes]) -> list[bytes]:
    """Returns members and scores in the order that ZADD takes."""
    return [word for member, score in pairs(flat) for word in (score, member)]


def _delivered_once_more(job: list[bytes]) -> list[bytes]:
    fields = dict(pairs(job))
    fields[b"d"] = b"%d" % (int(fields.get(b"d", b"1")) + 1)
    return [word for pair in fields.items() for word in pair]


def _jobs_of(one: SavedConversation) -> list[bytes]:
    """Returns the records of the job that runs or waits for its next run, and of those handled together with it."""
    retry, running = dict(pairs(one.row)).get(b"retry"), dict(pairs(one.job)).get(b"r")
    return [*one.together, *(record for record in (retry, running) if record is not None)]


def _job_id(record: bytes) -> str:
    try:
        return decode_job_record(record).job_id
    except BadRecord:
        return ""


def _answers(record: bytes) -> str:
    """Returns job id and place of a reply, as a committed send names them."""
    try:
        reply = decode_reply_record(record)
    except BadRecord:
        return ""
    return f"{reply.job_id} {reply.place}"
