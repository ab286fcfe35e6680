"""Handlers for workers in tests: each does one good or bad thing, chosen by the text of the message.

A command with `_once` does it the first time only, which a file that is named last remembers over the death of the worker.
"""

import ctypes
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import trio

from bus.transport.wire import Wire
from workers import Agent, BlockingChat, Chat, InboundMessage

agent = Agent()
hoard: list[bytes] = []


def grandchild(*, own_session: bool = False) -> int:
    forever = [sys.executable, "-c", "import time; time.sleep(600)"]
    return subprocess.Popen(forever, start_new_session=own_session).pid


def hold_the_interpreter() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")  # Years, in C, without letting any other thread run.


def is_first_time(path: str) -> bool:
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@agent.on_message("text", when="fork in a thread")
def fork_in_a_thread(chat: BlockingChat) -> None:
    """What it forks speaks too."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        chat.reply(f"thread: {os.waitstatus_to_exitcode(status)}")
    else:
        chat.reply("in the child")


@agent.on_message("text")
async def act(  # noqa: PLR0912 - a table
    message: InboundMessage, chat: Chat
) -> None:
    """The first word of the text is what to do."""
    command, _, rest = message.text.partition(" ")
    if command.endswith("_once"):
        rest, _, path = rest.rpartition(" ")
        command = command.removesuffix("_once") if is_first_time(path) else "again"
    match command:
        case "environment":
            await chat.reply("\n".join(f"{name}={value}" for name, value in sorted(os.environ.items())))
        case "wait":
            while not await trio.Path(rest).exists():
                await trio.sleep(0.02)
            await chat.reply("waited")
        case "sleep":
            await trio.sleep(float(rest))
            await chat.reply("slept")
        case "mark":
            path, _, seconds = rest.partition(" ")
            async with await trio.open_file(path, "a") as file:
                await file.write("x")
            await trio.sleep(float(seconds))
            await chat.reply("marked")
        case "lame":  # A defect of ours, in the thread that renews leases.
            Wire.call = None  # type: ignore[method-assign,assignment]
            await trio.sleep(600)
        case "ask_and_hang":
            try:
                await chat.ask("Your name?")
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(600)
        case "spin":
            while True:
                pass
        case "hold":
            hold_the_interpreter()
        case "block":
            time.sleep(float(rest))  # noqa: ASYNC251 - the mistake itself
            await chat.reply("blocked")
        case "exit":
            os._exit(int(rest))
        case "interrupt":
            raise KeyboardInterrupt(rest)
        case "segfault":
            ctypes.string_at(0)
        case "thread":
            threading.Thread(target=int, args=(rest,), name="owners-thread").start()
            await chat.reply("started")
        case "endless_thread":
            threading.Thread(target=time.sleep, args=(600,), name="owners-thread").start()
            await chat.reply("started")
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "grandchild":
            await chat.reply(str(grandchild()))
        case "daemon":
            await chat.reply(str(grandchild(own_session=True)))
        case "leak":
            hoard.append(b"x" * (int(rest) << 20))
            await chat.reply("leaked")
        case "leak_and_wait":
            hoard.append(b"x" * (int(rest) << 20))
            await trio.sleep_forever()
        case "fork":
            await fork(rest, chat)
        case "terminate":
            children = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)) for _ in range(30)]
            for child in children:  # the signal comes while it begins
                child.start()
                child.terminate()
                child.join()
            await chat.reply(f"ended by signal {sorted({-(child.exitcode or 0) for child in children})}")
        case _:
            await chat.reply(f"re: {message.text.partition(' ')[0] if command == 'again' else message.text}")


async def fork(what: str, chat: Chat) -> None:
    """What it forks comes back in one of three ways. Answers with its exit status."""
    if child := os.fork():
        _, status = await trio.to_thread.run_sync(os.waitpid, child, 0)
        await chat.reply(f"{what}: {os.waitstatus_to_exitcode(status)}")
    elif what == "raises":
        raise LookupError("in the child")
    elif what == "says":
        await chat.reply("in the child")


@agent.on_message("system")
def act_in_a_thread(message: InboundMessage, chat: BlockingChat) -> None:
    """A sync handler: it runs in a thread."""
    path = str(message.payload["path"])
    if is_first_time(path):
        hold_the_interpreter()
    chat.reply("re: thread")
