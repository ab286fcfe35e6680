"""What the supervisor itself says: to a device in system payloads (PROTOCOL §5.4: renewed, ping, pong), to a person a refusal or
an apology, in the words of the handler's code.

They travel as replies do, through the conversation's out-box, so that they are committed and sent in order. Their places begin with
`!`, which no handler's place does.
"""

import os
from collections.abc import Callable

from bus.records.apologies import is_owed_an_apology
from bus.records.records import JobRecord, Payload, Reply, ReplyPlace, message_of, pack_reply, with_hops
from bus.records.sealing import BusKey
from bus.steps.jobs import APOLOGY_PLACE
from bus.steps.policies import PolicyStore
from bus.steps.store import now_ms
from crypto import strict_base64
from crypto.errors import Unreadable

RENEWED = "session.renewed"
PING = "session.ping"
PONG = "session.pong"

OFFER_PLACE = "!renewed-"
OFFER_BYTES = 10  # as much as is random in a client_message_id


class OwnWords:
    """Packs our own replies for one agent."""

    def __init__(self, bus_key: BusKey, agent_id: str) -> None:
        self._bus_key = bus_key
        self._agent_id = agent_id

    def renewed(
        self, message_id: str, conversation_id: str, message_ms: int, *, device_id: str | None = None, lost: bytes = b""
    ) -> bytes:
        """Packs an offer (PROTOCOL §5.4): the first message of a session, or the same once more; `lost`: the one that could not be read.

        Its place is random, and so its client_message_id: one that the relay has had before Redis went back would never arrive.
        """
        event: Payload = {"kind": RENEWED}
        if lost:
            event["lost"] = strict_base64.encode(lost)
        at = ReplyPlace(message_id, conversation_id, f"{OFFER_PLACE}{os.urandom(OFFER_BYTES).hex()}", message_ms)
        payload: Payload = {"type": "system", "event": event}
        return self._seal(at, Reply(kind="system", content_type="system", payload=payload, new_session_with=device_id))

    def pong(self, message_id: str, conversation_id: str, message_ms: int) -> bytes:
        """Packs the answer to a session.ping."""
        return self._pack(ReplyPlace(message_id, conversation_id, "!pong", message_ms), PONG)

    def ping(self, job_id: str, conversation_id: str, message_ms: int, unanswered: int) -> bytes:
        """Packs a session.ping, whose answer renews the sending chain. `unanswered`: how many of ours had no answer since."""
        return self._pack(ReplyPlace(job_id, conversation_id, f"!ping-{unanswered}", message_ms), PING)

    def refusal(self, message_id: str, conversation_id: str, message_ms: int, text: str, *, hops: int = 0) -> bytes:
        """Packs the answer to a message that no handler gets, since too many of its conversation wait. `hops`: the answer's (PROTOCOL §4)."""
        return self._say(ReplyPlace(message_id, conversation_id, "!refused", message_ms), text, hops)

    def apology(self, job: JobRecord, text: str) -> bytes:
        """Packs the apology for a message that was given up; returns b"" if its sender is told nothing.

        Whoever sent a message that does not open any more is told.
        """
        message = message_of(job, key=self._bus_key, agent_id=self._agent_id)
        if message is not None and not is_owed_an_apology(message, self._agent_id):
            return b""
        at = ReplyPlace(job.job_id, job.conversation_id, APOLOGY_PLACE, job.message_ms)
        return self._say(at, text, 0 if message is None else message.answering_hops)

    def _say(self, at: ReplyPlace, text: str, hops: int) -> bytes:
        payload = with_hops({"type": "text", "text": text}, hops)
        return self._seal(at, Reply(kind="message", content_type="text", payload=payload))

    def _pack(self, at: ReplyPlace, kind: str) -> bytes:
        payload: Payload = {"type": "system", "event": {"kind": kind}}
        return self._seal(at, Reply(kind="system", content_type="system", payload=payload))

    def _seal(self, at: ReplyPlace, reply: Reply) -> bytes:
        return pack_reply(at, reply, emitted_ms=now_ms(), key=self._bus_key, agent_id=self._agent_id)


class DeclaredWords:
    """What people are told in the words that the handler's code declares: that a message is refused, or was given up."""

    def __init__(self, words: OwnWords, policies: PolicyStore) -> None:
        self._words = words
        self._policies = policies

    async def refusal(self, message_id: str, conversation_id: str, message_ms: int, *, hops: int = 0) -> bytes:
        """Packs a refusal. Raises RedisFailed."""
        text = await self._policies.refusal()
        return self._words.refusal(message_id, conversation_id, message_ms, text, hops=hops)

    async def apology(self) -> Callable[[JobRecord], bytes] | None:
        """Returns what packs the apology for a message; None if nobody is told. Raises RedisFailed."""
        text = await self._policies.apology()
        return None if text is None else lambda job: self._words.apology(job, text)


def lost_session(payload: Payload) -> bytes:
    """Returns the session that an offer names as unreadable (16 bytes); empty where it names none."""
    event = payload.get("event")
    lost = event.get("lost") if isinstance(event, dict) else None
    if not isinstance(lost, str):
        return b""
    try:
        return strict_base64.decode(lost)
    except Unreadable:
        return b""


def system_event(payload: Payload) -> str | None:
    """Returns the kind of a system payload's event; None for any other payload."""
    event = payload.get("event")
    if payload.get("type") != "system" or not isinstance(event, dict):
        return None
    kind = event.get("kind")
    return kind if isinstance(kind, str) else None
