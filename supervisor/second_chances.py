"""Messages in quarantine are tried again when what they lacked has come: a relation, a group's key, a session, the operator's word.

What still cannot be read stays where it is; nothing is tried again by the clock alone, since nothing would have changed.
"""

import msgspec
import structlog
import trio

from bus.letters import Quarantine, Quarantined
from bus.store import Intake
from bus.wire import RedisFailed
from crypto.errors import Reason
from supervisor.frames import ArtifactResponse, MalformedFrame, MessageNew, decode_from_relay
from supervisor.inbound import Inbound, MessageFrame
from supervisor.metrics import Metrics

LOOK_SECONDS = 1.0
MOST_EVENTS = 1000

OWNER_REASONS = frozenset(
    reason.value for reason in (Reason.NO_GRANT, Reason.UNKNOWN_SENDER, Reason.KEY_CHANGED, Reason.NO_SCOPE)
)
GROUP_REASONS = frozenset(reason.value for reason in (Reason.UNKNOWN_GROUP_KEY, Reason.NO_GRANT))
SESSION_REASONS = frozenset(reason.value for reason in (Reason.NO_SESSION, Reason.UNKNOWN_PREKEY))

log = structlog.get_logger()


class _Hope(msgspec.Struct, frozen=True):
    """What has come: of a sender (None: of anybody), it may mend these reasons."""

    reasons: frozenset[str]
    sender_id: str | None = None

    def is_for(self, message: Quarantined) -> bool:
        return message.reason in self.reasons and self.sender_id in (None, message.sender_id)


class SecondChances:
    """Of one supervisor; others may try the same message, and one of them gets it through."""

    def __init__(self, quarantine: Quarantine, inbound: Inbound, metrics: Metrics) -> None:
        self._quarantine = quarantine
        self._inbound = inbound
        self._metrics = metrics
        self._send, self._hopes = trio.open_memory_channel[_Hope](MOST_EVENTS)

    def owner_changed(self, owner_id: str) -> None:
        """A relation was established or restored, or a decision about keys was made."""
        self._expect(_Hope(OWNER_REASONS, owner_id))

    def group_key_came(self) -> None:
        """A group has a new key."""
        self._expect(_Hope(GROUP_REASONS))

    def session_began(self, owner_id: str) -> None:
        """The owner's device has started a session that works."""
        self._expect(_Hope(SESSION_REASONS, owner_id))

    def _expect(self, hope: _Hope) -> None:
        try:
            self._send.send_nowait(hope)
        except trio.WouldBlock:
            log.warning("quarantine: too much has come at once; hashee-agent quarantine retry")

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear)
            nursery.start_soon(self._obey)

    async def _hear(self) -> None:
        async for hope in self._hopes:
            while True:
                try:
                    await self._quarantine.want(
                        [message.message_id async for message in self._quarantine.all() if hope.is_for(message)]
                    )
                    break
                except RedisFailed as error:
                    log.warning("quarantine: waits for Redis", reason=str(error))
                    await trio.sleep(LOOK_SECONDS)

    async def _obey(self) -> None:
        """What is wanted stands in Redis, so that a kill forgets nothing and a command line can ask."""
        while True:
            try:
                for message_id in await self._quarantine.wanted():
                    await self._try(message_id)
            except RedisFailed as error:
                log.warning("quarantine: waits for Redis", reason=str(error))
            await trio.sleep(LOOK_SECONDS)

    async def _try(self, message_id: str) -> None:
        message = await self._quarantine.find(message_id)
        frame = None if message is None else _frame(message)
        if message is None or frame is None:
            await self._quarantine.tried(message_id)
            return
        waiting = await self._inbound.retry(message, frame)
        if waiting.outcome is None or waiting.outcome in (Intake.HOLD, Intake.CONFLICT):
            return  # Redis or the relay was away: it is still wanted
        if waiting.outcome.is_new:
            self._metrics.requeued.labels(message.reason).inc()
            log.info("quarantine: a message can be read now", message_id=message_id, reason=message.reason)
        elif waiting.outcome is Intake.DUPLICATE and waiting.reason is None and not message.is_signed:
            await self._quarantine.drop(message_id)  # a copy: the genuine one was taken in
        else:
            log.info("quarantine: still not readable", message_id=message_id, reason=waiting.reason or message.reason)
        await self._quarantine.tried(message_id)


def _frame(message: Quarantined) -> MessageFrame | None:
    try:
        frame = decode_from_relay(message.frame)
    except MalformedFrame as error:
        log.error("quarantine: the kept frame is not readable", message_id=message.message_id, field=error.field)
        return None
    return frame if isinstance(frame, MessageNew | ArtifactResponse) else None
