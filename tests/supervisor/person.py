"""A person at one device, without a socket: the frames by which the relay hands over what they say."""

import os

from bus.records import ulid
from bus.steps.store import now_ms
from crypto import strict_base64
from crypto.envelope import Expected
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import bundle_from_json
from sandbox.device_state import DeviceState
from supervisor.relay.frames import Frame, MessageNew, MessageSend, Relation
from tests.supervisor.doubles import FakeRest

AGENT = "01906abc-0000-7000-8000-000000000001"


PERSON = "01906abc-0000-7000-8000-0000000000a1"


CONVERSATION = "01906abc-0000-7000-8000-0000000000c1"


class Person:
    """A person's one device. What they say is sealed with the agent's published keys."""

    def __init__(
        self, rest: FakeRest, user_id: str = PERSON, *, device_id: str = "phone", identity: IdentityKeys | None = None
    ) -> None:
        self.user_id = user_id
        self.identity = identity or IdentityKeys.generate(os.urandom)
        self.device = LocalDevice(user_id, device_id, self.identity)
        self.state = DeviceState(self.device)
        self._rest = rest
        self._seq = 0
        entry = self.state.registration(1)
        first = entry.pop("one_time_prekeys")
        assert isinstance(first, list)
        self.bundle: dict[str, object] = {**entry, "one_time_prekey": first[0]}

    def meet(self, *, status: str = "active") -> Relation:
        """The relay knows of the relation and of the device from now on."""
        relation = relation_of(self, status=status)
        self._rest.related.append(relation)
        self._rest.bundles[self.user_id] = [self.bundle]
        return relation

    def say(
        self,
        text: str = "hello",
        *,
        seq: int | None = None,
        conversation: str = CONVERSATION,
        payload: dict[str, object] | None = None,
    ) -> MessageNew:
        """The frame by which the relay hands over one message."""
        if not self.state.may_send(AGENT, AGENT):
            self.state.start_session(bundle_from_json(agent_bundle(self._rest), AGENT))
        cmid = ulid.make(now_ms(), os.urandom(ulid.RANDOM_BYTES))
        sealed = self.state.seal(AGENT, [AGENT], conversation, cmid, payload or {"type": "text", "text": text})
        self._seq = self._seq + 1 if seq is None else seq
        return message_frame(sealed, self.user_id, seq=self._seq, conversation=conversation)

    def read(self, frame: Frame) -> dict[str, object]:
        """What the agent said to us in a frame of its."""
        assert isinstance(frame, MessageSend)
        expected = Expected(frame.conversation_id, AGENT, AGENT)
        return self.state.open(frame.encrypted_payload, expected).payload


def message_frame(
    encrypted_payload: str, sender_id: str = PERSON, *, seq: int = 1, conversation: str = CONVERSATION
) -> MessageNew:
    """A `message.new` with an id of its own."""
    return MessageNew(
        conversation_id=conversation,
        message_id=f"{conversation[-2:]}-{seq}-{os.urandom(4).hex()}",
        sender_id=sender_id,
        sender_type="human",
        content_type="text",
        encrypted_payload=encrypted_payload,
        conversation_seq=seq,
        created_at="2026-01-01T00:00:00Z",
    )


def relation_of(person: Person, *, status: str | None = None, scopes: tuple[str, ...] = ()) -> Relation:
    """The relation as the relay tells of it."""
    public = person.identity.public
    return Relation(
        user_id=person.user_id,
        public_key=strict_base64.encode(public.agreement_key),
        signing_public_key=strict_base64.encode(public.signing_key),
        scopes=scopes,
        status=status,
    )


def agent_bundle(rest: FakeRest) -> dict[str, object]:
    """What the relay gives out for the agent: the latest signed prekey, each one-time prekey once."""
    entry = dict(rest.registered[-1])
    for body in rest.registered:
        offered = body["one_time_prekeys"]
        assert isinstance(offered, list)
        if offered:
            entry["one_time_prekey"] = offered.pop(0)
            break
    del entry["one_time_prekeys"]
    return entry
