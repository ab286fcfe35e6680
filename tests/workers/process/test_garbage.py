"""A job is gone when it has ended: no cycle of objects keeps its message until cycles are looked for, which is seldom."""

import gc
from collections.abc import Awaitable, Callable

import pytest
import trio

from bus.records.records import InboundMessage
from tests.waiting import waiting_for
from tests.workers.builders import running
from tests.workers.doubles import MemoryBus, job_of
from workers import Agent, Chat, History, Job, Store
from workers.talk.sending import Sending


async def answers(message: InboundMessage, chat: Chat) -> None:
    await chat.reply(f"re: {message.text}")


async def keeps(message: InboundMessage, chat: Chat, job: Job, store: Store, history: History) -> None:
    await store.add("said")
    await chat.reply(f"{await job.step('count', lambda: len(history))}: {message.text}")


async def fails(message: InboundMessage, chat: Chat) -> None:
    raise ValueError(message.text)


@pytest.mark.parametrize("handler", [answers, keeps, fails])
async def test_what_a_run_was_made_of_is_gone_with_its_job(handler: Callable[..., Awaitable[None]]) -> None:
    agent, bus = Agent(), MemoryBus()
    agent.on_message()(handler)
    async with running(agent, bus):
        bus.give(job_of("first"))
        await bus.until(lambda: not bus.held and len(bus.finished) + len(bus.failed) == 1)
        gc.collect()
        before = runs()
        gc.disable()
        try:
            for count in range(2, 12):
                bus.give(job_of("next", number=count))
                await bus.until(lambda count=count: not bus.held and len(bus.finished) + len(bus.failed) == count)  # type: ignore[misc]  # a default binds the loop's value
            with waiting_for("every run to be gone", 10):  # the bus hears of its end before it has returned
                while [found for found in runs() if not any(found is one for one in before)]:
                    await trio.sleep(0.01)
        finally:
            gc.enable()


def runs() -> list[Sending]:
    """What a run says by, of every run that is somewhere in this process; other tests have left some."""
    return [found for found in gc.get_objects() if isinstance(found, Sending)]
