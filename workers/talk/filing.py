"""Files on their way into what is said: uploaded at their place, before the payload that names them goes out."""

from collections.abc import Sequence

from bus.records.records import Payload
from workers.errors import FilesOff
from workers.files.files import NO_GATE, RunFiles
from workers.files.outgoing import File
from workers.files.said import FileSaid, attached, payload_of
from workers.talk.cards import UNSENT, Card, Media, card_payload
from workers.talk.sending import Sending


class Filing:
    """What one run's chats send files by."""

    def __init__(self, sending: Sending, files: RunFiles | None) -> None:
        self._sending = sending
        self._files = files

    async def wait(self) -> None:
        """Waits while the run is about to wait for an answer; to be called outside of a turn, which the question needs."""
        if self._files is not None:
            await self._files.thread.until_a_step_may_begin()

    async def payload(self, file: File, place: str, conversation_id: str = "") -> Payload:
        """Returns the payload of a file at a place, once it is uploaded; `conversation_id`: of another conversation. Raises FileError."""
        [said] = await self._uploaded([file], place, conversation_id)
        return payload_of(said, file.about)

    async def card(self, card: Card, card_id: str, place: str, conversation_id: str = "") -> Payload:
        """Returns the message that shows a card, once what is in it is uploaded. Raises FileError, BadCard."""
        if not isinstance(card, Media) or not card.files:
            return card_payload(card, card_id)
        uploaded, beside = await self.media(card, place, conversation_id)
        return {**card_payload(uploaded, card_id), **beside}

    async def media(self, card: Media, place: str, conversation_id: str = "") -> tuple[Media, Payload]:
        """Uploads what is in a card; returns the card with the ids of it, and what stands beside it in its message. Raises FileError."""
        said = await self._uploaded(card.files, place, conversation_id)
        return card.with_uploaded([one.attachment_id for one in said]), attached(said)

    async def _uploaded(self, files: Sequence[File], place: str, conversation_id: str) -> list[FileSaid]:
        if self._sending.was_emitted(place):  # nothing goes out again
            return [
                FileSaid(attachment_id=UNSENT, name=one.name, type=one.type, size=0, kind=one.kind, alt=one.words or "")
                for one in files
            ]
        if self._files is None:
            raise FilesOff(NO_GATE)
        return await self._files.send(files, conversation_id or self._sending.job.conversation_id, place)
