"""One device of a person: its keys, whom it knows, its sessions and groups; seals and opens, and does no IO.

What it knows changes only when a message has opened, or was sealed (crypto §7.1 "Commit").
"""

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.second_endpoint import groups, ratchet, streams
from tests.second_endpoint.encoding import Random, ulid
from tests.second_endpoint.envelope import (
    V1,
    V1_1,
    V1_2,
    Envelope,
    Ids,
    Payload,
    close_envelope,
    read_envelope,
    seal_content,
    the_wrap,
)
from tests.second_endpoint.errors import Unreadable
from tests.second_endpoint.groups import GroupKey
from tests.second_endpoint.keys import Bundle, Identity, OwnPrekeys, Pair, make_registration
from tests.second_endpoint.ratchet import MOST_UNANSWERED, Session

Frame = Mapping[str, object]
Peer = tuple[str, str]

RENEGOTIABLE = frozenset({"no_session", "unknown_prekey", "too_many_skipped", "key_used", "bad_ciphertext"})


def system(kind: str) -> Payload:
    """The payload of one of our own events."""
    return {"type": "system", "event": {"kind": kind}}


@dataclass(frozen=True)
class Place:
    """A conversation: of a group, or with one owner."""

    conversation_id: str
    other: str
    is_group: bool = False


class Device:
    """Made with fresh keys; an agent's has its agent id as `device_id`."""

    def __init__(
        self,
        owner_id: str,
        device_id: str = "",
        identity: Identity | None = None,
        random: Random = os.urandom,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.owner_id = owner_id
        self.device_id = device_id or str(uuid.uuid4())
        self.identity = identity or Identity(random(32), random(32))
        self.random = random
        self.now_ms = now_ms
        self.prekeys = OwnPrekeys({}, {})
        self.pins: dict[str, Pair] = {owner_id: self.identity.pair}
        self.sessions: dict[Peer, tuple[Session, ...]] = {}
        self.groups: dict[str, tuple[GroupKey, ...]] = {}
        self._seen: set[bytes] = set()

    def registration(self, one_time: int = 100) -> dict[str, object]:
        """The body that publishes it, and later so many more one-time prekeys."""
        return make_registration(
            self.owner_id, self.device_id, self.identity, self.prekeys, count=one_time, random=self.random
        )

    def new_id(self) -> str:
        """A client_message_id."""
        return ulid(self.now_ms(), self.random)

    # Whom it knows

    def read_bundle(self, entry: Frame, owner_id: str) -> Bundle:
        """A bundle that counts; at first sight its pair is pinned. Raises Unreadable."""
        bundle = Bundle.read(entry, owner_id, self.pins.get(owner_id))
        self.pins[owner_id] = bundle.pair
        return bundle

    def begin(self, bundle: Bundle) -> None:
        """A new session with this device, sent on from now on."""
        peer = bundle.owner_id, bundle.device_id
        known = self.sessions.get(peer, ())
        started = max(self.now_ms(), 1 + max((one.started for one in known), default=0))
        session = ratchet.start(self.identity, bundle, started, self.random)
        self.sessions[peer] = ratchet.with_session(known, session)

    def may_send(self, peer: Peer) -> bool:
        """Whether there is a session to send on."""
        known = self.sessions.get(peer, ())
        return bool(known) and known[-1].sent < MOST_UNANSWERED

    def forget_sessions(self) -> None:
        """As after a loss of its state: keys and pins are kept."""
        self.sessions.clear()

    # Sealing

    def seal(self, place: Place, payload: Payload, client_message_id: str, devices: Sequence[str] = ()) -> str:
        """For a group under its highest key; for an owner's `devices`, an agent's one if none are named."""
        if place.is_group:
            key = self.groups[place.other][-1]
            return groups.seal_group_message(
                self._ids(V1_1, place, client_message_id), key, payload, self.identity, self.random
            )
        ids = self._ids(V1_2, place, client_message_id)
        content = seal_content(ids, payload, self.random)
        wraps = []
        for device_id in devices or (place.other,):
            peer = place.other, device_id
            known = self.sessions[peer]
            session, wrap = ratchet.wrap_for(known[-1], device_id, content.key, content.content_id, self.random)
            self.sessions[peer] = ratchet.with_session(known, session)
            wraps.append(wrap)
        return close_envelope(ids, content, wraps, self.identity)

    def make_group_key(self, place: Place, members: Sequence[str]) -> tuple[int, str]:
        """The next version for these owners, all of them pinned, and its envelope; kept as the newest."""
        known = self.groups.get(place.other, ())
        version = known[-1].version + 1 if known else 1
        key = GroupKey(place.other, version, self.random(32), tuple(members))
        recipients = {owner_id: self.pins[owner_id].x25519 for owner_id in members}
        ids = self._ids(V1, place, self.new_id())
        self.groups[place.other] = groups.accept_key(known, key, self.owner_id)
        return version, groups.seal_group_key(ids, key, recipients, self.identity, self.random)

    def begin_stream(self, place: Place) -> tuple[streams.Growing, Payload]:
        """A stream of ours, and the payload of its `stream.start`."""
        stream_id, key = self.new_id(), self.random(32)
        v = V1_1 if place.is_group else V1_2
        begun = streams.Growing(stream_id, key, self._ids(v, place, stream_id))
        return begun, streams.start_payload(stream_id, key)

    def seal_delta(self, growing: streams.Growing, text: str) -> tuple[streams.Growing, str]:
        """The stream after its next piece, and the piece."""
        ids = replace(growing.begun, client_message_id=self.new_id())
        sealed = streams.seal_delta(ids, growing, text, self.identity, self.random)
        return replace(growing, text=growing.text + text, pieces=growing.pieces + 1), sealed

    def _ids(self, v: str, place: Place, client_message_id: str) -> Ids:
        return Ids(v, place.conversation_id, place.other, self.owner_id, self.device_id, client_message_id)

    # Opening

    def open(self, frame: Frame, place: Place) -> Payload:
        """The payload of a `message.new`, `stream.start` or `stream.done`, once each. Raises Unreadable, having changed nothing."""
        envelope = self.verified(frame, place)
        if envelope.ids.replay_id in self._seen:
            raise Unreadable("duplicate")
        if place.is_group:
            payload = groups.open_group_message(envelope, self.groups.get(place.other, ()))
        else:
            payload = self._open_ratchet(envelope)
        self._seen.add(envelope.ids.replay_id)
        if payload.get("type") == "delta":
            raise Unreadable("bad_payload")
        return payload

    def open_stream(self, frame: Frame, place: Place) -> streams.Growing:
        """What a `stream.start` begins. Raises Unreadable."""
        payload = self.open(frame, place)
        return streams.begin(self.verified(frame, place), payload, str(frame["stream_id"]))

    def grow(self, growing: streams.Growing, frame: Frame, place: Place) -> streams.Growing:
        """The stream after a `stream.delta`. Raises Unreadable."""
        return streams.grow(growing, self.verified(frame, place), int(str(frame["seq"])))

    def take_group_key(self, place: Place, encrypted_payload: str) -> None:
        """What the relay has as the group's key. Raises Unreadable."""
        envelope = read_envelope(encrypted_payload)
        maker = envelope.ids.sender_id
        if envelope.ids.to != place.other:
            raise Unreadable("not_for_us")
        if maker not in self.pins:
            raise Unreadable("unknown_sender")
        envelope.check_signature(self.pins[maker])
        key = groups.open_group_key(envelope, self.owner_id, self.identity)
        self.groups[place.other] = groups.accept_key(self.groups.get(place.other, ()), key, maker)

    def verified(self, frame: Frame, place: Place) -> Envelope:
        """Everything before the memory of ids, in its order. Raises Unreadable."""
        envelope = read_envelope(str(frame["encrypted_payload"]))
        ids = envelope.ids
        told_device = frame.get("sender_device_id") or ids.sender_device
        if (ids.conversation_id, ids.sender_id, ids.sender_device) != (
            frame["conversation_id"],
            frame["sender_id"],
            told_device,
        ):
            raise Unreadable("not_for_us", "the frame says otherwise")
        if ids.v != (V1_1 if place.is_group else V1_2):
            raise Unreadable("unsupported_version")
        if (ids.sender_id, ids.sender_device) == (self.owner_id, self.device_id):
            raise Unreadable("not_for_us", "our own")
        if ids.to != (place.other if place.is_group else self.owner_id):
            raise Unreadable("not_for_us", "to somebody else")
        if not place.is_group and ids.sender_id != place.other:
            raise Unreadable("not_for_us", "not this conversation's")
        if ids.sender_id not in self.pins:
            raise Unreadable("unknown_sender")
        envelope.check_signature(self.pins[ids.sender_id])
        return envelope

    def _open_ratchet(self, envelope: Envelope) -> Payload:
        wrap = the_wrap(envelope, "ratchet", "to", self.device_id, "no_session")
        peer = envelope.ids.sender_id, envelope.ids.sender_device
        known = self.sessions.get(peer, ())
        found = [one for one in known if one.id == wrap.get("session")]
        session = (
            found[0] if found else ratchet.answer(self.identity, self.pins[peer[0]], wrap, self.prekeys, self.now_ms())
        )
        session, content_key = ratchet.unwrap(session, wrap, envelope.content_id)
        payload = envelope.payload(content_key)
        self.sessions[peer] = ratchet.with_session(known, session)
        if not found:
            told = wrap["handshake"]
            assert isinstance(told, dict)
            self.prekeys.one_time.pop(told.get("one_time_prekey_id", -1), None)
        return payload
