"""Operations on what needs a decision: dead letters (jobs and replies given up) and the quarantine (messages that could not be read).

A retry puts an entry back on its way; a drop gives it up for good.
"""

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import Literal, cast

import msgspec

from bus.records.keys import Keys
from bus.records.numbers import number_in
from bus.records.records import (
    BadRecord,
    JobRecord,
    OutboxRecord,
    ReplyRecord,
    decode_job_record,
    decode_outbox_record,
    decode_reply_record,
)
from bus.transport.client import Commands
from bus.transport.wire import RedisRefused, Value
from host.budgets import StoreBudgets

PAGE = 10  # letters, which may be a mebibyte each

Record = JobRecord | ReplyRecord | OutboxRecord
Revived = Literal["gone", "busy", "revived"]
GivenUp = Literal["operator", "copy", "overflow"]


class DeadLetter(msgspec.Struct, frozen=True):
    """A job or reply that was given up, with its entry in `dead`. `places`: what a job had emitted. `answers`: a reply's job and place.

    `values`: the journal of a job's thread, and places with a value of their own, as the scripts keep them.
    """

    id: str
    reason: str
    record: bytes
    attempt: int
    deliveries: int
    died_ms: int
    places: str = ""
    answers: str = ""
    values: bytes = b""

    def __repr__(self) -> str:
        return f"DeadLetter(id={self.id!r}, reason={self.reason!r}, …)"

    @property
    def sender_id(self) -> str:
        """Returns the sender of a job's message; '' for a reply, and if it is not known."""
        record = self.record_or_none()
        return record.sender_id if isinstance(record, JobRecord) else ""

    def light(self) -> "DeadLetter":
        """Returns it without its content, which may be a mebibyte, but with the message's id, and of a job with what `drop` needs to know."""
        record, kept = self.record_or_none(), b""
        if isinstance(record, JobRecord):
            kept = msgspec.msgpack.encode(msgspec.structs.replace(record, sealed=b""))
        return msgspec.structs.replace(self, record=kept, values=b"", answers=self.answers or f"{self.job_id} ")

    @property
    def job_id(self) -> str:
        """Returns the id of the message that it is about; '' if that is not known."""
        if self.answers.strip():
            return self.answers.split(" ")[0]
        record = self.record_or_none()
        return record.job_id if isinstance(record, JobRecord | ReplyRecord) else ""

    def record_or_none(self) -> Record | None:
        """Returns the readable part of its record; None if that cannot be read."""
        try:
            return self.decoded()
        except BadRecord:
            return None

    def decoded(self) -> Record:
        """Returns the readable part of its record (a job, a reply or a committed send). Raises BadRecord."""
        for decode in (decode_job_record, decode_reply_record):
            try:
                return decode(self.record)
            except BadRecord:
                continue
        return decode_outbox_record(self.record)


class DeadLetters:
    """Of one agent."""

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def count(self) -> int:
        """How many there are."""
        return cast(int, await self._client.command("XLEN", self._keys.dead))

    async def all(self) -> AsyncIterator[DeadLetter]:
        """Oldest first."""
        start = "-"
        while page := await self._range(start, "+", PAGE):
            for letter in page:
                yield letter
            start = f"({page[-1].id}"

    async def first(self, count: int = 1000) -> list[DeadLetter]:
        """The oldest `count`."""
        return await self._range("-", "+", count)

    async def find(self, letter_id: str) -> DeadLetter | None:
        """By its id."""
        return next(iter(await self._range(letter_id, letter_id, 1)), None)

    async def retry(self, letter: DeadLetter, consumer: str = "") -> Revived:
        """Puts a letter back on its way: a job runs again (what it had sent stays sent), a reply is sent. Raises BadRecord.

        Returns `busy` for a committed send while another reply of its conversation waits for its acknowledgement.
        """
        record = letter.decoded()
        kind, job_id, seq, client_message_id = "sent", "", 0, ""
        match record:
            case JobRecord():
                kind, job_id, seq = "placed" if record.kind else "job", record.job_id, record.seq
            case ReplyRecord():
                kind, job_id = "reply", record.job_id
            case OutboxRecord():
                client_message_id = record.client_message_id
        keys = (*self._keys.board(record.conversation_id), self._keys.behind)
        arguments = (record.conversation_id, letter.id, kind, job_id, seq, client_message_id, consumer)
        answer = cast(bytes, await self._client.script("revive", keys, *arguments)).decode()
        return cast(Revived, answer)

    async def drop(self, letter: DeadLetter, why: GivenUp = "operator") -> bool:
        """Gives it up for good; returns False if it is not there. With a job the question goes that it was to answer."""
        record = letter.record_or_none()
        if isinstance(record, JobRecord):
            names, at = self._keys, record.conversation_id
            keys = [*names.board(at), names.waits(at), names.timers(at), names.alarms]
            return await self._client.script("drop_job", keys, at, letter.id, record.job_id, why) == 1
        keys = [
            self._keys.dead,
            self._keys.dead,
            self._keys.wanted,
            self._keys.write_count,
            self._keys.ledger,
            self._keys.waiting_for,
            self._keys.kept,
        ]
        return await self._client.script("release", keys, letter.id, "dead", letter.job_id, why) == 1

    async def size_bytes(self) -> int:
        """Returns how many bytes they take in Redis; 0 if Redis does not let us ask."""
        try:
            found = await self._client.command("MEMORY", "USAGE", self._keys.dead, "SAMPLES", 0)
        except RedisRefused:
            return 0  # some providers do not let us ask
        return cast("int | None", found) or 0

    async def _range(self, start: str, end: str, count: int) -> list[DeadLetter]:
        command = ("XRANGE", self._keys.dead, start, end, "COUNT", count)
        rows = cast("list[tuple[bytes, list[bytes]]]", await self._client.command(*command))
        return [_letter(entry.decode(), dict(zip(flat[::2], flat[1::2], strict=True))) for entry, flat in rows]


def _letter(entry: str, fields: dict[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        entry,
        fields.get(b"why", b"unreadable_record").decode(errors="replace"),
        fields.get(b"r", b""),
        number_in(fields.get(b"a")),
        number_in(fields.get(b"d")),
        number_in(fields.get(b"at")),
        fields.get(b"p", b"").decode(errors="replace"),
        fields.get(b"w", b"").decode(errors="replace"),
        fields.get(b"j", b""),
    )


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be read. `message_id` is its name: the relay's id, for a second message under one id followed by a digest.

    `frame`: as the relay sent it. It is empty if it is not kept whole; then the message stands at the relay behind `cursor` (None: poll
    from the beginning), as long as the relay keeps it. `plaintext`: sealed, '' if nothing was decrypted or kept. `evidence`: what is always
    kept of it (supervisor/inbound/evidence.py). All three are empty in a row that was read without content.
    `is_signed`: its signature verified. `is_remembered`: its id is in the memory of ids (older versions). `seq`: None from older versions.
    """

    message_id: str
    reason: str
    conversation_id: str
    sender_id: str
    since_ms: int
    is_signed: bool
    frame: bytes = b""
    plaintext: bytes = b""
    evidence: bytes = b""
    cursor: str | None = None
    is_remembered: bool = False
    seq: int | None = None
    waits_for: str | None = None

    def __repr__(self) -> str:
        return f"Quarantined(message_id={self.message_id!r}, reason={self.reason!r}, …)"


CIRCUMSTANCES = ("why", "conversation", "from", "at", "signed", "verified", "seq", "for", "cursor")
_BESIDE = re.compile(r"~[0-9a-f]{16}\Z")
MOST_AT_ONCE = 100  # names in one command


def digest_of(conversation_id: str, encrypted_payload: str) -> str:
    """Returns a digest of an envelope, which tells it from others under the same message_id, whatever the relay's frame around it says."""
    return hashlib.sha256(f"{conversation_id}\x00{encrypted_payload}".encode()).hexdigest()[:16]


def name_beside(message_id: str, digest: str) -> str:
    """Returns the name in quarantine of a message whose message_id another message there has already."""
    return f"{message_id}~{digest}"


def message_id_of(name: str) -> str:
    """Returns the message_id in a name in quarantine."""
    return _BESIDE.sub("", name)


class OldMessage(msgspec.Struct, frozen=True):
    """The note of an unreadable message with a seq below its conversation's `next`, which is no failure (PROTOCOL §5.4)."""

    message_id: str
    conversation_id: str
    seq: int
    since_ms: int


_OLD = "\0old\0"
"""Prefix of an old message's id in `wanted`: no name in quarantine begins so, and a former version finds nothing under it."""


def wanted_old(name: str) -> str | None:
    """Returns the message_id if this entry of `wanted` is an old message's, else None."""
    return name.removeprefix(_OLD) if name.startswith(_OLD) else None


class OldMessages:
    """The latest notes of old messages of one agent."""

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def all(self) -> list[OldMessage]:
        """Returns all notes, the oldest first."""
        flat = cast("list[bytes]", await self._client.command("ZRANGE", self._keys.old, 0, -1, "WITHSCORES"))
        noted = []
        for member, when in zip(flat[::2], flat[1::2], strict=True):
            conversation_id, seq, message_id = member.decode("utf-8", "replace").split("\0", 2)
            noted.append(OldMessage(message_id, conversation_id, int(seq), int(float(when))))
        return noted

    async def want(self, message_ids: Iterable[str]) -> None:
        """Has a supervisor ask the relay for these again."""
        names = [f"{_OLD}{message_id}" for message_id in message_ids]
        if names:
            await self._client.command("SADD", self._keys.wanted, *names)

    async def forget(self, message_id: str, conversation_id: str, seq: int) -> None:
        """Removes the note of a message that was read after all."""
        await self._client.command("ZREM", self._keys.old, f"{conversation_id}\0{seq}\0{message_id}")


class Quarantine:
    """The quarantine of one agent. A message goes by its name, which mostly is its message_id."""

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    @property
    def old_messages(self) -> OldMessages:
        """Returns the old messages, of which there are only notes."""
        return OldMessages(self._client, self._keys)

    async def count(self) -> int:
        """How many there are."""
        return cast(int, await self._client.command("ZCARD", self._keys.quarantine))

    async def names(self) -> list[str]:
        """Returns the names of all, oldest first."""
        return _texts(await self._client.command("ZRANGE", self._keys.quarantine, 0, -1))

    async def oldest(self, count: int) -> list[str]:
        """Returns the names of those that have been here longest."""
        return _texts(await self._client.command("ZRANGE", self._keys.quarantine, 0, count - 1))

    async def all(self) -> AsyncGenerator[Quarantined]:
        """Yields all, oldest first, without content; only one that comes or goes meanwhile may be missed."""
        names = await self.names()
        for at in range(0, len(names), MOST_AT_ONCE):
            for row in await self.rows(names[at : at + MOST_AT_ONCE]):
                yield row

    async def rows(self, names: Sequence[str]) -> list[Quarantined]:
        """Returns those that are there, without content, which may be a mebibyte each."""
        rows = []
        for name in names:
            answer = await self._client.command("HMGET", self._keys.quarantined(name), *CIRCUMSTANCES)
            values = cast("list[bytes | None]", answer)
            told = {field: value for field, value in zip(CIRCUMSTANCES, values, strict=True) if value is not None}
            rows.append(_row(name, told))
        return [row for row in rows if row is not None]

    async def find(self, name: str) -> Quarantined | None:
        """Returns the whole message; None if it is not there."""
        flat = cast("list[bytes]", await self._client.command("HGETALL", self._keys.quarantined(name)))
        return _row(name, {field.decode(): value for field, value in zip(flat[::2], flat[1::2], strict=True)})

    async def named_after(self, message_id: str) -> list[str]:
        """Returns the names of all messages that came under this message_id."""
        return [name for name in await self.names() if name == message_id or name.startswith(f"{message_id}~")]

    async def waiting_for(self, things: Iterable[str], reasons: Iterable[str]) -> list[str]:
        """Returns the names of messages that wait for one of these things and are here for one of these reasons.

        See supervisor/peers/retry_triggers.py for the things.
        """
        found = list[str]()
        for thing in things:
            for reason in reasons:
                start = f"{thing}\x00{reason}"
                command = ("ZRANGEBYLEX", self._keys.waiting_for, f"[{start}\x00", f"({start}\x01")
                found += [member.rpartition("\x00")[2] for member in _texts(await self._client.command(*command))]
        return found

    async def list_waiting(self, things: Mapping[str, str]) -> None:
        """Notes what messages from an older version wait for (by name), so that `waiting_for` finds them."""
        named = list(things.items())
        for at in range(0, len(named), MOST_AT_ONCE):
            some = named[at : at + MOST_AT_ONCE]
            keys = [self._keys.waiting_for, self._keys.write_count, *(self._keys.quarantined(name) for name, _ in some)]
            await self._client.script("list_waiting", keys, *(word for pair in some for word in pair))

    async def is_charged(self, name: str) -> bool:
        """Returns whether its bytes are counted; those that a former version has kept are not."""
        return await self._client.command("HEXISTS", self._keys.quarantined(name), "kept") == 1

    async def charge(self, name: str, evidence: bytes, budgets: StoreBudgets, *, may_be_read: bool) -> bool:
        """Counts the bytes that a former version has kept; returns True if there was no room and only the evidence is left."""
        keys = [self._keys.quarantined(name), self._keys.kept, self._keys.write_count]
        arguments = (evidence, budgets.quarantine_bytes, budgets.unsigned_bytes, int(may_be_read))
        return await self._client.script("charge_kept", keys, *arguments) == 2

    async def want(self, names: Iterable[str]) -> None:
        """Has a supervisor try these again as soon as it can."""
        ids = list(names)
        for at in range(0, len(ids), MOST_AT_ONCE):
            await self._client.command("SADD", self._keys.wanted, *ids[at : at + MOST_AT_ONCE])

    async def wanted(self) -> list[str]:
        """Returns those that are to be tried again."""
        return _texts(await self._client.command("SMEMBERS", self._keys.wanted))

    async def tried(self, name: str) -> None:
        """Removes it from `wanted` after a try, whatever came of it."""
        await self._client.command("SREM", self._keys.wanted, name)

    async def drop(self, name: str, why: GivenUp = "operator") -> bool:
        """Gives it up for good; returns False if it is not there. `copy`: the genuine message was taken in."""
        keys = [
            self._keys.quarantine,
            self._keys.quarantined(name),
            self._keys.wanted,
            self._keys.write_count,
            self._keys.ledger,
            self._keys.waiting_for,
            self._keys.kept,
        ]
        return await self._client.script("release", keys, name, "quarantine", message_id_of(name), why) == 1


def _row(name: str, fields: Mapping[str, bytes]) -> Quarantined | None:
    if "why" not in fields:
        return None
    is_remembered = fields.get("signed") == b"1"
    return Quarantined(
        message_id=name,
        reason=fields["why"].decode(errors="replace"),
        conversation_id=fields.get("conversation", b"").decode(errors="replace"),
        sender_id=fields.get("from", b"").decode(errors="replace"),
        since_ms=number_in(fields.get("at")),
        is_signed=is_remembered or fields.get("verified") == b"1",
        frame=fields.get("copy") or fields.get("frame", b""),
        plaintext=fields.get("plaintext", b""),
        evidence=fields.get("evidence", b""),
        cursor=fields.get("cursor", b"").decode(errors="replace") or None,
        is_remembered=is_remembered,
        seq=number_in(fields["seq"]) if "seq" in fields else None,
        waits_for=fields["for"].decode(errors="replace") if "for" in fields else None,
    )


def _texts(answer: Value) -> list[str]:
    return [raw.decode() for raw in cast("list[bytes]", answer)]
