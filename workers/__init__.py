"""The API that a handler is written against, and the worker process that runs it.

from workers import Agent

agent = Agent()

@agent.on_message()
async def answer(message, chat):
    await chat.reply(f"You said: {message.text}")
"""

from bus.records import InboundMessage
from workers.agent import Agent
from workers.blocking import BlockingChat, BlockingStream
from workers.chat import Chat
from workers.context import JobContext
from workers.errors import BadHandler, BadReply, CannotStart, Fail, HandlerError, Retry, TextTooLong
from workers.stream import Stream

__all__ = [
    "Agent",
    "BadHandler",
    "BadReply",
    "BlockingChat",
    "BlockingStream",
    "CannotStart",
    "Chat",
    "Fail",
    "HandlerError",
    "InboundMessage",
    "JobContext",
    "Retry",
    "Stream",
    "TextTooLong",
]
