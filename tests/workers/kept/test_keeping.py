"""What a handler keeps of its conversation: its state and what was said are there in the next message, and nothing of a run that failed is."""

import msgspec
import pytest

from workers import (
    Agent,
    BadHandler,
    BadState,
    BlockingChat,
    Chat,
    History,
    HistoryNotKept,
    Message,
    StateTooLarge,
)
from workers.testing import Conversation, conversation

pytestmark = pytest.mark.pure


class Counted(msgspec.Struct):
    messages: int = 0
    note: str = ""


def counting() -> Agent:
    agent = Agent(state=Counted)

    @agent.on_command("fail")
    async def fail(state: Counted) -> None:
        state.messages += 100
        raise LookupError

    @agent.on_command("peek")
    async def peek(chat: Chat, state: Counted) -> None:
        await chat.reply(str(state.messages))

    @agent.on_command("plain")
    async def plain(chat: Chat) -> None:
        await chat.reply("plain")

    @agent.on_command("swell")
    async def swell(state: Counted) -> None:
        state.note = "x" * 70_000

    @agent.on_message()
    async def count(message: Message, chat: Chat, state: Counted) -> None:
        state.messages += 1
        await chat.reply(f"{state.messages}: {message.text}")

    return agent


async def heard(chat: Conversation, text: str) -> list[str]:
    return [said.text for said in await chat.say(text)]


async def test_a_state_is_there_in_the_next_message_and_each_conversation_has_its_own() -> None:
    agent = counting()
    chat, other = conversation(agent), conversation(agent)
    assert await heard(chat, "a") == ["1: a"]
    assert await heard(chat, "b") == ["2: b"]
    assert await heard(chat, "/plain") == ["plain"]
    assert await heard(other, "c") == ["1: c"]
    assert (chat.state, other.state) == (Counted(2), Counted(1))


async def test_a_run_that_fails_leaves_nothing_and_the_next_run_counts_once() -> None:
    chat = conversation(counting())
    await chat.say("a")
    with pytest.raises(LookupError):
        await chat.say("/fail")
    assert chat.state == Counted(1)
    await chat.say("b")
    assert await chat.run_again() == []  # the first run was not ended
    assert chat.state == Counted(2)


async def test_a_state_over_its_limit_fails_the_job_and_the_former_one_stays() -> None:
    chat = conversation(counting())
    await chat.say("a")
    with pytest.raises(StateTooLarge, match="at most 65536 bytes"):
        await chat.say("/swell")
    assert chat.state == Counted(1)


def saying_sorry(agent: Agent) -> Agent:
    """Adds what answers for a handler that fails, and writes into its state."""

    @agent.on_error(LookupError)
    async def sorry(chat: Chat, state: Counted) -> None:
        state.note = "failed"
        await chat.reply(f"still {state.messages}")

    return agent


async def test_a_handler_that_fails_leaves_nothing_to_the_function_that_answers_for_it() -> None:
    agent = saying_sorry(counting())
    chat = conversation(agent)
    await chat.say("a")
    assert await heard(chat, "/fail") == ["still 1"]
    assert chat.state == Counted(1, "failed")


async def test_who_calls_around_a_handler_has_the_same_state_and_a_sync_handler_too() -> None:
    agent = Agent(state=Counted)

    @agent.around
    async def noted(state: Counted):  # type: ignore[no-untyped-def]
        state.note = "before"
        yield
        state.note += f" and after {state.messages}"

    @agent.on_message()
    def count(chat: BlockingChat, state: Counted) -> None:
        state.messages += 1
        chat.reply(state.note)

    chat = conversation(agent)
    assert await heard(chat, "a") == ["before"]
    assert chat.state == Counted(1, "before and after 1")


async def test_a_new_class_of_the_state_reads_what_the_former_left_and_refuses_what_it_cannot() -> None:
    chat = conversation(counting())
    await chat.say("a")

    class Changed(msgspec.Struct):
        messages: str = ""

    agent = Agent(state=Changed)

    @agent.on_message()
    async def count(state: Changed) -> None:
        state.messages = "many"

    chat.agent = agent  # the deployed code is another now
    with pytest.raises(BadState, match=r"does not fit Changed: Expected `str`, got `int` - at `\$.messages`"):
        await chat.say("b")
    chat.agent = counting()
    assert chat.state == Counted(1)


def test_a_handler_that_asks_for_another_struct_than_the_state_is_refused() -> None:
    agent = Agent()
    with pytest.raises(BadHandler, match=r"nothing is known that `state: .*Counted` could be given"):

        @agent.on_message()
        async def count(state: Counted) -> None:
            """Never called."""

    with pytest.raises(BadHandler, match="state: Counted"):

        @counting().on_command("other")
        async def other(nothing: int) -> None:
            """Never called."""


def remembering() -> Agent:
    agent = Agent()

    @agent.on_command("last")
    async def last(chat: Chat, args: str) -> None:
        await chat.reply(" | ".join(turn.text for turn in await chat.history(int(args))))

    @agent.on_command("fail")
    async def fail() -> None:
        raise LookupError

    @agent.on_message("text")
    async def answer(message: Message, chat: Chat, history: History) -> None:
        await chat.reply(f"after {len(history)}")
        async with chat.stream() as stream:
            await stream.write(message.text.upper())

    return agent


async def test_what_both_sides_said_before_is_there_in_order_and_the_present_message_is_not() -> None:
    chat = conversation(remembering())
    assert await heard(chat, "one") == ["after 0", "ONE"]
    assert await heard(chat, "two") == ["after 3", "TWO"]
    assert await heard(chat, "/last 4") == ["ONE | two | after 3 | TWO"]
    assert await heard(chat, "/last 2") == ["/last 4 | ONE | two | after 3 | TWO"]


async def test_a_second_run_sees_what_the_first_one_saw_and_leaves_it_once() -> None:
    chat = conversation(remembering())
    await chat.say("one")
    assert await chat.run_again() == []
    assert await heard(chat, "/last 100") == ["one | after 0 | ONE"]


async def test_what_was_said_in_a_run_that_failed_is_not_kept() -> None:
    chat = conversation(remembering())
    with pytest.raises(LookupError):
        await chat.say("/fail")
    assert await heard(chat, "one") == ["after 0", "ONE"]


async def test_a_history_that_nobody_asks_for_is_not_kept_and_says_so() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(chat: Chat) -> None:
        await chat.reply(str(len(await chat.history())))

    assert not agent.has_history
    with pytest.raises(HistoryNotKept, match="the parameter `history: History`"):
        await conversation(agent).say("one")
    kept = Agent(history=True)
    kept.on_message()(answer)
    chat = conversation(kept)
    assert [await heard(chat, "one"), await heard(chat, "two")] == [["0"], ["2"]]


async def test_a_sync_handler_reads_it_too() -> None:
    agent = Agent(history=True)

    @agent.on_message()
    def answer(chat: BlockingChat) -> None:
        chat.reply(f"after {[turn.text for turn in chat.history(2)]}")

    chat = conversation(agent)
    assert [await heard(chat, "one"), await heard(chat, "two")] == [["after []"], ["after ['one', 'after []']"]]


async def test_a_message_that_nobody_takes_was_said_too() -> None:
    agent = Agent(history=True)

    @agent.on_message("text")
    async def answer(chat: Chat) -> None:
        await chat.reply(" | ".join(turn.text for turn in await chat.history()))

    chat = conversation(agent)
    with pytest.raises(LookupError):
        await chat.send({"type": "image", "attachment_id": "a", "alt": "a cat"})
    assert await heard(chat, "what was it?") == ["[image: a cat]"]


def forgetful() -> Agent:
    agent = Agent(state=Counted)

    @agent.on_command("forget")
    async def forget(chat: Chat, state: Counted, args: str) -> None:
        state.messages = 99
        await chat.forget()
        await chat.reply("It is gone.")
        if args:
            raise LookupError

    @agent.on_message()
    async def count(chat: Chat, state: Counted, history: History) -> None:
        state.messages += 1
        await chat.reply(f"{state.messages} after {len(history)}")

    return agent


async def test_what_is_forgotten_is_gone_with_the_jobs_end_and_not_where_that_fails() -> None:
    chat = conversation(forgetful())
    assert [await heard(chat, "a"), await heard(chat, "b")] == [["1 after 0"], ["2 after 2"]]
    with pytest.raises(LookupError):
        await chat.say("/forget and fail")
    assert await heard(chat, "c") == ["3 after 4"]
    assert await heard(chat, "/forget") == ["It is gone."]
    assert chat.state == Counted()
    assert await heard(chat, "d") == ["1 after 0"]


async def test_what_a_handler_that_failed_has_forgotten_stays_where_a_function_answers_for_it() -> None:
    agent = saying_sorry(forgetful())
    chat = conversation(agent)
    await chat.say("a")
    assert await heard(chat, "/forget and fail") == ["It is gone.", "still 1"]
    assert chat.state == Counted(1, "failed")


async def test_a_sync_handler_forgets_too() -> None:
    agent = Agent(state=Counted)

    @agent.on_message()
    def forget(chat: BlockingChat, state: Counted) -> None:
        state.messages += 1
        if state.messages == 2:
            chat.forget()

    chat = conversation(agent)
    await chat.say("a")
    assert chat.state == Counted(1)
    await chat.say("b")
    assert chat.state == Counted(0)
