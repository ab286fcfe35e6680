"""What the supervisor itself says: to a device in system payloads (PROTOCOL §5.4: renewed, ping, pong), to a person a refusal or
an apology, in the words of the handler's code.

They travel as replies do, through the conversation's out-box, so that they are committed and sent in order. Their places begin with
`!`, which no handler's place does.
"""

from bus.jobs import APOLOGY_PLACE
from bus.records import Payload, Reply, ReplyPlace, pack_reply
from bus.sealing import BusKey
from bus.store import now_ms

RENEWED = "session.renewed"
PING = "session.ping"
PONG = "session.pong"


class OwnWords:
    """Packs our own replies for one agent."""

    def __init__(self, bus_key: BusKey, agent_id: str) -> None:
        self._bus_key = bus_key
        self._agent_id = agent_id

    def renewed(self, message_id: str, conversation_id: str, message_ms: int, device_id: str) -> bytes:
        """The first message of a new session with a device, since `message_id` could not be read."""
        at = ReplyPlace(message_id, conversation_id, f"!renewed-{device_id}", message_ms)
        return self._pack(at, RENEWED, device_id)

    def pong(self, message_id: str, conversation_id: str, message_ms: int) -> bytes:
        """The answer to a session.ping."""
        return self._pack(ReplyPlace(message_id, conversation_id, "!pong", message_ms), PONG)

    def ping(self, job_id: str, conversation_id: str, message_ms: int, unanswered: int) -> bytes:
        """Asks for an answer, so that the sending chain is renewed; `unanswered`: how many went without."""
        return self._pack(ReplyPlace(job_id, conversation_id, f"!ping-{unanswered}", message_ms), PING)

    def refusal(self, message_id: str, conversation_id: str, message_ms: int, text: str) -> bytes:
        """A message that was not taken to a handler, since too many of its conversation wait."""
        return self._say(ReplyPlace(message_id, conversation_id, "!refused", message_ms), text)

    def apology(self, job_id: str, conversation_id: str, message_ms: int, text: str) -> bytes:
        """A message that was given up."""
        return self._say(ReplyPlace(job_id, conversation_id, APOLOGY_PLACE, message_ms), text)

    def _say(self, at: ReplyPlace, text: str) -> bytes:
        return self._seal(at, Reply(kind="message", content_type="text", payload={"type": "text", "text": text}))

    def _pack(self, at: ReplyPlace, kind: str, new_session_with: str | None = None) -> bytes:
        payload: Payload = {"type": "system", "event": {"kind": kind}}
        return self._seal(
            at,
            Reply(kind="system", content_type="system", payload=payload, new_session_with=new_session_with),
        )

    def _seal(self, at: ReplyPlace, reply: Reply) -> bytes:
        return pack_reply(at, reply, emitted_ms=now_ms(), key=self._bus_key, agent_id=self._agent_id)


def system_event(payload: Payload) -> str | None:
    """The kind of a system payload's event; None for any other payload."""
    event = payload.get("event")
    if payload.get("type") != "system" or not isinstance(event, dict):
        return None
    kind = event.get("kind")
    return kind if isinstance(kind, str) else None
