"""The agent of the chaos run: does what the script says of each message and keeps nothing in mind."""

import trio

from bus.records.records import InboundMessage
from tests.trials.chaos.script import PIECE, Answer, handling_of
from workers import Agent
from workers.handling.context import JobContext
from workers.talk.chat import Chat

PIECE_SECONDS = 0.06

agent = Agent(when_full="park")  # what waits for long, since everybody was killed, is not refused


class FirstRunFails(Exception):
    """As a handler's own defect or a passing fault would."""


@agent.on_message()
async def answer(message: InboundMessage, chat: Chat, job: JobContext) -> None:
    """Answers as often as the script wants, some of it streamed."""
    handling = handling_of(str(message.payload["text"]))
    for planned in handling.answers:
        await trio.sleep(planned.pause_seconds)
        await (_stream(chat, planned) if planned.is_streamed else chat.reply(planned.text))
    if handling.fails_once and job.attempt == 1:
        raise FirstRunFails
    await trio.sleep(handling.last_pause_seconds)


async def _stream(chat: Chat, planned: Answer) -> None:
    async with chat.stream() as stream:
        await stream.write(planned.text[: -len(PIECE) * planned.pieces])
        for _ in range(planned.pieces):
            await trio.sleep(PIECE_SECONDS)
            await stream.write(PIECE)
