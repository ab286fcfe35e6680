"""Another conversation of the agent than the one that a job is of: `chat.to(conversation_id).reply("…")`."""

from collections.abc import Mapping
from functools import partial
from typing import overload

from bus.records.cards import CardMove
from bus.records.records import Payload, Reply
from bus.records.sent_ids import text_id
from workers.files.outgoing import File
from workers.talk.cards import Card
from workers.talk.filing import Filing
from workers.talk.payloads import (
    TEXT_LIMIT_CHARACTERS,
    card_in,
    check_says_something,
    check_text,
    checked_payload,
    text_payload,
)
from workers.talk.sending import Sending
from workers.talk.sent import Sent
from workers.talk.texts import parts_of


class Elsewhere:
    """Made by `chat.to()`. What is said here has a place of the job like everything else, and goes out once."""

    def __init__(self, sending: Sending, conversation_id: str, filing: Filing) -> None:
        self._sending = sending
        self._filing = filing
        self.conversation_id = conversation_id

    def __repr__(self) -> str:
        return f"Elsewhere(conversation_id={self.conversation_id!r})"

    @overload
    async def reply(self, what: str, *, markdown: bool = False, key: str | None = None) -> Sent: ...

    @overload
    async def reply(self, what: Card | File, *, key: str | None = None) -> Sent: ...

    async def reply(self, what: str | Card | File, *, markdown: bool = False, key: str | None = None) -> Sent:
        """Sends a text, a card or a file, as Chat.reply. Raises BadReply, also where the agent has no such conversation; BadCard, FileError.

        A card is updated by a handler of the conversation that it is in.
        """
        if isinstance(what, File):
            return await self._send_file(what, key)
        if not isinstance(what, str):
            return await self._show(what, key)
        text = what
        check_text(text, most=None)
        check_says_something(text)
        return await self._emit(
            [text_payload(part, markdown=markdown) for part in parts_of(text, TEXT_LIMIT_CHARACTERS)], key
        )

    async def send(self, payload: Mapping[str, object], *, key: str | None = None) -> Sent:
        """Sends any payload, as Chat.send."""
        checked = checked_payload(payload)
        return await self._emit([checked], key, card_in(checked))

    async def recall(self, sent: str | Sent) -> None:
        """Takes back what was sent in this conversation, as Chat.recall. Raises BadCard."""
        sent_id = sent.handle if isinstance(sent, Sent) else sent
        for what in await self._sending.named_in(sent_id, self.conversation_id):
            async with self._sending.turn():
                act = Reply(kind="recall", content_type="recall", payload=what)
                await self._sending.emit_to(self.conversation_id, self._sending.take_place(None), act)

    async def _send_file(self, file: File, key: str | None) -> Sent:
        await self._filing.wait()
        async with self._sending.turn():
            place = self._sending.take_place(key)
            payload = await self._filing.payload(file, place, self.conversation_id)
            reply = Reply(kind="message", content_type=str(payload["type"]), payload=payload)
            await self._sending.emit_to(self.conversation_id, place, reply)
        ids_in = partial(self._sending.ids_in, is_elsewhere=True)
        return Sent(text_id(self._sending.job.thread_id, place), self.recall, ids_in)

    async def _show(self, card: Card, key: str | None) -> Sent:
        await self._filing.wait()
        async with self._sending.turn():
            place = self._sending.take_place(key)
            card_id = self._sending.card_id(place)
            shown = await self._filing.card(card, card_id, place, self.conversation_id)
            reply = Reply(kind="message", content_type="artifact", payload=shown)
            await self._sending.emit_to(self.conversation_id, place, reply, CardMove(card_id, card.kind))
        return Sent(card_id, self.recall)

    async def _emit(self, payloads: list[Payload], key: str | None, card: tuple[str, str] = ("", "")) -> Sent:
        places: list[str] = []
        async with self._sending.turn():
            for number, payload in enumerate(payloads, start=1):
                is_further = number > 1 and key is not None
                places.append(f"{places[0]}~{number}" if is_further else self._sending.take_place(key))
                reply = Reply(kind="message", content_type=str(payload["type"]), payload=payload)
                shown = CardMove(*card) if card[0] else None
                await self._sending.emit_to(self.conversation_id, places[-1], reply, shown)
        ids_in = partial(self._sending.ids_in, is_elsewhere=True)
        return Sent(text_id(self._sending.job.thread_id, *places), self.recall, ids_in)
