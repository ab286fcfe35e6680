"""Answers every text by a language model, token by token. Endpoint and model come from the environment.

The model gets the system prompt and the message, nothing earlier. If the endpoint is busy the job runs again when the endpoint says.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from bus.records.records import InboundMessage
from workers.errors import CannotStart, Retry
from workers.handling.agent import Agent
from workers.handling.context import JobContext
from workers.llm import LLM, LLMBusy, LLMCut, LLMSettings, Turn
from workers.talk.chat import Chat


def make_agent(environ: Mapping[str, str]) -> Agent:
    """Returns an agent that reads its endpoint from `environ` when its worker starts."""
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
