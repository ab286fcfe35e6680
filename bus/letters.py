"""What needs a decision: dead letters (jobs and replies given up) and the quarantine (messages that could not be read).

Nothing leaves either without being asked to: a retry puts it back on its way, a drop is the operator's word.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Literal, cast

import msgspec

from bus.client import Commands
from bus.keys import Keys
from bus.records import (
    BadRecord,
    JobRecord,
    OutboxRecord,
    ReplyRecord,
    decode_job_record,
    decode_outbox_record,
    decode_reply_record,
)

PAGE = 100

Record = JobRecord | ReplyRecord | OutboxRecord
Revived = Literal["gone", "busy", "revived"]
GivenUp = Literal["operator", "copy"]


class DeadLetter(msgspec.Struct, frozen=True):
    """What was given up, by its entry in `dead`. `places`: what a job had emitted. `answers`: of a reply, job id and place."""

    id: str
    reason: str
    record: bytes
    attempt: int
    deliveries: int
    died_ms: int
    places: str = ""
    answers: str = ""

    def __repr__(self) -> str:
        return f"DeadLetter(id={self.id!r}, reason={self.reason!r}, …)"

    @property
    def job_id(self) -> str:
        """The message that it is about; '' where that is not known."""
        if self.answers.strip():
            return self.answers.split(" ")[0]
        try:
            record = self.decoded()
        except BadRecord:
            return ""
        return "" if isinstance(record, OutboxRecord) else record.job_id

    def decoded(self) -> Record:
        """The readable part of its record: of a job, a reply, or a committed send. Raises BadRecord."""
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
        """Back on its way: a job runs again (what it had sent stays sent), a reply is sent. Raises BadRecord.

        `busy`: a send that was committed already waits until the conversation's present reply is acknowledged.
        """
        record = letter.decoded()
        kind, job_id, seq, client_message_id = "sent", "", 0, ""
        match record:
            case JobRecord():
                kind, job_id, seq = "job", record.job_id, record.seq
            case ReplyRecord():
                kind, job_id = "reply", record.job_id
            case OutboxRecord():
                client_message_id = record.client_message_id
        keys = self._keys.board(record.conversation_id)
        arguments = (record.conversation_id, letter.id, kind, job_id, seq, client_message_id, consumer)
        answer = cast(bytes, await self._client.script("revive", keys, *arguments)).decode()
        return cast(Revived, answer)

    async def drop(self, letter: DeadLetter) -> bool:
        """Give it up for good; False if it is not there."""
        keys = [self._keys.dead, self._keys.dead, self._keys.wanted, self._keys.generation, self._keys.ledger]
        return await self._client.script("release", keys, letter.id, "dead", letter.job_id, "operator") == 1

    async def _range(self, start: str, end: str, count: int) -> list[DeadLetter]:
        command = ("XRANGE", self._keys.dead, start, end, "COUNT", count)
        rows = cast("list[tuple[bytes, list[bytes]]]", await self._client.command(*command))
        return [_letter(entry.decode(), dict(zip(flat[::2], flat[1::2], strict=True))) for entry, flat in rows]


def _letter(entry: str, fields: dict[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        entry,
        fields[b"why"].decode(),
        fields[b"r"],
        int(fields[b"a"]),
        int(fields[b"d"]),
        int(fields[b"at"]),
        fields.get(b"p", b"").decode(),
        fields.get(b"w", b"").decode(),
    )


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be read. `frame`: as the relay sent it; `plaintext`: sealed, '' where nothing was decrypted.

    `is_signed`: its signature had verified, and its id is known since.
    """

    message_id: str
    reason: str
    conversation_id: str
    sender_id: str
    since_ms: int
    is_signed: bool
    frame: bytes
    plaintext: bytes = b""

    def __repr__(self) -> str:
        return f"Quarantined(message_id={self.message_id!r}, reason={self.reason!r}, …)"


class Quarantine:
    """Of one agent."""

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def count(self) -> int:
        """How many there are."""
        return cast(int, await self._client.command("ZCARD", self._keys.quarantine))

    async def all(self) -> AsyncIterator[Quarantined]:
        """Oldest first; one that comes or goes meanwhile may be missed, no other."""
        ids = cast("list[bytes]", await self._client.command("ZRANGE", self._keys.quarantine, 0, -1))
        for message_id in ids:
            found = await self.find(message_id.decode())
            if found is not None:
                yield found

    async def find(self, message_id: str) -> Quarantined | None:
        """By the relay's message_id."""
        flat = cast("list[bytes]", await self._client.command("HGETALL", self._keys.quarantined(message_id)))
        if not flat:
            return None
        fields = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        return Quarantined(
            message_id=message_id,
            reason=fields["why"].decode(),
            conversation_id=fields.get("conversation", b"").decode(),
            sender_id=fields.get("from", b"").decode(),
            since_ms=int(fields["at"]),
            is_signed=fields["signed"] == b"1",
            frame=fields["frame"],
            plaintext=fields.get("plaintext", b""),
        )

    async def want(self, message_ids: Iterable[str]) -> None:
        """A supervisor is to try these again as soon as it can."""
        ids = list(message_ids)
        if ids:
            await self._client.command("SADD", self._keys.wanted, *ids)

    async def wanted(self) -> list[str]:
        """Those that are to be tried again."""
        return [raw.decode() for raw in cast("list[bytes]", await self._client.command("SMEMBERS", self._keys.wanted))]

    async def tried(self, message_id: str) -> None:
        """It was tried, and stays for now or is gone."""
        await self._client.command("SREM", self._keys.wanted, message_id)

    async def drop(self, message_id: str, why: GivenUp = "operator") -> bool:
        """Give it up for good; False if it is not there. `copy`: the genuine message was taken in."""
        keys = [
            self._keys.quarantine,
            self._keys.quarantined(message_id),
            self._keys.wanted,
            self._keys.generation,
            self._keys.ledger,
        ]
        return await self._client.script("release", keys, message_id, "quarantine", message_id, why) == 1
