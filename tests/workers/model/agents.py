"""The handlers of the model, in three versions: as they are, with another question, and without those that ask.

Each says its tag with all that it says: the tag of the message that began its thread. So what people get can be told apart.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import trio

from bus.steps.policies import Busy
from workers import Agent, Approval, Chat, Job, Message, NoAnswer, OutcomeUnknown, StateBeforeAsk, Store, TooManyWaits

VERSIONS = ("first", "other question", "without")
REMINDED_AFTER = timedelta(hours=1)
OPEN_FOR = timedelta(hours=2)
BLOCK_TURNS, TURN_SECONDS = 5, 1.5
BOOKING_SECONDS = 1.0


class Kept(msgspec.Struct):
    """The state of a conversation: the threads that have ended, each with the number that it was given."""

    done: list[tuple[str, int]] = []


@dataclass
class Deeds:
    """What handlers have done outside of the bus. `failures`: how often a handler fails from here on before it does not, as the play decides."""

    failures: Callable[[], int]
    to_fail: dict[tuple[str, str], int] = field(default_factory=dict)
    numbers: Counter[str] = field(default_factory=Counter)
    booked: Counter[str] = field(default_factory=Counter)
    noted: set[str] = field(default_factory=set)
    """Tags whose number is noted: from then on nobody works it out again."""

    faults: list[str] = field(default_factory=list)
    blocks: dict[str, int] = field(default_factory=dict)
    """Of each export its turns since its Stop was pressed."""

    ended: set[str] = field(default_factory=set)
    """Tags of exports of which it is noted how they ended."""

    def may_fail(self, tag: str, where: str) -> None:
        """Raises ValueError so many times."""
        left = self.to_fail.setdefault((tag, where), self.failures())
        self.to_fail[tag, where] = left - 1
        if left > 0:
            raise ValueError

    def number(self, tag: str) -> int:
        if tag in self.noted:
            self.faults.append(f"{tag}: a step that was noted is done again")
        self.numbers[tag] += 1
        return sum(self.numbers.values())

    async def book(self, tag: str) -> None:
        self.booked[tag] += 1
        if self.booked[tag] > 1:
            self.faults.append(f"{tag}: what may be done once is done again")
        await trio.sleep(BOOKING_SECONDS)


def agent_of(version: str, deeds: Deeds, busy: Busy, most_waiting: int) -> Agent:
    agent = Agent(state=Kept, when_busy=busy, most_waiting=most_waiting, history=True)

    @agent.on_reminder("say")
    async def say(chat: Chat, data: str) -> None:
        await chat.reply(f"{data}: reminded")

    if version != "without":
        add_threads(agent, version, deeds)
    add_others(agent, deeds)

    @agent.on_message("text")
    async def other(chat: Chat, job: Job) -> None:
        await chat.reply("hm: " + "+".join(one.text for one in job.messages))

    return agent


def tag_of(message: Message) -> str:
    return message.text.split()[-1]


def add_threads(agent: Agent, version: str, deeds: Deeds) -> None:
    name_question = "name?" if version == "first" else "full name?"

    @agent.on_command("book")
    async def book(message: Message, chat: Chat, job: Job, state: Kept, store: Store) -> None:
        tag = tag_of(message)
        who = ["ben"] if "ben" in message.text.split() else None
        before = len(await chat.history())
        try:
            name = await chat.ask(f"{tag}: {name_question}", timeout=OPEN_FOR, who=who)
            number = await job.step("number", deeds.number, tag)
            await chat.reply(f"{tag}: hello {name}, {number}, {before} before")
            deeds.may_fail(tag, "hello")
            is_wanted = await chat.ask(Approval(f"{tag}: book for {name}?"), timeout=OPEN_FOR, who=who)
        except NoAnswer as none:
            await chat.reply(f"{tag}: never mind, {none.why}")
            return
        if is_wanted:
            try:
                await job.once("book", deeds.book, tag)
            except OutcomeUnknown:
                await chat.reply(f"{tag}: unknown")
        count = await store.change("ended", lambda before: (before or 0) + 1)
        state.done.append((tag, number))
        await chat.reply(f"{tag}: {'booked' if is_wanted else 'not booked'}, {number}, {count}, {before} before")
        deeds.may_fail(tag, "booked")

    @agent.on_command("plan")
    async def plan(message: Message, chat: Chat) -> None:
        """Nobody's answer ends it quietly; its reminders stay. The second takes the place of the first."""
        tag = tag_of(message)
        await chat.remind("say", after=REMINDED_AFTER, data=tag)
        for data in (f"former {tag}", f"keyed {tag}"):
            await chat.remind("say", after=REMINDED_AFTER, data=data, key=tag)
        await chat.reply(f"{tag}: hello {await chat.ask(f'{tag}: sure?', timeout=OPEN_FOR)}")
        deeds.may_fail(tag, "sure")

    @agent.on_command("swallow")
    async def swallow(message: Message, chat: Chat) -> None:
        """A defect that the runtime has to bear: it takes the end of its run for an answer. Another version asks nothing."""
        tag = tag_of(message)
        if version != "first":
            return
        try:
            name = await chat.ask(f"{tag}: swallowed?", timeout=OPEN_FOR)
        except NoAnswer as none:
            await chat.reply(f"{tag}: never mind, {none.why}")
            return
        except TooManyWaits:
            raise
        except BaseException:  # noqa: BLE001 - the defect
            name = "nobody"
        with trio.CancelScope(shield=True):
            await chat.reply(f"{tag}: hello {name}")

    @agent.on_command("hasty")
    async def hasty(message: Message, chat: Chat, state: Kept) -> None:
        tag = tag_of(message)
        state.done.append((tag, -1))
        try:
            await chat.ask(f"{tag}: hasty?", timeout=OPEN_FOR)
        except StateBeforeAsk:
            state.done.pop()
            await chat.reply(f"{tag}: refused")


def add_others(agent: Agent, deeds: Deeds) -> None:
    """Those that all versions have."""

    @agent.on_command("confirm")
    async def confirm(message: Message, chat: Chat) -> None:
        tag = tag_of(message)
        try:
            is_wanted = await chat.ask(Approval(f"{tag}: really?"), timeout=OPEN_FOR)
        except NoAnswer as none:
            await chat.reply(f"{tag}: never mind, {none.why}")
            return
        await chat.reply(f"{tag}: {'booked' if is_wanted else 'not booked'}")
        deeds.may_fail(tag, "confirmed")

    @agent.on_command("export")
    async def export(message: Message, chat: Chat) -> None:
        tag = tag_of(message)
        async with chat.progress(f"{tag}: exporting", cancel="Stop") as bar:
            for turn in range(BLOCK_TURNS):
                await bar.update(turn)
                await trio.sleep(TURN_SECONDS)
                if turn == 1:
                    await chat.reply(f"{tag}: on its way")
                if tag in deeds.blocks and tag not in deeds.ended:
                    deeds.blocks[tag] += 1
                    if deeds.blocks[tag] > 3:
                        deeds.faults.append(f"{tag}: it goes on, and its Stop was pressed")
        deeds.may_fail(tag, "ended")
        how = "stopped" if bar.cancelled else "exported"
        await chat.reply(f"{tag}: {how}")
        try:
            why = await chat.ask(f"{tag}: why?", timeout=OPEN_FOR)
        except NoAnswer as none:
            await chat.reply(f"{tag}: {how}, never mind, {none.why}")
            return
        await chat.reply(f"{tag}: hello {why}, {how}")
