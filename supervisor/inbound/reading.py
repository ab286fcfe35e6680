"""Checks a frame in the order of PROTOCOL §5.10, opens it, and returns what is to be stored. Reads Redis, writes nothing.

The reading names the versions of what it was made with, whether the message could be read or not; supervisor/inbound/inbound.py commits it.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from bus.steps.questions import OpenQuestions
from bus.steps.store import InboundStore
from crypto.envelope import V1_1, Envelope, Expected, parse_envelope
from crypto.errors import Unreadable
from supervisor.inbound.incoming import Incoming
from supervisor.inbound.reading_groups import GroupReader
from supervisor.inbound.reading_persons import PersonReader
from supervisor.inbound.readings import CANCEL, WORDS, Known, Readable, Reading, Unread, snapshot_of
from supervisor.peers.sessions import Sessions


class FrameReader:
    """Reads the messages of one agent."""

    def __init__(
        self,
        store: InboundStore,
        sessions: Sessions,
        *,
        of_persons: PersonReader,
        of_groups: GroupReader,
        questions: OpenQuestions,
    ) -> None:
        self._store = store
        self._agent_id = store.keys.agent_id
        self._sessions = sessions
        self._of_persons = of_persons
        self._of_groups = of_groups
        self._questions = questions

    def parse(self, incoming: Incoming) -> Envelope | Known | Unread:
        """Parses a frame's envelope. Returns that, or what follows if it is our own or malformed. Asks nobody."""
        frame = incoming.frame
        if frame.sender_id == self._agent_id:
            return Known()
        try:
            return parse_envelope(
                frame.encrypted_payload, Expected(frame.conversation_id, frame.sender_id, frame.sender_device_id)
            )
        except Unreadable as error:
            return Unread(incoming.arrival(), error)

    def locked(self, envelope: Envelope) -> AbstractAsyncContextManager[None]:
        """Returns a lock on the sender's record, to be held from reading to commit (DESIGN rule 3); a group's messages move none."""
        if envelope.v == V1_1:
            return nullcontext()
        return self._sessions.locked([(envelope.sender_id, envelope.sender_device)])

    async def read(self, incoming: Incoming, envelope: Envelope, make_room: Callable[[], Awaitable[None]]) -> Reading:
        """Reads the conversation's snapshot and opens the message. The caller holds the lock.

        `make_room` is waited for before anything is opened. Raises RedisFailed, RestFailed.
        """
        snapshot = await snapshot_of(self._store, incoming, envelope)
        reader = self._of_groups if envelope.v == V1_1 else self._of_persons
        return await reader.read(incoming, envelope, snapshot, make_room)

    async def question_answered(self, read: Readable) -> str:
        """Returns the open question that a message may answer, '' for none: it has to find room. Raises RedisFailed."""
        if read.job is None or read.answers not in (WORDS, CANCEL):
            return read.answers
        person, conversation_id = read.arrival.sender_id, read.arrival.conversation_id
        return await self._questions.asked(person, conversation_id, for_words=read.answers == WORDS)
