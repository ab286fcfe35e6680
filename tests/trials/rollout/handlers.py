"""The handler of a rollout's agent; each release on disk (release.py) takes it from here."""

import trio

from bus.records.records import InboundMessage
from tests.trials.chaos.script import PIECE, Answer
from tests.trials.rollout.script import PIECE_SECONDS, handling_of
from workers import Agent
from workers.talk.chat import Chat

agent = Agent()


@agent.on_message()
async def answer(message: InboundMessage, chat: Chat) -> None:
    """As the script wants it."""
    for planned in handling_of(str(message.payload["text"])).answers:
        await trio.sleep(planned.pause_seconds)
        await (_stream(chat, planned) if planned.is_streamed else chat.reply(planned.text))


async def _stream(chat: Chat, planned: Answer) -> None:
    async with chat.stream() as stream:
        await stream.write(planned.text[: -len(PIECE) * planned.pieces])
        for _ in range(planned.pieces):
            await trio.sleep(PIECE_SECONDS)
            await stream.write(PIECE)
