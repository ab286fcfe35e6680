"""The agents of the chaos run. `agent` does what the script says of each message and keeps nothing in mind; `keeping` also asks, reminds and keeps."""

from datetime import timedelta

import msgspec
import trio

from bus.records.records import InboundMessage
from tests.trials.chaos import keeping as words
from tests.trials.chaos.script import PIECE, Answer, handling_of
from workers import Agent, History, Store
from workers.handling.context import JobContext
from workers.talk.chat import Chat

PIECE_SECONDS = 0.06
REMINDED_AFTER = timedelta(seconds=1)


class Kept(msgspec.Struct):
    """What is kept of each conversation."""

    bookings: int = 0
    words: int = 0


agent = Agent(when_full="park")  # what waits for long, since everybody was killed, is not refused
keeping = Agent(when_full="park", state=Kept)


class FirstRunFails(Exception):
    """As a handler's own defect or a passing fault would."""


@agent.on_message()
@keeping.on_message()
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


@keeping.on_command("form")
async def form(chat: Chat, state: Kept, args: str) -> None:
    """Two questions; then it is counted, and comes back to mind."""
    number = int(args)
    name = await chat.ask(words.question(words.NAME, number))
    day = await chat.ask(words.question(words.DAY, number))
    state.bookings += 1
    await chat.remind("later", after=REMINDED_AFTER, data=number)
    await chat.reply(words.booked(number, name, day, state.bookings))


@keeping.on_reminder("later")
async def later(chat: Chat, data: int) -> None:
    await chat.reply(words.reminded(data))


@keeping.on_message("text", when=r"keep (?P<number>\d+)")
async def keep(chat: Chat, state: Kept, history: History, store: Store, number: int) -> None:
    """Counted in the state and in the store; what was kept before is known from what was said."""
    state.words += 1
    await store.add("words")
    before = [turn.text for turn in history if turn.role == "user" and turn.text.startswith(words.KEEP)]
    last = int(before[-1].removeprefix(words.KEEP)) if before else words.NOTHING_BEFORE
    await chat.reply(words.kept(number, state.words, last))


@keeping.on_command("total")
async def total(chat: Chat, store: Store) -> None:
    await chat.reply(words.total(await store.get("words", 0)))
