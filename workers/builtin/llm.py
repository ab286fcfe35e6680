"""Answers every text by a language model, token by token, knowing what was said before, and every picture, by a model that takes some.

Endpoint and model come from the environment.
"""

from workers.errors import FileGone, FileTooLarge, LLMNoPictures
from workers.files.inbound import Message
from workers.handling.agent import Agent
from workers.llm.model import LLM
from workers.talk.chat import Chat

NO_PICTURES = "I cannot look at pictures. Please tell me in words what it shows, or what you would like to know."
GONE = "The picture is no longer there. Please send it again."
TOO_LARGE = "This picture is too large for me. Please send a smaller one."

agent = Agent(llm=LLM())


@agent.on_message("text", "image")
async def answer(message: Message, chat: Chat, llm: LLM) -> None:
    """Replies with the model's answer, to pictures of what is quoted too; where it takes none, with a sentence that says so."""
    quoted = message.quoted.files if message.quoted is not None else ()
    pictures = [file for file in (*quoted, *message.files) if file.kind == "image"]
    try:
        await llm.reply(images=pictures)
    except LLMNoPictures:
        await chat.reply(NO_PICTURES)
    except FileGone:
        await chat.reply(GONE)
    except FileTooLarge:
        await chat.reply(TOO_LARGE)
