"""Tries messages in quarantine again when what they lacked has come: a relation, a group's key, a session, our right clock, the operator's word.

What still cannot be read stays where it is. Nothing is tried again by the clock alone, since nothing would have changed. A start counts
as all of these events, since a process that was killed may have heard of one and marked nothing.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

import structlog
import trio

from bus.steps.letters import Quarantine, Quarantined, wanted_old
from bus.steps.store import Intake
from bus.steps.work_lease import WorkLease
from bus.transport.wire import RedisFailed
from supervisor.inbound.evidence import kept_frame
from supervisor.inbound.inbound import Inbound
from supervisor.inbound.incoming import MessageFrame
from supervisor.inbound.refetch import Refetch
from supervisor.observe.metrics import Metrics
from supervisor.peers.owners import Owners
from supervisor.peers.retry_triggers import (
    GROUP_REASONS,
    OUR_CLOCK,
    OWNER_REASONS,
    SESSION_REASONS,
    RetryTrigger,
    RetryTriggers,
    mark,
    thing_of,
)
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.relay.rest import Rest, RestFailed
from supervisor.settings.pauses import PAUSES, Pauses

TRIED_IN_A_ROW = 20
"""Messages that are tried before a pause, so that ten thousand of one person are tried beside the others', not before them."""

REST_SECONDS = 0.1
"""The pause after them."""

START_SECONDS = 60.0
"""A start waits at most so long until everything new is polled before it looks at the quarantine, which may be a gigabyte."""

log = structlog.get_logger()


class QuarantineRetrier:
    """Tries messages again on behalf of one supervisor. One of several does it at a time; if two try the same message, one gets it through."""

    def __init__(
        self,
        quarantine: Quarantine,
        lease: WorkLease,
        triggers: RetryTriggers,
        *,
        inbound: Inbound,
        owners: Owners,
        rest: Rest,
        metrics: Metrics,
        pauses: Pauses = PAUSES,
    ) -> None:
        self._quarantine = quarantine
        self._old = quarantine.old_messages
        self._lease = lease
        self._triggers = triggers
        self._inbound = inbound
        self._owners = owners
        self._rest = rest
        self._metrics = metrics
        self._pauses = pauses
        self._marking, self._trying = said_trouble("quarantine: marking"), said_trouble("quarantine: trying")
        self._marked = trio.Event()

    async def run(self, caught_up: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint) -> None:
        """Marks and tries messages, until cancelled. Waits for `caught_up` before the start's own look: people's new messages come first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._start, caught_up)
            nursery.start_soon(self._hear)
            nursery.start_soon(self._obey)

    # Marking: in Redis, so that a kill forgets nothing and a command can ask for a try

    async def _start(self, caught_up: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(START_SECONDS):
            await caught_up()
        await self._until_marked(self._mark_what_may_be_mended)

    async def _hear(self) -> None:
        while True:
            trigger = await self._triggers.next()

            async def marked(trigger: RetryTrigger = trigger) -> int:
                return await mark(self._quarantine, trigger)

            await self._until_marked(marked)
            if self._triggers.take_missed():
                await self._until_marked(self._mark_what_may_be_mended)

    async def _until_marked(self, marking: Callable[[], Awaitable[int]]) -> None:
        while True:
            try:
                if await marking():
                    self._marked.set()
            except RedisFailed as error:
                self._marking.met(error)
                await trio.sleep(self._pauses.quarantine_look)
            else:
                self._marking.over()
                return

    async def _mark_what_may_be_mended(self) -> int:
        """Marks every message that an event we may have missed could have mended. Returns how many.

        Strangers' messages are not marked: each would have the relations read. All messages of an owner are judged alike, whatever comes
        meanwhile, since a later one must not overtake an earlier one.
        """
        found, active, unlisted = list[str](), dict[str, bool](), dict[str, str]()
        async with aclosing(self._quarantine.all()) as messages:
            async for message in messages:
                if message.waits_for is None:
                    unlisted[message.message_id] = thing_of(message)
                is_of_then = message.waits_for == OUR_CLOCK  # it may have been set since
                sender, is_mended = message.sender_id, is_of_then or message.reason in GROUP_REASONS | SESSION_REASONS
                if message.reason in OWNER_REASONS:
                    if sender not in active:
                        owner = await self._owners.find(sender)
                        active[sender] = owner is not None and owner.is_active
                    is_mended = active[sender]
                if is_mended:
                    found.append(message.message_id)
        await self._quarantine.list_waiting(unlisted)
        await self._quarantine.want(found)
        return len(found)

    # Trying what is marked

    async def _obey(self) -> None:
        while True:
            self._marked = trio.Event()
            for owner_id in self._owners.unanswered():
                self._triggers.owner_changed(owner_id)
            try:
                await self._try_all()
            except RedisFailed as error:
                self._trying.met(error)
            else:
                self._trying.over()
            with trio.move_on_after(self._pauses.quarantine_look):
                await self._marked.wait()

    async def _try_all(self) -> None:
        """Tries all marked messages, in the order of each conversation; behind one that cannot be tried now the later ones wait."""
        waiting: set[str] = set()
        refetch = Refetch(self._rest)
        names = await self._quarantine.wanted()
        if not names or not await self._may_try():
            return
        rows = {row.message_id: row for row in await self._quarantine.rows(names)}
        places = sorted([await self._place(name, rows.get(name)) for name in names])
        for count, (conversation, _, name) in enumerate(places, start=1):
            if not await self._may_try():
                return
            if conversation not in waiting and not await self._is_tried(name, refetch):
                waiting.add(conversation)
            if count % TRIED_IN_A_ROW == 0:
                await trio.sleep(REST_SECONDS)
        await self._lease.leave()

    async def _may_try(self) -> bool:
        """Holds the lease. False while another supervisor tries them: then none need be read."""
        return await self._lease.hold()

    async def _place(self, name: str, row: Quarantined | None) -> tuple[str, int, str]:
        if row is not None and row.seq is not None:
            return row.conversation_id, row.seq, name
        message = None if row is None else await self._quarantine.find(name)  # an older version's, which wrote no seq
        frame = None if message is None else kept_frame(message)
        return ("", 0, name) if frame is None else (frame.conversation_id, frame.conversation_seq, name)

    async def _is_tried(self, message_id: str, refetch: Refetch) -> bool:
        """Tries one message. False if it could not be tried: the relay was away, or nothing is taken in now. It stays marked then."""
        if (old_id := wanted_old(message_id)) is not None:
            if await self._is_asked_for(old_id, refetch):
                await self._quarantine.tried(message_id)
                return True
            return False
        message = await self._quarantine.find(message_id)
        try:
            frame = None if message is None else kept_frame(message) or await self._again(message, refetch)
        except RestFailed as error:
            log.warning("quarantine: waits for the relay", message_id=message_id, reason=str(error))
            return False
        if message is not None and frame is not None and not await self._try(message, frame):
            return False
        if not self._marked.is_set():  # else something has come meanwhile: it is tried once more, knowing that
            await self._quarantine.tried(message_id)
        return True

    async def _is_asked_for(self, message_id: str, refetch: Refetch) -> bool:
        """Takes in, as if polled now, a message that was only noted as old. False if it could not be tried. Unreadable, it stays noted."""
        try:
            frame = await refetch.find(message_id, None)
        except RestFailed as error:
            log.warning("old message: waits for the relay", message_id=message_id, reason=str(error))
            return False
        if frame is None:
            log.warning("old message: the relay has it no more", message_id=message_id)
            return True
        outcome = await self._inbound.poll(frame)
        if outcome is None or outcome in (Intake.NOT_NOW, Intake.CONFLICT):
            return False
        if outcome.is_new:
            await self._old.forget(message_id, frame.conversation_id, frame.conversation_seq)
            log.info("old message: it can be read, and was not answered before", message_id=message_id)
        else:
            log.info("old message: it was taken in before, or can still not be read", message_id=message_id)
        return True

    async def _again(self, message: Quarantined, refetch: Refetch) -> MessageFrame | None:
        """Fetches a message that is not kept whole. None if it is, or if the relay has it no more; then it stays as it is."""
        if message.frame:
            return None
        frame = await refetch.find(message.message_id, message.cursor)
        if frame is None:
            log.warning("quarantine: the relay has it no more", message_id=message.message_id, reason=message.reason)
        return frame

    async def _try(self, message: Quarantined, frame: MessageFrame) -> bool:
        """Takes a message in out of quarantine, and says what came of it. False if it could not be tried."""
        waiting = await self._inbound.retry(message, frame)
        if waiting.outcome is None or waiting.outcome in (Intake.NOT_NOW, Intake.CONFLICT):
            return False
        if waiting.outcome.is_new:
            self._metrics.requeued.labels(message.reason).inc()
            log.info("quarantine: a message can be read now", message_id=message.message_id, reason=message.reason)
        elif waiting.outcome is Intake.DUPLICATE and not message.is_signed:
            await self._quarantine.drop(message.message_id, "copy")  # the genuine one was taken in
        elif waiting.reason is not None:
            log.info("quarantine: still not readable", message_id=message.message_id, reason=waiting.reason)
        return True
