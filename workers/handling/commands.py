"""The commands that an agent with a language model has by itself. A command of the owner's with the same name takes its place."""

from collections.abc import Callable, Sequence

from workers.errors import BadHandler
from workers.handling.routing import Router
from workers.kept.words import Words
from workers.llm.model import HELP, RESET, STOP
from workers.talk.chat import Chat

COMMANDS = (RESET, STOP, HELP)
LISTED = {RESET: "I forget what was said here", STOP: "I stop answering", HELP: "this list"}


def commands_of(names: Sequence[str], words: Words, helps: Callable[[], str]) -> Router:
    """Returns a router with these commands. `helps` returns what /help says. Raises BadHandler for a name that there is not."""
    if unknown := [name for name in names if name not in COMMANDS]:
        raise BadHandler(f"LLM(commands=…) takes {', '.join(COMMANDS)}, not {', '.join(map(str, unknown))}")
    router = Router()
    if RESET in names:

        @router.on_command(RESET)
        async def reset(chat: Chat) -> None:
            await chat.forget()
            await chat.reply(words.forgotten)

    if STOP in names:

        @router.on_command(STOP)
        async def say_that_nothing_stops(chat: Chat) -> None:
            """What there is to stop is stopped before a handler gets the word (bus/scripts/intake/accept.lua)."""
            await chat.reply(words.nothing_to_stop)

    if HELP in names:

        @router.on_command(HELP)
        async def show_help(chat: Chat) -> None:
            await chat.reply(helps())

    return router


def help_on(names: Sequence[str], of_owner: Sequence[str]) -> str:
    """Returns what /help says where the owner has no words for it."""
    ours = [f"/{name}: {LISTED[name]}" for name in names]
    return "\n".join(["Write to me, and I answer. You can also write:", *(f"/{name}" for name in of_owner), *ours])
