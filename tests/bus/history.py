"""The world around a bus, and what must be true of its history: a relay that keeps what it was sent, and the ends of all messages.

A ciphertext is told by the key that made it (which session, and which number in it) and by which encryption it came from. Two encryptions
under one key are a fork.
"""

import copy
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import count

import msgspec

from bus.records.records import OutboxRecord

REFUSAL_PLACE = "!refused"


@dataclass(frozen=True)
class Message:
    """What a person has sent. `quarantine`: why it cannot be read at first."""

    conversation: str
    seq: int
    quarantine: str | None = None

    @property
    def id(self) -> str:
        return f"{self.conversation}-{self.seq}"

    @property
    def places(self) -> list[str]:
        """Where its handler replies: none to three times."""
        return [str(place) for place in range(self.seq % 4)]


@dataclass(frozen=True)
class Ack:
    cmid: str
    conversation: str
    message_id: str
    seq: int


class Ratchet(msgspec.Struct, frozen=True):
    """The session with a peer, as far as forks are concerned."""

    session: int
    received: int = 0
    sent: int = 0

    def sealed(self) -> bytes:
        return msgspec.msgpack.encode(self)


@dataclass
class Relay:
    """Order of all people's messages; per conversation seqs of theirs and ours; a second send of the same id is the first."""

    messages: list[Message] = field(default_factory=list)
    seqs: Counter[str] = field(default_factory=Counter)
    stored: dict[str, Ack] = field(default_factory=dict)
    received: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    keys: dict[str, str] = field(default_factory=dict)
    ciphertexts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def person_sends(self, conversation: str, quarantine: str | None) -> None:
        self.seqs[conversation] += 1
        self.messages.append(Message(conversation, self.seqs[conversation], quarantine))

    def page(self, cursor: str | None, size: int) -> list[Message]:
        start = next((at for at, one in enumerate(self.messages, 1) if one.id == cursor), 0)
        return self.messages[start : start + size]

    def reads(self, record: OutboxRecord) -> Ack:
        """What leaves a process has left it, whatever comes of it."""
        made, cmid = record.encrypted_payload, record.client_message_id
        assert self.keys.setdefault(made.partition("#")[0], made) == made, (
            "two messages under one key: the ratchet has forked"
        )
        self.ciphertexts[cmid].add(made)
        if cmid not in self.stored:
            self.seqs[record.conversation_id] += 1
            self.stored[cmid] = Ack(
                cmid, record.conversation_id, f"message of {cmid}", self.seqs[record.conversation_id]
            )
            self.received[record.conversation_id].append(cmid)
        return self.stored[cmid]


@dataclass(frozen=True)
class Retrying:
    message: Message
    together: list[Message]
    is_soon: bool


@dataclass
class Ledger:
    """What the bus has said became of each message. It goes back in time with the bus."""

    steps: int = 0
    accepted: dict[Message, int] = field(default_factory=dict)
    unstarted: set[Message] = field(default_factory=set)
    ended: Counter[Message] = field(default_factory=Counter)
    refused: set[Message] = field(default_factory=set)
    answered: set[Message] = field(default_factory=set)
    last_end: Counter[str] = field(default_factory=Counter)
    said: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    committed: Counter[str] = field(default_factory=Counter)
    retrying: dict[str, Retrying] = field(default_factory=dict)
    placed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Jobs that no message began and that have not ended, by conversation, in their order."""

    def step(self) -> int:
        self.steps += 1
        return self.steps

    def takes_in(self, message: Message, *, interrupts: bool) -> None:
        """It is to be handled: accepted, requeued or revived. If it interrupts, what waits for a second run is over."""
        retrying = self.retrying.pop(message.conversation, None) if interrupts else None
        if retrying is not None:
            self.ends(retrying.message, retrying.together, is_answered=False)
        self.accepted[message] = self.step()
        self.unstarted.add(message)

    def refuses(self, message: Message) -> None:
        self.step()
        self.refused.add(message)
        self.ended[message] += 1
        self.said[message.conversation].append(f"{message.id}/{REFUSAL_PLACE}")

    def starts(self, message: Message, together: list[Message]) -> None:
        """One at a time and in order: no earlier message waited when it was chosen."""
        if message in self.unstarted:
            chosen = max(self.accepted[message], self.last_end[message.conversation])
            for other in self.unstarted - {message}:
                if other.conversation == message.conversation and other.seq < message.seq:
                    assert self.accepted[other] > chosen, f"{message.id} overtook {other.id}"
        assert [one.seq for one in together] == sorted(one.seq for one in together)
        self.unstarted -= {message, *together}

    def ends(self, message: Message, together: list[Message], *, is_answered: bool) -> None:
        self.last_end[message.conversation] = self.step()
        self.unstarted.discard(message)
        for one in (message, *together):
            self.ended[one] += 1
        if is_answered:
            self.answered.add(message)

    def places(self, job_id: str, conversation: str) -> None:
        self.placed[conversation].append(job_id)

    def ends_placed(self, job_id: str, conversation: str) -> None:
        """Each once, and in the order in which they were placed."""
        assert self.placed[conversation][:1] == [job_id], f"{job_id} has ended twice, or overtook another"
        self.placed[conversation].pop(0)
        self.last_end[conversation] = self.step()

    def starts_due(self) -> None:
        self.retrying = {name: one for name, one in self.retrying.items() if not one.is_soon}

    def gives_up(self, message: Message) -> None:
        """A dead letter is no end: it can come back."""
        self.last_end[message.conversation] = self.step()
        self.unstarted.discard(message)


@dataclass
class History:
    relay: Relay = field(default_factory=Relay)
    ledger: Ledger = field(default_factory=Ledger)
    sessions: "count[int]" = field(default_factory=lambda: count(1))
    times_back: int = 0
    drops: int = 0

    def remember(self) -> Ledger:
        return copy.deepcopy(self.ledger)

    def goes_back(self, remembered: Ledger) -> None:
        self.ledger = copy.deepcopy(remembered)
        self.times_back += 1

    def check(self, dead_messages: set[str], dead_replies: set[str]) -> None:
        """At the end of everything."""
        for message in self.relay.messages:
            times = self.ledger.ended[message] + (message.id in dead_messages)
            assert times == 1, f"{message.id} has ended {times} times"
        assert not any(self.ledger.placed.values()), "what was placed has never run"
        for message in self.ledger.answered:
            for place in message.places:
                cmid = f"{message.id}/{place}"
                assert cmid in self.relay.stored or cmid in dead_replies, f"{cmid} was never sent"
        for message in self.ledger.refused:
            cmid = f"{message.id}/{REFUSAL_PLACE}"
            assert cmid in self.relay.stored or cmid in dead_replies, f"{cmid} was never sent"
        if self.times_back == 0:
            assert all(times == 1 for times in self.ledger.committed.values())
            assert all(len(made) == 1 for made in self.relay.ciphertexts.values())
            if self.drops == 0:
                assert dict(self.relay.received) == {name: said for name, said in self.ledger.said.items() if said}
