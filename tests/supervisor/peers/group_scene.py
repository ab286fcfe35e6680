"""A group of people with real keys and the agent, whose core runs on a real Redis."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bus.records import ulid
from bus.records.records import Payload
from bus.steps.store import now_ms
from crypto.envelope import V1_1, Envelope, Expected, parse_envelope, verify_signature
from crypto.groups import GroupKey, GroupKeys, open_group_message, seal_group_key, seal_group_message
from supervisor.relay.frames import Frame, MessageNew, MessageSend, StreamDelta, StreamDone, StreamStart
from supervisor.settings.pauses import PAUSES, Pauses
from tests.redis_server import redis_server
from tests.supervisor.builders import IDENTITY, Core, open_core, sending
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import AGENT, CONVERSATION, Person, message_frame

GROUP = "01906abc-0000-7000-8000-00000000f001"
OTHER_GROUP = "01906abc-0000-7000-8000-00000000f002"
BEN = "01906abc-0000-7000-8000-0000000000b1"
IDS_KEPT = 1536


class Circle:
    """The group as its people see it: every version that was made, whether the relay hands it out or not."""

    def __init__(self, rest: FakeRest, *people: Person) -> None:
        self.rest = rest
        self.people = people
        self.versions: dict[int, GroupKey] = {}
        self.seq = 0

    def make(
        self,
        version: int,
        maker: Person,
        *,
        members: tuple[Person, ...] | None = None,
        group: str = GROUP,
        others: int = 0,
    ) -> GroupKey:
        """A version for these people (all of them, unless told), the agent, and so many others; the relay hands it out."""
        ids = [one.user_id for one in (self.people if members is None else members)]
        ids += [AGENT, *(f"other-{number}" for number in range(others))]
        key = GroupKey(group, version, os.urandom(32), tuple(ids))
        self.rest.group_keys[GROUP] = seal_group_key(
            maker.device,
            key,
            conversation_id=CONVERSATION,
            client_message_id=new_id(),
            recipients={AGENT: IDENTITY.public.agreement_key},
            random=os.urandom,
        )
        self.versions[version] = key
        return key

    def say(
        self,
        person: Person,
        text: str = "hello",
        *,
        version: int | None = None,
        cmid: str | None = None,
        payload: Payload | None = None,
    ) -> MessageNew:
        """A frame with a message under a version, the highest unless told."""
        key = self.versions[max(self.versions) if version is None else version]
        sealed = seal_group_message(
            person.device,
            GroupKeys(key.group_id, (key,)),
            conversation_id=CONVERSATION,
            client_message_id=cmid or new_id(),
            payload=payload or {"type": "text", "text": text},
            random=os.urandom,
        )
        self.seq += 1
        frame = message_frame(sealed, person.user_id, seq=self.seq)
        return msgspec.structs.replace(frame, conversation_type="group")

    def read(self, frame: Frame, version: int) -> Payload:
        """What the agent said to the group under this version. Raises Unreadable."""
        assert isinstance(frame, MessageSend | StreamStart | StreamDone)
        return open_group_message(opened(frame), GroupKeys(GROUP, (self.versions[version],)))


def opened(frame: MessageSend | StreamStart | StreamDone | StreamDelta) -> Envelope:
    envelope = parse_envelope(frame.encrypted_payload, Expected(CONVERSATION, AGENT, AGENT))
    verify_signature(envelope, IDENTITY.public)
    assert (envelope.v, envelope.to) == (V1_1, GROUP)
    return envelope


def new_id(time_ms: int | None = None) -> str:
    return ulid.make(now_ms() if time_ms is None else time_ms, os.urandom(ulid.RANDOM_BYTES))


@asynccontextmanager
async def scene(tmp_path: Path, pauses: Pauses = PAUSES) -> AsyncIterator[tuple[Core, Circle, Person, Person]]:
    """Ada and Ben without a relation, whose devices the relay shows; Ada has made version 1."""
    rest = FakeRest()
    with redis_server(tmp_path) as url:
        async with open_core(url, rest, pauses=pauses) as core:
            await core.prekeys.publish()
            ada, ben = Person(rest), Person(rest, BEN)
            rest.bundles = {one.user_id: [one.bundle] for one in (ada, ben)}
            circle = Circle(rest, ada, ben)
            circle.make(1, ada)
            yield core, circle, ada, ben


async def pins(core: Core) -> tuple[str, str] | None:
    return await core.store.pins(CONVERSATION)


def fetches(core: Core) -> int:
    return core.rest.calls.count("group_key")


@asynccontextmanager
async def spoken_to(tmp_path: Path, *, others: int = 0) -> AsyncIterator[tuple[Core, Circle, Person, Person]]:
    """Ada has spoken in the group; the agent is connected and sends."""
    async with scene(tmp_path) as (core, circle, ada, ben):
        if others:
            circle.make(1, ada, others=others)
        await core.push(circle.say(ada))
        core.connection.connect()
        async with sending(core):
            yield core, circle, ada, ben
