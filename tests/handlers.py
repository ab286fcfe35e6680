"""Handlers for tests that need more than the built-in ones."""

import hashlib
import os
from pathlib import Path
from typing import Any

import trio
from msgspec import Struct

from bus.records.records import InboundMessage
from workers import Agent, App, Event, File, InboundFile, Message, ToolDenied
from workers.handling.context import JobContext
from workers.talk.chat import Chat

talkative = Agent()


@talkative.on_message()
async def sixty_lines(_message: InboundMessage, chat: Chat) -> None:
    """Sixty answers to one message."""
    for number in range(60):
        await chat.reply(f"line {number}")


async def _hold(message: InboundMessage, chat: Chat) -> bool:
    """`hold N …` is answered after N seconds, and shown while it waits."""
    word, _, rest = message.text.partition(" ")
    if word != "hold":
        return False
    async with chat.stream() as stream:
        await stream.write("held")
        await trio.sleep(float(rest.partition(" ")[0]))
    return True


def _agent(**policies: Any) -> Agent:
    made = Agent(**policies)

    @made.on_message()
    async def answer(message: InboundMessage, chat: Chat, job: JobContext) -> None:
        if message.text == "die":
            os._exit(1)
        if not await _hold(message, chat):
            await chat.reply("+".join(one.text for one in job.messages))

    return made


overhearing = Agent(groups="all")


@overhearing.on_message("text")
async def echo_all(message: InboundMessage, chat: Chat) -> None:
    """In groups too, whoever is meant."""
    await chat.reply(f"echo: {message.text}")


filing = Agent()


@filing.on_message("file", "image", "audio", "video")
async def send_back(message: Message, chat: Chat) -> None:
    """Reads a file, sends it back, and says what its hash was."""
    [file] = message.files
    digest = hashlib.sha256()
    async for chunk in file.chunks():
        digest.update(chunk)
    await chat.reply(File(file.chunks(), name=f"back-{file.name}", type=file.type))
    await chat.reply(digest.hexdigest())


class Filed(Struct):
    title: str
    file: InboundFile


@filing.on_command("form")
async def ask_for_a_file(chat: Chat) -> None:
    """Asks for a file by a form, and says what its hash is."""
    filed = await chat.ask(Filed)
    await chat.reply(f"{filed.title}: {hashlib.sha256(await filed.file.bytes()).hexdigest()}")


voting = Agent()
SLOW_SECONDS = 0.3


@voting.on_message("text")
async def vote(message: InboundMessage, chat: Chat) -> None:
    """A vote card; its one button is answered with the card's next revision. `oops` is answered with something that is taken back."""
    if message.text == "export":
        async with chat.progress("Exporting", cancel="Stop") as bar:
            await trio.sleep(300)
        await chat.reply("stopped" if bar.cancelled else "done")
        return
    if message.text.startswith("tell "):
        _, conversation_id, text = message.text.split(" ")
        await chat.to(conversation_id).reply(text)
        return
    if message.text == "oops":
        await chat.react("👍")
        sent = await chat.reply("wrong")
        await sent.recall()
        await chat.reply("right", quote=True)
        return
    await chat.reply(App("vote_card", {"question": message.text, "votes": 0}, title="Vote"))


@voting.on_message("artifact")
async def count_vote(message: InboundMessage, chat: Chat) -> None:
    artifact = message.payload["artifact"]
    assert isinstance(artifact, dict)
    votes = artifact["payload"]["votes"]
    await chat.update(artifact["ref_artifact"], {"votes": votes})
    await trio.sleep(SLOW_SECONDS)  # so that it can be killed behind its update
    await chat.update(artifact["ref_artifact"], {"votes": votes + 1})


failing = Agent()


@failing.on_message()
async def fail_at_first(message: InboundMessage, chat: Chat, job: JobContext) -> None:
    """`fail` fails in its first run."""
    if message.text == "fail" and job.attempt == 1:
        raise ValueError
    await chat.reply(message.text)


meeting = Agent()
MET_FILE = "MET_FILE"


@meeting.on_event("relation.established")
def note_who_was_met(event: Event) -> None:
    """A line in a file for each."""
    with Path(os.environ[MET_FILE]).open("a", encoding="utf-8") as file:
        file.write(f"{event.user_id}\n")


interrupting = _agent(when_busy="interrupt")
coalescing = _agent(when_busy="coalesce")
refusing = _agent(most_waiting=1, refusal="Too many, please wait.")
parking = _agent(most_waiting=1, when_full="park")
apologising = _agent(apology="That was too much for me.")


calendar = Agent()


@calendar.on_command("free")
async def free(chat: Chat, args: str) -> None:
    """Asks the app of whoever wrote."""
    try:
        await chat.reply(f"Free at {await chat.call_tool('free_slots', {'day': args}, scope='calendar.read')}.")
    except ToolDenied as denied:
        await chat.reply(f"Denied: {denied.why}.")
