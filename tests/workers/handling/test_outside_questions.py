"""What programs ask people (`hashee-agent mcp`): asked once and answered once whoever dies, by the worker's real runner over the bus in memory."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from bus.records.outside import ASK_REMINDER, ASKED, FORGET_REMINDER, OutsideAnswer, OutsideQuestion, answer_key
from bus.records.records import InboundMessage, pack_placed_job
from bus.records.timers import due_payload
from tests.bus.builders import AGENT, BUS_KEY, CONVERSATION
from tests.bus.scenes import MemoryScene
from tests.workers.stage import Heard, Stage
from workers import Agent, Answer, Approval, BadHandler, Chat
from workers.handling.outside_questions import MOST_ANSWER_CHARACTERS

pytestmark = pytest.mark.pure

MINUTE = 60.0


@pytest.fixture
def scene() -> Iterator[MemoryScene]:
    made = MemoryScene()
    yield made
    made.close()


def echo() -> Agent:
    agent = Agent()

    @agent.on_message("text")
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply(f"re: {message.text}")

    return agent


def question(text: str = "Go on?", **more: object) -> OutsideQuestion:
    asked = OutsideQuestion(CONVERSATION, text, MINUTE, is_approval=True, who="ann", asker="coder")
    return msgspec.structs.replace(asked, **more)


async def ask(stage: Stage, name: str, asked: OutsideQuestion, *, seconds_ago: float = 0.0) -> list[Heard]:
    """A question is placed under an id, once; what people hear of it."""
    placed_ms = round((time.time() - seconds_ago) * 1000)
    data = msgspec.msgpack.encode(msgspec.to_builtins(asked))
    content = InboundMessage(
        message_id=f"{ASKED}{name}",
        conversation_id=CONVERSATION,
        conversation_type="h2a",
        sender_id="ann",
        sender_type="human",
        payload=due_payload("reminder", ASK_REMINDER, data, placed_ms),
    )
    packed = pack_placed_job("reminder", content, placed_ms=placed_ms, key=BUS_KEY, agent_id=AGENT)
    await (await stage.talk_here()).supervisor.placing.place(packed)
    return await stage.run()


async def answer_to(stage: Stage, name: str) -> OutsideAnswer | None:
    worker = await stage.scene.worker("who looks")
    _, body = await worker.steps.read_stored(answer_key(f"{ASKED}{name}"))
    return None if body is None else msgspec.msgpack.decode(body, type=OutsideAnswer)


async def begun(scene: MemoryScene, dies_at: float = float("inf")) -> Stage:
    """Somebody has written before."""
    stage = Stage(scene, echo())
    await stage.say("hello")
    stage.points, stage.dies_at = 0, dies_at
    return stage


async def asked_and_answered(stage: Stage) -> list[Heard]:
    [card] = await ask(stage, "one", question(details="`rm -rf build`"))
    assert await answer_to(stage, "one") is None
    await stage.press(card, approve=False, comment="not today")
    assert await answer_to(stage, "one") == OutsideAnswer(CONVERSATION, "answered", False, "not today", by="ann")
    return [card]


async def test_an_approval_is_answered_with_its_comment_and_says_who_asks(scene: MemoryScene) -> None:
    [card] = await asked_and_answered(await begun(scene))
    assert card.artifact["title"] == "A program asks: coder"
    assert (card.text, card.card["details"]) == ("Go on?", "`rm -rf build`")


async def test_a_worker_that_dies_anywhere_asks_nobody_twice_and_loses_no_answer() -> None:
    counting = await begun(MemoryScene())
    await asked_and_answered(counting)
    assert counting.points > 10
    for dies_at in range(counting.points):
        stage = await begun(MemoryScene(), dies_at)
        await asked_and_answered(stage)
        assert len(stage.transcript) == 2, f"the echo and one card, where a worker died at {dies_at}"


async def test_two_questions_are_open_at_once_and_each_gets_its_own_answer(scene: MemoryScene) -> None:
    stage = await begun(scene)
    [one] = await ask(stage, "one", question("One?"))
    [two] = await ask(stage, "two", question("Two?"))
    [words] = await ask(stage, "words", question("Where?", is_approval=False, details="of the three hosts"))
    assert "A program asks (coder):\n\nWhere?\n\nof the three hosts" in words.text
    await stage.press(two, approve=True)
    await stage.say("to staging")
    await stage.press(one, approve=False)
    assert [getattr(await answer_to(stage, name), "approved", None) for name in ("one", "two")] == [False, True]
    assert await answer_to(stage, "words") == OutsideAnswer(CONVERSATION, "answered", text="to staging", by="ann")


async def test_a_question_that_nobody_answers_is_over_at_its_time_or_when_it_is_cancelled(scene: MemoryScene) -> None:
    stage = await begun(scene)
    [card] = await ask(stage, "one", question())
    await stage.overdue(card.card_id)
    assert await answer_to(stage, "one") == OutsideAnswer(CONVERSATION, "no_answer", reason="timeout")
    await ask(stage, "two", question(is_approval=False))
    await stage.say("/cancel")
    assert await answer_to(stage, "two") == OutsideAnswer(CONVERSATION, "no_answer", reason="cancelled")
    assert await ask(stage, "late", question(), seconds_ago=MINUTE + 1) == [], "nobody is asked what is over"
    assert await answer_to(stage, "late") == OutsideAnswer(CONVERSATION, "no_answer", reason="timeout")


async def test_what_cannot_be_asked_is_told_to_who_asked(scene: MemoryScene) -> None:
    stage = await begun(scene)
    for number in range(10):
        await ask(stage, f"{number}", question(f"Number {number}?"))
    assert await ask(stage, "more", question("One more?")) == []
    assert await ask(stage, "long", question(details="\u202e" * 9_000)) == [], "escaped it is too long to be read"
    refused = [await answer_to(stage, name) for name in ("more", "long")]
    assert [one and one.status for one in refused] == ["refused", "refused"]
    assert "at most 10 questions" in str(refused[0] and refused[0].reason)


async def test_a_long_answer_is_kept_as_far_as_there_is_room_and_says_so(scene: MemoryScene) -> None:
    stage = await begun(scene)
    await ask(stage, "one", question(is_approval=False))
    await stage.say("𝔞" * (MOST_ANSWER_CHARACTERS + 1))
    answer = await answer_to(stage, "one")
    assert answer is not None
    assert (len(answer.text), answer.is_cut) == (MOST_ANSWER_CHARACTERS, True)


async def test_an_answer_is_forgotten_after_its_time(scene: MemoryScene) -> None:
    stage = await begun(scene)
    await asked_and_answered(stage)
    placed_ms = round(time.time() * 1000)
    content = InboundMessage(
        message_id="timer:forget",
        conversation_id=CONVERSATION,
        conversation_type="h2a",
        sender_id="ann",
        sender_type="human",
        payload=due_payload("reminder", FORGET_REMINDER, msgspec.msgpack.encode(f"{ASKED}one"), placed_ms),
    )
    packed = pack_placed_job("reminder", content, placed_ms=placed_ms, key=BUS_KEY, agent_id=AGENT)
    await (await stage.talk_here()).supervisor.placing.place(packed)
    await stage.run()
    assert await answer_to(stage, "one") is None


async def test_an_owners_handler_may_ask_for_the_whole_answer_to_an_approval_too(scene: MemoryScene) -> None:
    agent = Agent()

    @agent.on_message("text")
    async def deploy(chat: Chat) -> None:
        answer = await chat.ask(Approval("Deploy?"), Answer)
        await chat.reply(f"{answer.sender_id}: {answer.is_approved}, {answer.comment} ({answer.kind})")

    stage = Stage(scene, agent)
    [card] = await stage.say("deploy")
    [told] = await stage.press(card, approve=True, comment="carefully")
    assert told.text == "ann: True, carefully (approval)"


def test_an_owner_cannot_take_the_runtimes_own_reminders() -> None:
    agent = Agent()
    with pytest.raises(BadHandler, match=r"hashee\.ask is the runtime's own"):
        agent.on_reminder(ASK_REMINDER)(asked_and_answered)
