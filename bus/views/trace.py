"""Reads the ledger: what happened to each message and when, without content. The scripts write it.

It keeps 7 days or 200,000 entries. A message is named by its message_id, which is also its job's id; entries of messages that were
refused, taken in or quarantined have the conversation as their first word.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import cast

import msgspec

from bus.records.keys import JOBS_GROUP, Keys
from bus.records.outside import ACT_PLACE, PLACE
from bus.records.records import decode_job_record
from bus.transport.client import RedisClient
from bus.transport.clock import redis_ms
from bus.transport.wire import RedisRefused

PAGE = 1000
KEPT_SECONDS = 7 * 86400

_TAKEN_IN = ("conversation", "received_ms", "decrypted_ms", "seq")
_RUN = ("worker", "attempt", "delivery", "started_ms")  # the last only if no `started` was noted

# The words of each kind of entry, in order. A word that was not known when it was noted is empty.
WORDS: Mapping[str, tuple[str, ...]] = {
    "taken": _TAKEN_IN,  # nothing for a handler
    "queued": _TAKEN_IN,
    "refused": _TAKEN_IN,
    "placed": ("conversation", "kind"),  # a job that no message began
    "held": ("conversation", "received_ms", "seq"),  # it waits at the relay
    "quarantined": ("conversation", "received_ms", "reason", "seq"),
    "old": ("conversation", "reason", "seq"),
    "requeued": ("conversation",),
    "from_outside": ("conversation",),
    "let_out": (),
    "given_up": ("by",),
    "started": _RUN,
    "replied": ("place",),
    "encrypted": ("place", "client_message_id"),
    "acknowledged": ("place", "message_id", "sent_ms"),
    "acted": ("place", "what"),  # a recall, a reaction; a message from outside that was taken back before it left
    "dropped": ("place", "reason"),  # a reply that became a dead letter
    "done": _RUN,
    "superseded": _RUN,
    "stopped": _RUN,  # its person has said /stop
    "over_budget": _RUN,
    "no_handler": _RUN,
    "waiting": _RUN,  # for an answer
    "no_answer": _RUN,  # nobody answered what it asked
    "failed": ("reason", "again_after_ms", "worker", "attempt", "delivery"),
    "dead": ("reason", "worker", "attempt", "delivery"),
    "revived": ("reason",),
    "handed_back": ("worker",),
    "reclaimed": ("worker",),
    "lost": ("conversation",),
}
TAKEN_BACK = "taken_back"  # of a message from outside that had not left the line
_ENDS = frozenset({b"acknowledged", b"acted", b"dropped"})
RUNNING = ("worker", "attempt", "delivery")  # words of `running`, which is not in the ledger but read from the stream
BEGINNINGS = frozenset(
    {"taken", "queued", "placed", "refused", "held", "quarantined", "old", "requeued", "from_outside"}
)
NAMED_BY_THE_RELAY = frozenset({"encrypted", "acknowledged"})


class TraceEntry(msgspec.Struct, frozen=True):
    """One entry, at Redis' time. `details`: its further words, named by WORDS."""

    at_ms: int
    name: str
    job_id: str
    details: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, str]:
        """Returns the details by name, without empty ones."""
        words = RUNNING if self.name == "running" else WORDS.get(self.name, ())
        return {name: word for name, word in zip(words, self.details, strict=False) if word}


class Ledger:
    """The ledger of one agent; only reads."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def trace(self, wanted: str) -> list[TraceEntry]:
        """Returns all entries of a message, or of all messages of a conversation, in the order in which they happened.

        The message_id or client_message_id of a reply stands for the message that it answers.
        """
        found, answered = await self._about({wanted}, wanted)
        if not found and answered:
            found, _ = await self._about(answered, wanted)
        return found + await self._running(found)

    async def acknowledged(self, job_id: str, place: str, since_ms: int) -> str | None:
        """Returns the message_id of the reply at a place of a job; None if it was not acknowledged since then."""
        entry = await self._latest("acknowledged", since_ms, lambda job, words: (job, words[0]) == (job_id, place))
        return None if entry is None else entry[1][1]

    async def sent_as(self, client_message_id: str, since_ms: int) -> tuple[str, str] | None:
        """Returns the job and place of the reply that was sent under this id; None if none was since then."""
        entry = await self._latest("encrypted", since_ms, lambda _, words: words[1:] == [client_message_id])
        return None if entry is None else (entry[0], entry[1][0])

    async def _latest(
        self, name: str, since_ms: int, is_wanted: Callable[[str, list[str]], bool]
    ) -> tuple[str, list[str]] | None:
        """Returns the job and the words of the latest entry of this name since then that is wanted; None if there is none."""
        end = "+"
        while True:
            answer = await self._client.command("XREVRANGE", self._keys.ledger, end, since_ms, "COUNT", PAGE)
            rows = cast("list[tuple[bytes, list[bytes]]]", answer)
            for _, entry in rows:
                event, job, detail = (word.decode() for word in entry[1::2])
                if event == name and is_wanted(job, words := detail.split(" ")):
                    return job, words
            if len(rows) < PAGE:
                return None
            end = f"({rows[-1][0].decode()}"

    async def _running(self, found: Sequence[TraceEntry]) -> list[TraceEntry]:
        """Returns a `running` event for each of the messages that a worker has now."""
        messages = {event.job_id for event in found}
        conversations = {event.details[0] for event in found if event.name in BEGINNINGS and event.details}
        running = [await self._running_in(conversation) for conversation in sorted(conversations)]
        return [event for event in running if event is not None and event.job_id in messages]

    async def _running_in(self, conversation_id: str) -> TraceEntry | None:
        keys = self._keys
        entry = await self._client.command("HGET", keys.conversation(conversation_id), "entry")
        if not isinstance(entry, bytes) or entry == b"due":
            return None
        try:
            pending = await self._client.command("XPENDING", keys.jobs, JOBS_GROUP, entry, entry, 1)
            rows = await self._client.command("XRANGE", keys.jobs, entry, entry)
        except RedisRefused:
            return None  # no group yet
        held = cast("list[tuple[bytes, bytes, int, int]]", pending)
        [(_, flat)] = cast("list[tuple[bytes, list[bytes]]]", rows) or [(b"", [])]
        if not held or not flat:
            return None
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        record = decode_job_record(fields.get(b"r", b""))
        now = await redis_ms(self._client)
        details = (held[0][1].decode(), *(fields.get(name, b"?").decode(errors="replace") for name in (b"a", b"d")))
        return TraceEntry(now, "running", record.job_id, details)

    async def _about(self, messages: set[str], wanted: str) -> tuple[list[TraceEntry], set[str]]:
        found: list[TraceEntry] = []
        answered: set[str] = set()
        async for event in self._events():
            if event.name in BEGINNINGS and wanted in event.details[:1]:
                messages.add(event.job_id)
            if event.name in NAMED_BY_THE_RELAY and event.details[1:2] == (wanted,):
                answered.add(event.job_id)
            if event.job_id in messages:
                found.append(event)
        return found, answered

    async def ended(self, messages: Collection[str], since: str) -> tuple[dict[str, str], str]:
        """Returns which messages from outside have ended in the entries from `since` on, and from where to look the next time.

        Each with the reason for which it was given up, '' if the relay has it.
        """
        found: dict[str, str] = {}
        while True:
            command = ("XRANGE", self._keys.ledger, since, "+", "COUNT", PAGE)
            rows = cast("list[tuple[bytes, list[bytes]]]", await self._client.command(*command))
            for _, (_, name, _, job, _, told) in rows:
                place, *words = told.decode().split(" ")
                if job.decode() in messages and place in (PLACE, ACT_PLACE) and name in _ENDS:
                    found[job.decode()] = words[0] if name == b"dropped" or words[:1] == [TAKEN_BACK] else ""
            if rows:
                since = f"({rows[-1][0].decode()}"
            if len(rows) < PAGE:
                return found, since

    async def length(self) -> int:
        """Returns how many entries there are."""
        return cast(int, await self._client.command("XLEN", self._keys.ledger))

    async def _events(self) -> AsyncIterator[TraceEntry]:
        start = "-"
        while True:
            command = ("XRANGE", self._keys.ledger, start, "+", "COUNT", PAGE)
            rows = cast("list[tuple[bytes, list[bytes]]]", await self._client.command(*command))
            for entry, flat in rows:
                for event in _events_in(entry, flat):
                    yield event
            if len(rows) < PAGE:
                return
            start = f"({rows[-1][0].decode()}"


def _events_in(entry: bytes, flat: Sequence[bytes]) -> list[TraceEntry]:
    """Decodes one entry; the end of a job gives further events, for the places of the replies that went out with it."""
    _, name, _, job, _, told = (part.decode() for part in flat)
    at_ms = int(entry.partition(b"-")[0])
    details = tuple(told.split(" "))
    places = details[len(_RUN) :] if WORDS.get(name) is _RUN else ()
    replies = [TraceEntry(at_ms, "replied", job, (place,)) for place in places]
    return [*replies, TraceEntry(at_ms, name, job, details[: -len(places)] if places else details)]
