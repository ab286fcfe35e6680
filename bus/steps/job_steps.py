"""The steps of a worker with a job that it has taken: begin, send, end.

A job's entry id is its fencing token: every step names it, and changes nothing once another worker has the job (DESIGN rule 6). Every
step may be repeated.
"""

import enum
import time
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import msgspec

from bus.records.apologies import is_owed_an_apology
from bus.records.cards import CardKept, CardMove, decode_card
from bus.records.journal import read_emitted
from bus.records.keys import Keys
from bus.records.records import (
    MOST_DELIVERIES,
    BadRecord,
    InboundMessage,
    Job,
    Reply,
    ReplyPlace,
    open_job,
    pack_reply,
    unpack_job,
    with_hops,
)
from bus.records.reply_ids import reply_id, reply_message_id
from bus.records.saved import pairs
from bus.records.sealing import BusKey
from bus.steps.policies import Policies
from bus.transport.client import Commands
from bus.transport.lua import Argument
from bus.transport.wire import Value

APOLOGY_PLACE = "!apology"
BOUND_PLACE = "!bound"
"""Of a job that answers a question, as bus/scripts/jobs/bind_wait.lua notes it."""
Settled = Literal["done", "waiting", "no_answer", "stopped", "over_budget", "superseded", "no_handler"]
"""How a job ends that did not fail."""


class Emitted(enum.Enum):
    """The outcomes of `emit`."""

    QUEUED = b"queued"
    FULL = b"full"
    """Nothing was changed, since too much waits to be sent: try again later."""

    ALREADY = b"already"
    FENCED = b"fenced"
    UNKNOWN = b"unknown"
    """Of `emit_to`: there is no such conversation."""


class Carded(enum.Enum):
    """The outcomes of `emit_card`."""

    QUEUED = b"queued"
    FULL = b"full"
    """As in Emitted."""

    ALREADY = b"already"
    FENCED = b"fenced"
    UNKNOWN = b"unknown"
    """The conversation has no such card, or has had a thousand since."""

    SPENT = b"spent"
    """The card had all the updates that it may have."""

    MOVED = b"moved"
    """The card has another revision than the update is based on."""


class CardEmitted(msgspec.Struct, frozen=True):
    """The result of `emit_card`. `revision` comes with MOVED."""

    outcome: Carded
    revision: int = 0


class Finished(enum.Enum):
    """The outcomes of `finish`."""

    DONE = b"done"
    FULL = b"full"
    """Nothing was changed, since too much waits for the last replies to be queued: try again later."""

    STORE_FULL = b"store_full"
    """Nothing was changed, since what handlers keep for the whole agent has reached its bound."""

    WAITS_FULL = b"waits_full"
    """Nothing was changed, since all open questions of the agent have reached their bound."""

    CHANGED = b"changed"
    """Nothing was changed, since what an effect was made from is another by now (bus/steps/thread_steps.py)."""

    FENCED = b"fenced"


class Failed(enum.Enum):
    """The outcomes of `fail`."""

    RETRY = b"retry"
    SUPERSEDED = b"superseded"
    DEAD = b"dead"
    FENCED = b"fenced"


class Started(msgspec.Struct, frozen=True):
    """What a worker learns when it begins a job. `stopped`: its person has said /stop.

    `places`: those that earlier runs have emitted. `together`: later messages that are handled with it, in order.
    `cards`: the ids of the cards at some of these places. `is_noted`: the ledger has this start.
    `journal`: what its thread has noted, by name; None for an entry that cannot be read any more.
    """

    outcome: Literal["started", "stopped", "superseded", "fenced"]
    places: frozenset[str] = frozenset()
    together: tuple[InboundMessage, ...] = ()
    is_noted: bool = True
    cards: Mapping[str, str] = {}
    journal: Mapping[str, bytes | None] = {}
    is_answer: bool = False
    """An earlier run was bound to a question: it is its answer and nothing else."""


Taken = Literal["attempt", "delivery", "nothing"]
"""What a run that did not go well takes from its job: a try (which is a delivery as well), a delivery alone, or neither."""

Said = tuple[str, Reply]
"""A reply and its place."""


class JobSteps:
    """The steps of one agent's jobs, as one consumer."""

    def __init__(
        self, commands: Commands, agent_id: str, bus_key: BusKey, consumer: str, *, policies: Policies | None = None
    ) -> None:
        """`consumer`: unique per process start; its pending entries are the jobs of this process."""
        self._commands = commands
        self._keys = Keys(agent_id)
        self._agent_id = agent_id
        self._bus_key = bus_key
        self._consumer = consumer
        self._policies = policies or Policies()

    def unpack(self, entry_id: str, fields: Mapping[str, bytes]) -> Job:
        """Returns the job in an entry of `jobs`; raises BadRecord."""
        try:
            attempt, deliveries, strikes = int(fields["a"]), int(fields["d"]), int(fields.get("s", 0))
        except (KeyError, ValueError):
            raise BadRecord("job: its entry lacks its numbers") from None
        return unpack_job(
            fields.get("r", b""),
            entry_id=entry_id,
            attempt=attempt,
            deliveries=deliveries,
            strikes=strikes,
            has_past="k" in fields,
            key=self._bus_key,
            agent_id=self._agent_id,
        )

    async def start(
        self, job: Job, *, began_ms: int | None = None, is_alone: bool = False, asked: Sequence[str] = ()
    ) -> Started:
        """Begins a job that was taken; returns whether to go on, and what earlier runs have done. `began_ms`: if it has begun before.

        `is_alone`: nothing is handled together with it; `asked`: nor is what these people say, which may be the answer to a question.
        """
        coalesce = "1" if self._policies.busy == "coalesce" and not (job.continues or is_alone) else "0"
        began = "" if began_ms is None else began_ms
        answer = cast("list[Value]", await self._on_job("start", job, job.job_id, coalesce, began, *asked))
        outcome = cast(bytes, answer[0]).decode()
        if outcome in ("superseded", "fenced"):
            return Started(cast("Literal['superseded', 'fenced']", outcome))
        how = cast("Literal['started', 'stopped']", outcome)
        together = self._open_all(cast("list[bytes]", answer[2]))
        found = {name.decode(): value for name, value in pairs(cast("list[bytes]", answer[1]))}
        if not found:
            return Started(how, together=together)
        places, cards, journal = read_emitted(found, job, self._bus_key, self._agent_id)
        is_answer = BOUND_PLACE in found
        return Started(how, places, together, cards=cards, journal=journal, is_answer=is_answer)

    def _open_all(self, records: Sequence[bytes]) -> tuple[InboundMessage, ...]:
        return tuple(open_job(record, key=self._bus_key, agent_id=self._agent_id) for record in records)

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted:
        """Queues a reply at a place of the job."""
        return Emitted(await self._on_job("emit", job, place, self._pack(job, place, reply), job.job_id))

    async def emit_to(
        self, job: Job, conversation_id: str, place: str, reply: Reply, card: CardMove | None = None
    ) -> Emitted:
        """Queues a reply at a place of the job in another conversation; UNKNOWN if nobody has written there yet. `card`: the new one it shows.

        It is dated by our clock: in a group the time of a message of elsewhere might make it stale to everybody.
        """
        at = ReplyPlace(job.thread_id, conversation_id, place, job.accepted_ms)
        names, shown = self._keys, () if card is None else (card.card_id, card.kind, job.thread_id)
        keys = [*names.board(conversation_id), names.emitted(job.conversation_id), names.cards(conversation_id)]
        arguments = (conversation_id, job.entry_id, self._consumer, place, self._pack_at(at, job, reply), job.job_id)
        return Emitted(await self._commands.script("emit_to", keys, *arguments, *shown))

    async def emit_card(self, job: Job, place: str, reply: Reply, move: CardMove) -> CardEmitted:
        """Queues a card, or an update of one, at a place of the job, and counts its revision."""
        keys = [*self._keys.board(job.conversation_id), self._keys.cards(job.conversation_id)]
        answer = await self._commands.script(
            "emit_card",
            keys,
            *(job.conversation_id, job.entry_id, self._consumer, place, self._pack(job, place, reply), job.job_id),
            *(move.card_id, move.kind, "" if move.based_on is None else move.based_on, job.thread_id),
        )
        outcome, *more = cast("list[Value]", answer)
        carded = Carded(outcome)
        return CardEmitted(carded, cast(int, more[0]) if carded is Carded.MOVED else 0)

    async def card(self, job: Job, card_id: str) -> CardKept | None:
        """Returns what is kept of a card of the job's conversation; None if it has no such card. Raises BadRecord."""
        kept = await self._commands.command("HGET", self._keys.cards(job.conversation_id), card_id)
        return None if kept is None else decode_card(cast(bytes, kept))

    async def stopped(self, job: Job) -> str:
        """Returns the card of the running job whose Stop was pressed; STOP_ALL where its person has said /stop, '' for neither."""
        card_id = await self._commands.command("HGET", self._keys.conversation(job.conversation_id), "stop")
        return cast(bytes, card_id).decode() if card_id else ""

    def card_id(self, job: Job, place: str) -> str:
        """Returns the id of a card at a place of the job: the same in every run of it."""
        return self._bus_key.card_id(job.message_ms, job.thread_id, place)

    def sent_as(self, job: Job, place: str, *, is_elsewhere: bool = False) -> str:
        """Returns the client_message_id of what is said at a place of the job, in its conversation or elsewhere; '' if it is not known yet."""
        key, ms = self._bus_key.identifier, job.accepted_ms if is_elsewhere else job.message_ms
        return reply_message_id(reply_id(key, job.thread_id, place), ms) if key else ""

    def _pack(self, job: Job, place: str, reply: Reply) -> bytes:
        return self._pack_at(ReplyPlace(job.thread_id, job.conversation_id, place, job.message_ms), job, reply)

    def _pack_at(self, at: ReplyPlace, job: Job, reply: Reply) -> bytes:
        return pack_reply(
            at,
            reply,
            emitted_ms=int(time.time() * 1000),
            key=self._bus_key,
            agent_id=self._agent_id,
            trace=job.trace,
        )

    async def finish(
        self,
        job: Job,
        outcome: Settled = "done",
        *,
        last: Sequence[Said] = (),
        began_ms: int | None = None,
    ) -> Finished:
        """Ends a job that went well. `last`: replies that go out with its end; `began_ms`: its start, if that was not noted."""
        began = "" if began_ms is None else began_ms
        arguments: list[Argument] = [job.job_id, outcome, job.attempt, job.deliveries, began]
        for place, reply in last:
            arguments += [place, self._pack(job, place, reply)]
        return Finished(await self._on_job("finish", job, *arguments))

    async def fail(
        self,
        job: Job,
        reason: str,
        retry_after_ms: int | None,
        apology: Reply | None = None,
        *,
        takes: Taken = "attempt",
    ) -> Failed:
        """Ends a failed run: the job runs again after `retry_after_ms`, or with None is a dead letter, and its sender gets `apology`.

        A job that has had all its deliveries is one too, unless the run takes none.
        """
        return await self._fail(
            job.entry_id,
            job.conversation_id,
            job.job_id,
            reason,
            retry_after_ms=retry_after_ms,
            apology=self._pack_apology(job, apology),
            takes=takes,
        )

    async def _fail(
        self,
        entry_id: str,
        conversation: str,
        job_id: str,
        reason: str,
        *,
        retry_after_ms: int | None = None,
        apology: bytes = b"",
        takes: Taken = "attempt",
    ) -> Failed:
        after = "" if retry_after_ms is None else retry_after_ms
        words = (conversation, entry_id, self._consumer, job_id, after, reason, MOST_DELIVERIES, apology)
        return Failed(await self._commands.script("fail", self._keys.board(conversation), *words, takes))

    async def hand_back(self, job: Job, *, has_begun: bool = False, apology: Reply | None = None) -> bool:
        """Gives an unfinished job to another worker; returns whether it became a dead letter instead.

        The attempt does not count. The delivery counts if its handler had begun; after the twentieth it is a dead letter and its sender
        gets `apology`.
        """
        packed = self._pack_apology(job, apology)
        return await self._hand_back(job.entry_id, job.conversation_id, job.job_id, has_begun=has_begun, apology=packed)

    async def _hand_back(
        self, entry_id: str, conversation: str, job_id: str, *, has_begun: bool = False, apology: bytes = b""
    ) -> bool:
        arguments = (conversation, entry_id, self._consumer, job_id, int(has_begun), MOST_DELIVERIES, apology)
        return await self._commands.script("hand_back", self._keys.board(conversation), *arguments) == b"dead"

    def _pack_apology(self, job: Job, apology: Reply | None) -> bytes:
        """Seals the apology; b"" if its sender is told nothing. Each message of a thread that is given up has its own."""
        if apology is None or not is_owed_an_apology(job.message, self._agent_id):
            return b""
        payload = with_hops(apology.payload, job.message.answering_hops)
        own = msgspec.structs.replace(job, continues="")
        return self._pack(own, APOLOGY_PLACE, msgspec.structs.replace(apology, payload=payload))

    async def _on_job(self, script: str, job: Job, *arguments: Argument) -> Value:
        keys = self._keys.board(job.conversation_id)
        return await self._commands.script(script, keys, job.conversation_id, job.entry_id, self._consumer, *arguments)
