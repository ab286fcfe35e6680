"""A chat that is used after its handler has ended, in another thread, or with asyncio: an error that says what to do, and nothing is lost silently."""

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.workers.builders import running
from tests.workers.doubles import MemoryBus, job_of, texts
from tests.workers.talk.test_chat import run
from workers import Agent, Chat, ChatClosed, InboundMessage
from workers.errors import WrongLoop
from workers.handling.blocking import BlockingChat

pytestmark = pytest.mark.pure


async def types(chat: Chat) -> None:
    async with chat.typing():
        pass


async def streams(chat: Chat) -> None:
    async with chat.stream() as stream:
        await stream.write("late")


@pytest.mark.parametrize(
    "use", [lambda chat: chat.reply("late"), lambda chat: chat.send({"type": "text", "text": "late"}), types, streams]
)
async def test_a_chat_is_closed_when_its_handler_has_ended(use: Callable[[Chat], Awaitable[None]]) -> None:
    agent, kept, bus = Agent(), list[Chat](), MemoryBus()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        kept.append(chat)
        await chat.reply("in time")

    await run(agent, bus)
    with pytest.raises(ChatClosed, match="before it returns"):
        await use(kept[0])
    assert not bus.deltas
    assert not bus.typing


async def test_what_a_handler_left_running_hears_it_and_what_it_said_in_time_is_sent() -> None:
    agent, bus, raised = Agent(), MemoryBus(), list[Exception]()

    async def late(chat: Chat, may: trio.Event) -> None:
        await chat.reply("in time")
        await may.wait()
        try:
            await chat.reply("too late")
        except ChatClosed as error:
            raised.append(error)

    async with trio.open_nursery() as outer:

        @agent.on_message()
        async def answer(message: InboundMessage, chat: Chat) -> None:
            outer.start_soon(late, chat, ended)
            await trio.testing.wait_all_tasks_blocked()

        ended = trio.Event()
        await run(agent, bus)
        ended.set()
    assert len(raised) == 1
    assert [text for _, text in texts(bus)] == ["in time"]


async def test_a_stream_that_outlives_its_handler_takes_no_more() -> None:
    agent, bus, raised = Agent(), MemoryBus(), list[Exception]()

    async def late(chat: Chat, may: trio.Event) -> None:
        async with chat.stream() as stream:
            await stream.write("begun")
            await may.wait()
            try:
                await stream.write("and gone")
            except ChatClosed as error:
                raised.append(error)
                raise

    async with trio.open_nursery() as outer:

        @agent.on_message()
        async def answer(message: InboundMessage, chat: Chat) -> None:
            outer.start_soon(quiet, late, chat, ended)
            await trio.testing.wait_all_tasks_blocked()

        ended = trio.Event()
        await run(agent, bus)
        ended.set()
    assert len(raised) == 1


async def quiet(late: Callable[[Chat, trio.Event], Awaitable[None]], chat: Chat, may: trio.Event) -> None:
    try:
        await late(chat, may)
    except ChatClosed:
        return


async def test_a_sync_handlers_chat_belongs_to_its_thread() -> None:
    agent, raised = Agent(), list[BaseException]()

    def elsewhere(chat: BlockingChat) -> None:
        try:
            chat.reply("from nowhere")
        except ChatClosed as error:
            raised.append(error)

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        thread = threading.Thread(target=elsewhere, args=(chat,))
        thread.start()
        thread.join()
        chat.reply("from here")

    bus = MemoryBus()
    await run(agent, bus)
    assert "thread that its handler was called in" in str(raised[0])
    assert texts(bus) == [("0", "from here")]


async def sleeps() -> None:
    await asyncio.sleep(1)


async def waits_for_a_thread() -> None:
    await asyncio.to_thread(print)


async def waits_for_a_future() -> None:
    loop = asyncio.new_event_loop()
    try:
        await asyncio.Future(loop=loop)
    finally:
        loop.close()


@pytest.mark.parametrize("of_asyncio", [sleeps, waits_for_a_thread, waits_for_a_future])
async def test_asyncio_in_an_async_handler_is_said_with_what_helps(of_asyncio: Callable[[], Awaitable[None]]) -> None:
    agent, bus, output = Agent(), MemoryBus(), io.StringIO()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await of_asyncio()

    with pytest.raises(WrongLoop, match="run on trio"):
        await run(agent, MemoryBus())
    async with running(agent, bus, output=output):
        bus.give(job_of())
        await bus.until(lambda: bus.failed)
    assert "plain `def` handler" in output.getvalue()
    assert "test_closed_chats.py" in output.getvalue()


async def test_asyncio_run_works_in_a_sync_handler() -> None:
    agent, bus = Agent(), MemoryBus()

    async def of_asyncio() -> str:
        await asyncio.sleep(0)
        return "from asyncio"

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        chat.reply(asyncio.run(of_asyncio()))

    await run(agent, bus)
    assert texts(bus) == [("0", "from asyncio")]
