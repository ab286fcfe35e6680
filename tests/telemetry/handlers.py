"""Handlers whose libraries trace: an async one, a sync one in a thread, one that fails once."""

from opentelemetry import trace

from bus.records.records import InboundMessage
from workers import Agent
from workers.handling.blocking import BlockingChat
from workers.handling.context import JobContext
from workers.talk.chat import Chat

LIBRARY = "the.owners.library"

agent = Agent()
blocking = Agent()


@agent.on_message()
async def answer(message: InboundMessage, chat: Chat, job: JobContext) -> None:
    """`fail once …` fails at its first try."""
    with trace.get_tracer(LIBRARY).start_as_current_span("asks a service"):
        await chat.reply(f"echo: {message.text}")
    trace.get_current_span().set_attribute("owner.tier", "gold")
    if message.text.startswith("fail once") and job.attempt == 1:
        raise RuntimeError(message.text)


@blocking.on_message()
def answer_in_a_thread(message: InboundMessage, chat: BlockingChat) -> None:
    """As a library that knows no event loop."""
    with trace.get_tracer(LIBRARY).start_as_current_span("asks a service"):
        chat.reply(f"echo: {message.text}")
