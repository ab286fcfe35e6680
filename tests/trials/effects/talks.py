"""What people say to each example, and what they must hear. Each is a conversation of its own, from its first word to its rest."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import trio
from redis import Redis
from redis.exceptions import RedisError

from tests.trials.effects.scene import SECONDS, Talking, nap
from tests.waiting import waiting_for
from tests.workers.llm.endpoint import events
from tests.workers.tools.scenes import call
from workers.kept.words import Words

Talk = Callable[[Talking], Awaitable[None]]

MISFIT: Final = "Please answer with a date, such as 2026-12-31."
HELLO: Final = "hello"
QUESTION: Final = "when do we meet?"
ROOT: Final = Path(__file__).parents[3]
SEND: Final = (sys.executable, "-m", "supervisor", "send")
TELL: Final = (sys.executable, str(ROOT / "examples" / "tell_from_outside.py"))
ASK_WEATHER: Final = "How is the weather in Rome?"
SUNNY: Final = "It is sunny in Rome."
ASK_DELETE: Final = "Please delete"
GONE: Final = "It is gone."
UNKNOWN: Final = Words().tells_of("delete_files")
MAY_I: Final = "[approval] May I run delete_files?"
STORY: Final = "About keys: Once upon a time there was an agent that never forgot what it had said. "
CARD: Final = "[vote_card] {update}options: {options}\nclosed: {closed}"


@dataclass(frozen=True)
class Example:
    """One example's talk. `hears`: all that Ada hears of it. `shows_progress`: each run shows its one card anew."""

    name: str
    handler: str
    talk: Talk
    hears: tuple[str, ...]
    is_group: bool = False
    shows_progress: bool = False
    is_stopped: bool = False
    may_be_unknown: bool = False
    """Whether a kill may leave it unknown if something was done, which is said then."""

    def heard(self, talking: Talking) -> list[str]:
        """What Ada has heard; of a card that shows how far something is only how it is shown now."""
        heard = talking.heard
        if self.may_be_unknown:
            heard = [text for text in heard if text != UNKNOWN]
        heard = [
            MAY_I if text.startswith(MAY_I) else text for text in heard
        ]  # its details name a file of this talk alone
        if not self.shows_progress:
            return heard
        [card] = talking.ada.cards.values()
        return [f"[progress] {card.payload['status']}", *(text for text in heard if not text.startswith("[progress]"))]


async def book(at: Talking) -> None:
    for count, text in enumerate(("/book", "Ann", "tomorrow", "2026-12-01"), start=1):
        await at.say(text)
        await at.hear(count)
    await at.ada.decide(at.conversation, at.card_id, approve=True)
    await at.hear(5)


async def remember(at: Talking) -> None:
    for count, text in enumerate(("one", "two", "/forget", "three"), start=1):
        await at.say(text)
        await at.hear(count)


async def vote(at: Talking) -> None:
    await at.say("/vote")
    await at.hear(1)
    for option in ("stew", "soup"):  # the second one of the same person counts no more
        await at.ada.answer(at.conversation, at.card_id, {"option": option})
    await at.hear(2)
    await time_comes(at)
    await at.hear(3)


async def be_reminded(at: Talking) -> None:
    await at.say("Remind me in 5 minutes to drink tea")
    await at.hear(1)
    await time_comes(at)
    await at.hear(2)


async def subscribe(at: Talking) -> None:
    await at.say("/digest")
    await at.hear(1)
    for day in (2, 3):
        await time_comes(at)
        await at.hear(day)
    await at.say("/enough")
    await at.hear(4)


async def ask_in_a_group(at: Talking) -> None:
    assert at.ben is not None
    agent_id = at.world.environment["HASHEE_AGENT_ID"]
    await at.ben.say(at.conversation, "shall we ask the agent?")
    await at.say(f"@<U:{agent_id}> {QUESTION}")
    ben, answer = at.ben, f"You asked: {QUESTION}"
    await at.until(lambda: answer in at.heard)
    await ben.transcript.until(lambda: answer in ben.transcript.heard(at.conversation))
    assert ben.quotes[answer].endswith(QUESTION)


async def export(at: Talking) -> None:
    await at.say("/export")
    await at.until(lambda: "Done." in at.heard)


async def export_and_stop(at: Talking) -> None:
    await at.say("/export")
    await at.until(lambda: any("at " in text or "40" in text for text in at.heard))
    await at.ada.answer(at.conversation, at.card_id, {"action": "cancel"})
    await at.until(lambda: "Stopped." in at.heard)


async def have_deleted(at: Talking) -> None:
    """The model looks something up, and asks before it deletes."""
    file = _old_file(at)
    await at.say(ASK_WEATHER)
    await at.hear(1)
    await at.say(f"{ASK_DELETE} {file.name}")
    await at.hear(2)
    assert _is_there(file), "deleted before it was approved"
    await at.ada.decide(at.conversation, at.card_id, approve=True)
    await at.until(lambda: GONE in at.heard)
    assert UNKNOWN in at.heard or not _is_there(file)


def _old_file(at: Talking) -> Path:
    folder = Path(at.world.environment["FILES_FOLDER"])
    folder.mkdir(exist_ok=True)
    file = folder / f"{at.conversation}.tmp"
    file.write_text("old", encoding="utf-8")
    return file


def _is_there(file: Path) -> bool:
    return file.exists()


def model(request: dict[str, Any]) -> bytes:
    """What the language model of the examples writes: the same, however often it is asked."""
    last = request["messages"][-1]
    text = str(last["content"])
    if last["role"] == "tool":
        return events(SUNNY if "sunny" in text else GONE)
    if text == HELLO:
        return events("Ahoy!", usage=(45_000, 5_000))
    if text == ASK_WEATHER:
        return call("weather", city="Rome")
    return call("delete_files", pattern=text.removeprefix(ASK_DELETE).strip())


async def deploy(at: Talking) -> None:
    """From outside, with a key: whoever is refused, or gets no answer, says it again."""
    await at.say("hello")  # somebody has to have written first
    words = ("--to", at.conversation, "--key", f"deploy-{at.conversation}", "--reminder", "deploy")
    await until_taken(at, *SEND, *words, "--data", '{"version": "42"}')
    await at.hear(1)
    await until_taken(at, *TELL, at.conversation, f"well-{at.conversation}", "All is well")
    await at.hear(2)


async def use_up(at: Talking) -> None:
    """The first answer takes all tokens of the day."""
    for count, text in enumerate((HELLO, "and now?"), start=1):
        await at.say(text)
        await at.hear(count)


async def greet(at: Talking) -> None:
    await at.say(HELLO)
    await at.hear(1)


async def have_a_story_told(at: Talking) -> None:
    await at.say("keys")
    await at.hear(1)
    assert at.ada.counts["deltas"] > 1, "it was not seen while it grew"


async def order(at: Talking) -> None:
    await at.say("bread")
    await at.hear(1)


async def until_taken(at: Talking, *command: str) -> None:
    """Runs a program until it has said that it was taken in."""
    failed = ""
    with waiting_for("what is told from outside to be taken in", SECONDS, lambda: failed):
        while True:
            environment = {**at.world.environment, "PYTHONPATH": str(ROOT)}
            done = await trio.run_process(
                command, env=environment, check=False, capture_stderr=True, capture_stdout=True
            )
            if done.returncode == 0:
                return
            failed = done.stderr.decode()


async def time_comes(at: Talking) -> None:
    """What is set in this conversation is due now, as if the time had come; it may have to be set first."""
    while not await trio.to_thread.run_sync(partial(_bring_forward, at)):
        await nap()


def _bring_forward(at: Talking) -> bool:
    with Redis(unix_socket_path=str(at.redis_socket), protocol=2) as redis:
        alarms = at.world.keys.alarms
        try:
            rows = cast("list[bytes]", redis.zrangebyscore(alarms, 2, "+inf"))
            own = [one for one in rows if one.startswith(at.conversation.encode())]
            return bool(own) and redis.zadd(alarms, dict.fromkeys(own, 1), xx=True, ch=True) == len(own)
        except RedisError:
            return False


EXAMPLES: Final = (
    Example(
        "booking",
        "examples.booking_agent:agent",
        book,
        (
            "Your name?",
            "Which day?",
            MISFIT,
            "[approval] Ann on 2026-12-01?\n(approve) (reject)",
            "Booked.",
        ),
    ),
    Example(
        "memory",
        "examples.memory_agent:agent",
        remember,
        (
            "1. I have read 1 turns, from 'one' to 'one'.",
            "2. I have read 3 turns, from 'one' to 'two'.",
            "Forgotten.",
            "1. I have read 1 turns, from 'three' to 'three'.",
        ),
    ),
    Example(
        "lunch",
        "examples.lunch_agent:agent",
        vote,
        tuple(
            CARD.format(update=update, options=options, closed=closed)
            for update, options, closed in (
                ("", {"soup": 0, "stew": 0}, False),
                ("(update 1) ", {"soup": 0, "stew": 1}, False),
                ("(update 2) ", {"soup": 0, "stew": 1}, True),
            )
        ),
    ),
    Example("reminder", "examples.reminder_agent:agent", be_reminded, ("I will.", "⏰ drink tea")),
    Example(
        "digest",
        "examples.reminder_agent:agent",
        subscribe,
        ("Each morning at eight.", "Good morning!", "Good morning!", "No more digests."),
    ),
    Example(
        "group",
        "examples.group_agent:agent",
        ask_in_a_group,
        ("shall we ask the agent?", f"You asked: {QUESTION}"),
        is_group=True,
    ),
    Example("export", "examples.export_agent:agent", export, ("[progress] done", "Done."), shows_progress=True),
    Example(
        "export-stopped",
        "examples.export_agent:agent",
        export_and_stop,
        ("[progress] cancelled", "Stopped."),
        shows_progress=True,
        is_stopped=True,
    ),
    Example(
        "tools",
        "examples.tools_agent:agent",
        have_deleted,
        (SUNNY, MAY_I, GONE),
        may_be_unknown=True,
    ),
    Example("budget", "examples.budget_agent:agent", use_up, ("Ahoy!", "Please wait a little.")),
    Example("deploy", "examples.deploy_agent:agent", deploy, ("Version 42 is out.", "All is well")),
)

QUICK_ONES: Final = (
    Example("pirate", "examples.pirate_agent:agent", greet, ("Ahoy!",)),
    Example("story", "examples.story_agent:agent", have_a_story_told, (STORY,)),
    Example("shop", "examples.shop_agent:agent", order, ("Ordered, your number is 7.",)),
)
"""Examples whose effects are those of others: they are run, and `make effects` does not walk them."""
