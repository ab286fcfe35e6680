"""Who waits longer than a moment for the first word sees that one comes: typing shows by itself, and ends."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.workers.builders import running
from tests.workers.doubles import MemoryBus, job_of
from workers import Agent, Chat, InboundMessage


async def says_at_once_and_goes_on(chat: Chat) -> None:
    await chat.reply("first")
    await trio.sleep(10)


async def is_quick(_chat: Chat) -> None:
    await trio.sleep(0.2)


async def says_late(chat: Chat) -> None:
    await trio.sleep(9)
    await chat.reply("at last")
    await trio.sleep(9)


async def says_nothing(_chat: Chat) -> None:
    await trio.sleep(1)


async def shows_it_itself(chat: Chat) -> None:
    async with chat.typing():
        await trio.sleep(1)


async def streams(chat: Chat) -> None:
    async with chat.stream() as stream:
        await stream.write("x")
        await trio.sleep(9)


@pytest.mark.parametrize(
    ("handler", "shown"),
    [
        (says_at_once_and_goes_on, []),
        (is_quick, []),
        (says_late, [(0.3, True), (4.3, True), (8.3, True)]),
        (says_nothing, [(0.3, True), (1.0, False)]),
        (shows_it_itself, [(0.0, True), (1.0, False)]),
        (streams, []),
    ],
)
async def test_typing_shows_by_itself_until_the_first_word(
    autojump_clock: trio.testing.MockClock,
    handler: Callable[[Chat], Awaitable[None]],
    shown: list[tuple[float, bool]],
) -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await handler(chat)

    async with running(agent, bus):
        began = trio.current_time()
        bus.give(job_of())
        await bus.until(lambda: bus.finished)
    assert [active for _, active in bus.typing] == [active for _, active in shown]
    assert [at - began for at, _ in bus.typing] == pytest.approx([at for at, _ in shown], abs=0.02)


async def test_a_run_that_fails_or_is_away_from_redis_leaves_no_indicator(
    autojump_clock: trio.testing.MockClock,
) -> None:
    agent, bus = Agent(), MemoryBus(refused="publish_typing")

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await trio.sleep(1)
        raise KeyError

    async with running(agent, bus):
        bus.give(job_of())
        await bus.until(lambda: bus.failed)
        bus.refused = ""
        bus.give(job_of(number=2))
        await bus.until(lambda: len(bus.failed) == 2)
    assert [active for _, active in bus.typing] == [True, False]
