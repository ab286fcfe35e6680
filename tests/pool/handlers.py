"""Handlers for workers in tests: each does one good or bad thing, chosen by the text of the message."""

import os
import re
import signal
import subprocess
import sys
import time

import trio

from workers import Agent, Chat, InboundMessage

agent = Agent()


def grandchild() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


@agent.on_message("text")
async def act(message: InboundMessage, chat: Chat) -> None:
    """The first word of the text is what to do."""
    command, _, rest = message.text.partition(" ")
    match command:
        case "environment":
            await chat.reply("\n".join(f"{name}={value}" for name, value in sorted(os.environ.items())))
        case "sleep":
            await trio.sleep(float(rest))
            await chat.reply("slept")
        case "spin":
            while True:
                pass
        case "hold":
            re.match(r"(a+)+$", "a" * 60 + "b")  # Years, in C, without letting any other thread run.
        case "block":
            time.sleep(float(rest))  # noqa: ASYNC251 - the mistake itself
            await chat.reply("blocked")
        case "exit":
            os._exit(int(rest))
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "grandchild":
            await chat.reply(str(grandchild()))
        case _:
            await chat.reply(f"re: {message.text}")
