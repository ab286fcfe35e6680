"""Two endpoints, a relay that deduplicates, and time that goes back on either side: does a conversation ever stay deaf?

Everything random comes from one seed. Each endpoint keeps what a real one keeps and drives crypto/ itself; the rules of PROTOCOL §5.4 that
belong to the caller (when to offer, under which id, what an offer's `lost` means) stand here by name, so that each can be left out.
"""

from __future__ import annotations

import copy
import random as seeded
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from crypto import strict_base64
from crypto.envelope import ratchet_wrap, read_envelope
from crypto.errors import CannotSend, Reason, Unreadable
from crypto.prekeys import make_one_time_prekeys, make_signed_prekey
from crypto.ratchet import decode_header
from crypto.records import EMPTY_RECORD, DeviceRecord
from crypto.renewal import (
    Renewal,
    handshake_refused,
    has_open_offer,
    known_bundle,
    needs_bundle,
    never_sent_on,
    offered,
    renewal_due,
    session_was_offered,
)
from crypto.sessions import start_session
from crypto.wraps import RatchetWrap
from tests.crypto.builders import Peer, make_peer

RULES = frozenset(
    {
        "fresh_ids",  # an offer has an id of its own, made when it is posted
        "repeats",  # an unanswered offer is made again
        "lost",  # who opens an offer never sends on the session that it names
        "refused_started",  # a new session starts later than any that was refused
        "fresh_bundle",  # the second new session in a row takes a fetched bundle: both may know only prekeys that the other has lost
        "restored_is_silent",  # who came back older sends on none of its old sessions
    }
)

CALM_MESSAGES = 40
CALM_SECONDS = 120
CHAOS_STEPS = 40
LOSES = 0.3
SKEW_MS = 3_600_000


@dataclass
class Stored:
    """One message at the relay."""

    sender: str
    client_message_id: str
    encrypted_payload: str


@dataclass
class Relay:
    """Keeps everything, once for each id of a sender; hands out the bundle that a device published last."""

    random: seeded.Random
    messages: list[Stored] = field(default_factory=list)
    known: set[tuple[str, str]] = field(default_factory=set)
    loses: float = 0.0
    """How many of a hundred never arrive: whoever sent them went back before they were acknowledged."""

    def store(self, message: Stored) -> None:
        key = (message.sender, message.client_message_id)
        if key not in self.known and self.random.random() >= self.loses:
            self.known.add(key)
            self.messages.append(message)

    def forks(self) -> int:
        """How many ratchet positions carry two envelopes: (session, ratchet key, number)."""
        places = Counter(_place(message.encrypted_payload) for message in self.messages)
        return sum(count > 1 for count in places.values())


@dataclass
class Memory:
    """What goes back when an endpoint does."""

    peer: Peer
    record: DeviceRecord = EMPTY_RECORD
    cursor: int = 0
    seen: frozenset[str] = frozenset()


class Endpoint:
    """One device. `answers`: it is the agent, whose replies have ids made from what they answer."""

    def __init__(self, peer: Peer, relay: Relay, *, answers: bool, rules: frozenset[str], skew_ms: int) -> None:
        self.now = Memory(peer)
        self.other: Endpoint
        self.heard: list[str] = []
        self._relay = relay
        self._answers = answers
        self._rules = rules
        self._skew_ms = skew_ms
        self._past: list[Memory] = []
        self._highest_prekey = 1
        self._count = 0

    @property
    def id(self) -> str:
        return self.now.peer.id

    # What happens to it

    def remember(self) -> None:
        """A backup is made."""
        self._past.append(copy.deepcopy(self.now))

    def go_back(self, random: seeded.Random) -> None:
        """Some backup is put back: the epoch is raised. What the disk lost, the relay's memory of ids did not.

        Also one from before the last return: what was published after that is lost then, and the other side may know nothing newer.
        """
        if not self._past:
            return
        epoch, now_ms = self.now.peer.epoch, self.now.peer.now_ms
        place = random.randrange(len(self._past))
        self.now, self._past = copy.deepcopy(self._past[place]), self._past[: place + 1]
        self.now.peer.epoch = epoch + (1 if "restored_is_silent" in self._rules else 0)
        self.now.peer.now_ms = now_ms
        self.now.peer.lost_through = self._highest_prekey
        self._publish()

    def reinstall(self) -> None:
        """Everything but the identity is gone."""
        peer = self.now.peer
        peer.records.clear()
        self.now = Memory(peer, cursor=len(self._relay.messages))
        self._past.clear()
        peer.signed.clear()
        peer.one_time.clear()
        peer.epoch += 1
        self._publish()

    def _publish(self) -> None:
        """New prekeys; ids are never used twice."""
        self._highest_prekey += 1
        peer, number = self.now.peer, self._highest_prekey
        peer.signed[number] = make_signed_prekey(peer.device, number, peer.now_ms, peer.random)
        peer.current_signed = number
        peer.one_time = {key.id: key for key in make_one_time_prekeys(number * 1000, 3, peer.random)}
        peer.offered = number * 1000 - 1

    # Sending

    def say(self, words: str, client_message_id: str = "") -> None:
        """One message; an epoch that was raised meanwhile has its session offered first."""
        epoch, now_ms = self.now.peer.epoch, self._clock()
        if self._answers and self.now.record.sessions and not self.now.record.may_send(epoch, now_ms):
            self._offer(b"")
        self._send({"type": "text", "text": words}, client_message_id or self._fresh_id())

    def _offer(self, lost: bytes, *, client_message_id: str = "") -> None:
        event = {"kind": "session.renewed", "lost": strict_base64.encode(lost)}
        if not has_open_offer(self.now.record, epoch=self.now.peer.epoch, now_ms=self._clock()):
            self._start()
            self.now.record = session_was_offered(self.now.record)
        self._send({"type": "system", "event": event}, client_message_id or self._fresh_id())

    def _send(self, payload: dict[str, object], client_message_id: str) -> None:
        peer = self.now.peer
        if not self.now.record.may_send(peer.epoch, self._clock()):
            self._start()
        try:
            sealed, self.now.record = peer.seal_payload(
                self.other.now.peer, self.now.record, payload, client_message_id, self._clock()
            )
        except CannotSend:
            return
        self._relay.store(Stored(self.id, client_message_id, sealed))

    def _start(self) -> None:
        peer, other = self.now.peer, self.other.now.peer
        now_ms = self._clock()
        must_fetch = needs_bundle(self.now.record, now_ms)
        if "fresh_bundle" not in self._rules and self.now.record.prekey is not None:
            must_fetch = False
        bundle = other.bundle() if must_fetch else known_bundle(self.now.record, other.device.owner_id, other.id)
        assert bundle is not None
        record = self.now.record
        if "refused_started" not in self._rules:
            record = _without_refused(record)
        self.now.record = start_session(
            record, peer.device, bundle, epoch=peer.epoch, now_ms=now_ms, random=peer.random
        )

    def _fresh_id(self) -> str:
        """Random: not counted by anything that may go back."""
        return "01J" + self.now.peer.random(12).hex().upper()[:23]

    def _clock(self) -> int:
        return self.now.peer.now_ms + self._skew_ms

    # Hearing

    def poll(self) -> None:
        """Everything since the cursor."""
        while self.now.cursor < len(self._relay.messages):
            message = self._relay.messages[self.now.cursor]
            self.now.cursor += 1
            if message.sender != self.id and message.client_message_id not in self.now.seen:
                self._hear(message)

    def hear_again(self, random: seeded.Random) -> None:
        """The relay shows something old once more: a handshake, an offer, what was answered."""
        theirs = [message for message in self._relay.messages[: self.now.cursor] if message.sender != self.id]
        if theirs:
            message = random.choice(theirs)
            if message.client_message_id not in self.now.seen:
                self._hear(message)

    def _hear(self, message: Stored) -> None:
        peer, other = self.now.peer, self.other.now.peer
        self.now.seen = self.now.seen | {message.client_message_id}
        peer.records[other.id] = self.now.record
        now_ms, peer.now_ms = peer.now_ms, self._clock()
        try:
            opened = peer.try_open(other, message.encrypted_payload)
        except Unreadable as error:
            self._failed(message, error.reason)
            return
        finally:
            peer.now_ms = now_ms
        peer.commit(other, opened)
        self.now.record = opened.record
        self._understand(message, opened.payload)

    def _understand(self, message: Stored, payload: dict[str, object]) -> None:
        if payload["type"] == "system":
            event = payload["event"]
            assert isinstance(event, dict)
            if "lost" in self._rules and event["lost"]:
                self.now.record = never_sent_on(self.now.record, strict_base64.decode(event["lost"]))
            return
        words = str(payload["text"])
        self.heard.append(words)
        if self._answers:
            self.say(f"re: {words}", f"01J{message.client_message_id[3:][::-1]}")

    def _failed(self, message: Stored, reason: Reason) -> None:
        peer, other = self.now.peer, self.other.now.peer
        wrap = ratchet_wrap(peer.parse(other, message.encrypted_payload), self.id)
        record = self.now.record
        if "refused_started" in self._rules:
            record = handshake_refused(record, wrap, self._clock())
        renewal = renewal_due(record, reason, epoch=peer.epoch, now_ms=self._clock())
        self.now.record = record
        if renewal is Renewal.NONE or (renewal is Renewal.REPEAT and "repeats" not in self._rules):
            return
        self.now.record = offered(record, renewal, self._clock())
        # Without the rule: an id made from what the offer is about, as a reply's is made from what it answers.
        named = "" if "fresh_ids" in self._rules else f"01K{wrap.session.hex().upper()[:23]}"
        self._offer(wrap.session, client_message_id=named)


def _place(encrypted_payload: str) -> tuple[bytes, bytes, int]:
    (wrap,) = read_envelope(encrypted_payload, allow_v1=False).wraps
    assert isinstance(wrap, RatchetWrap)
    header = decode_header(wrap.header)
    return wrap.session, header.ratchet_key, header.number


def _without_refused(record: DeviceRecord) -> DeviceRecord:
    fields = {name: getattr(record, name) for name in record.__struct_fields__} | {"refused_started": 0}
    return DeviceRecord(**fields)


class Outcome(msgspec.Struct, frozen=True):
    """Whether a conversation still does not work after forty calm messages, and how often a ratchet forked."""

    is_deaf: bool
    forks: int


def converse(seed: int, rules: frozenset[str] = RULES) -> Outcome:
    """One conversation: chaos of this seed, with these rules, then calm."""
    random = seeded.Random(seed)
    relay = Relay(random, loses=LOSES)
    person = Endpoint(make_peer(1), relay, answers=False, rules=rules, skew_ms=random.randint(-SKEW_MS, SKEW_MS))
    agent = Endpoint(make_peer(2), relay, answers=True, rules=rules, skew_ms=random.randint(-SKEW_MS, SKEW_MS))
    person.other, agent.other = agent, person
    for number in range(CHAOS_STEPS):
        _step(random, person, agent, number)
        _pass_time(person, agent, random.choice((1, 5, 30, 600)))
    for one in random.sample((agent, agent, person), k=random.randint(1, 3)):
        one.go_back(random)
    relay.loses = 0.0
    for number in range(CALM_MESSAGES):
        person.say(f"calm {number}")
        for _ in range(3):
            agent.poll()
            person.poll()
        _pass_time(person, agent, CALM_SECONDS)
    last = f"calm {CALM_MESSAGES - 1}"
    return Outcome(last not in agent.heard or f"re: {last}" not in person.heard, relay.forks())


def _step(random: seeded.Random, person: Endpoint, agent: Endpoint, number: int) -> None:
    what = random.random()
    if what < 0.5:
        person.say(f"chaos {number}")
    elif what < 0.72:
        random.choice((agent.poll, person.poll))()
    elif what < 0.84:
        random.choice((agent, person)).remember()
    elif what < 0.93:
        random.choice((agent, agent, person)).go_back(random)
    elif what < 0.96:
        person.reinstall()
    elif what < 0.98:
        random.choice((agent, person)).hear_again(random)
    else:
        agent.poll()
        person.poll()


def _pass_time(person: Endpoint, agent: Endpoint, seconds: int) -> None:
    for one in (person, agent):
        one.now.peer.now_ms += 1000 * seconds
