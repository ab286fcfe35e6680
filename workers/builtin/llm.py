"""Answers every text by a language model, token by token. The endpoint and the model come from the environment.

It knows the message that it answers and the system prompt, nothing earlier. A busy endpoint brings the job back when it asked to.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from bus.records.records import InboundMessage
from workers.agent import Agent
from workers.chat import Chat
from workers.context import JobContext
from workers.errors import CannotStart, Retry
from workers.llm import LLM, LLMBusy, LLMCut, LLMSettings, Turn


def make_agent(environ: Mapping[str, str]) -> Agent:
    """An agent whose endpoint is read from `environ` when its worker starts."""
    shared: list[LLM] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        try:
            llm = LLM(LLMSettings.from_environ(environ))
        except (OSError, UnicodeDecodeError):
            raise CannotStart("HASHEE_LLM_SYSTEM_PROMPT_FILE: the path of a text file in UTF-8") from None
        shared.append(llm)
        try:
            yield
        finally:
            shared.remove(llm)
            await llm.aclose()

    agent = Agent(lifespan=lifespan)

    @agent.on_message("text")
    async def answer(message: InboundMessage, chat: Chat, job: JobContext) -> None:
        try:
            async with chat.typing(), chat.stream(markdown=True) as stream:
                await shared[-1].answer([Turn("user", message.text)], stream.write, job)
                if stream.length == 0:
                    raise LLMCut("the model's answer is empty")
        except LLMBusy as busy:
            raise Retry(busy.retry_after_seconds) from None

    return agent


agent = make_agent(os.environ)
