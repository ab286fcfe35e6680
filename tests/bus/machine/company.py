"""Who takes part: supervisors and workers with what each has in memory, and the history that they are judged by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from bus.records.records import Job, OutboxRecord
from bus.steps.policies import Busy, Full, Policies
from bus.steps.store import Arrival, ConversationSnapshot, SessionWrite
from bus.transport.readers import StreamEntry
from tests.bus.builders import PEER
from tests.bus.history import Ack, History, Ledger, Message, Ratchet
from tests.bus.scenes import Scene, Supervisor, Worker, at_once

CONVERSATIONS = ("one", "two")
LEASE_MS = 15_000
LATER_MS = 3_600_000
PAGE = 3
MOST_ROUNDS = 400

who = st.integers(0, 1)
names = count(1)
encryptions = count(1)


@dataclass
class Sending:
    """A reply that was taken and encrypted, under the session as it was read."""

    entry: StreamEntry
    cmid: str
    session: SessionWrite
    record: OutboxRecord
    epoch: int


@dataclass
class Connected:
    """A supervisor with what it has in memory."""

    half: Supervisor
    opened: tuple[Message, Arrival] | None = None
    sending: Sending | None = None
    outgoing: list[OutboxRecord] = field(default_factory=list)
    must_check: bool = False


@dataclass
class Running:
    """A worker with the job that it believes to have."""

    half: Worker
    job: Job | None = None
    message: Message | None = None
    together: list[Message] = field(default_factory=list)
    emitted: set[str] = field(default_factory=set)


class Company(RuleBasedStateMachine):
    """What the rules of all rooms share."""

    def __init__(self, open_scene: Callable[[], Scene]) -> None:
        super().__init__()
        self.scene = open_scene()
        self.history = History()
        self.readable: set[str] = set()
        self.acks: list[Ack] = []
        self.remembered: tuple[object, Ledger] | None = None
        self.supervisors: list[Connected] = []
        self.workers: list[Running] = []

    @initialize(
        busy=st.sampled_from(["queue", "interrupt", "coalesce"]),
        full=st.sampled_from(["refuse", "park"]),
        most=st.sampled_from([1, 2, 100]),
        waiting_bytes=st.sampled_from([5000, 10_000, 1 << 20]),
    )
    def begin(self, busy: Busy, full: Full, most: int, waiting_bytes: int) -> None:
        self.waiting_bytes = waiting_bytes
        self.policies = Policies(busy=busy, full=full, most_waiting=most)
        self.supervisors = [self._supervisor() for _ in range(2)]
        self.workers = [self._worker() for _ in range(2)]

    def _supervisor(self) -> Connected:
        half = at_once(self.scene.supervisor(f"supervisor-{next(names)}"))
        half.store.budgets = msgspec.structs.replace(half.store.budgets, waiting_bytes=self.waiting_bytes, most_held=12)
        return Connected(half)

    def _worker(self) -> Running:
        return Running(at_once(self.scene.worker(f"worker-{next(names)}", self.policies)))

    def _reconnected(self, at: int) -> Connected:
        supervisor = self.supervisors[at]
        if supervisor.must_check:
            at_once(supervisor.half.check(certainly_back=True))
            supervisor.must_check = False
        return supervisor

    def _message(self, message_id: str) -> Message:
        return next(one for one in self.history.relay.messages if one.id == message_id)

    def _look(self, supervisor: Connected, message: Message) -> ConversationSnapshot:
        return at_once(supervisor.half.store.look(message.conversation, PEER, bytes(8)))

    def _ratchet(self, look: ConversationSnapshot) -> Ratchet:
        if look.session_sealed is None:
            return Ratchet(next(self.history.sessions))
        return msgspec.msgpack.decode(look.session_sealed, type=Ratchet)

    def _delivered(self, message: Message) -> None:
        self.history.ledger.takes_in(message, interrupts=self.policies.busy == "interrupt")
