"""Another conversation of the agent than the one that a job is of: `chat.to(conversation_id).reply("…")`."""

from collections.abc import Mapping

from bus.records.records import Payload, Reply
from bus.records.sent_ids import places_in, text_id
from workers.talk.payloads import TEXT_LIMIT_CHARACTERS, check_text, checked_payload, text_payload
from workers.talk.sending import Sending
from workers.talk.sent import Sent
from workers.talk.texts import parts_of


class Elsewhere:
    """Made by `chat.to()`. What is said here has a place of the job like everything else, and goes out once."""

    def __init__(self, sending: Sending, conversation_id: str) -> None:
        self._sending = sending
        self.conversation_id = conversation_id

    def __repr__(self) -> str:
        return f"Elsewhere(conversation_id={self.conversation_id!r})"

    async def reply(self, text: str, *, markdown: bool = False, key: str | None = None) -> Sent:
        """Sends a text, as Chat.reply. Raises BadReply, also where the agent has no such conversation."""
        check_text(text, most=None)
        return await self._emit(
            [text_payload(part, markdown=markdown) for part in parts_of(text, TEXT_LIMIT_CHARACTERS)], key
        )

    async def send(self, payload: Mapping[str, object], *, key: str | None = None) -> Sent:
        """Sends any payload, as Chat.send."""
        return await self._emit([checked_payload(payload)], key)

    async def recall(self, sent: str | Sent) -> None:
        """Takes back a text that was sent in this conversation, as Chat.recall."""
        for thread_id, place in places_in(sent.id if isinstance(sent, Sent) else sent):
            what: Payload = {"job_id": thread_id, "place": place}
            async with self._sending.turn():
                act = Reply(kind="recall", content_type="recall", payload=what)
                await self._sending.emit_to(self.conversation_id, self._sending.take_place(None), act)

    async def _emit(self, payloads: list[Payload], key: str | None) -> Sent:
        places: list[str] = []
        async with self._sending.turn():
            for number, payload in enumerate(payloads, start=1):
                is_further = number > 1 and key is not None
                places.append(f"{places[0]}~{number}" if is_further else self._sending.take_place(key))
                reply = Reply(kind="message", content_type=str(payload["type"]), payload=payload)
                await self._sending.emit_to(self.conversation_id, places[-1], reply)
        return Sent(text_id(self._sending.job.thread_id, *places), self.recall)
