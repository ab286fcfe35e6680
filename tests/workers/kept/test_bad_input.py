"""What does not fit where it is kept is refused with its own error, and loses nothing: the message comes back when its handler is mended."""

import msgspec
import pytest

from tests.bus.scenes import MemoryScene
from tests.workers.stage import Stage
from workers import Agent, Chat, Job, Message


class Notes(msgspec.Struct):
    text: str = ""


def noting(most: int) -> Agent:
    """An agent that keeps so much of what is said."""
    agent = Agent(state=Notes)

    @agent.on_message("text")
    async def note(message: Message, chat: Chat, state: Notes) -> None:
        state.text = (message.text * 70_000)[:most]
        await chat.reply(f"Noted {len(state.text)}.")

    @agent.on_command("show")
    async def show(chat: Chat, state: Notes) -> None:
        await chat.reply(state.text[:3])

    return agent


async def test_a_state_over_its_limit_leaves_the_former_one_and_its_message_for_when_the_handler_is_mended() -> None:
    stage = Stage(MemoryScene(), noting(3))
    await stage.say("a")
    stage.agent = noting(70_000)
    await stage.say("b")
    assert await stage.dead() == ["state_too_large"]
    assert any("a state has at most 65536 bytes, this Notes has 70" in line for line in stage.logged)
    assert [one.text for one in await stage.say("/show")] == ["aaa"]
    stage.agent = noting(3)
    await stage.retry_dead()
    assert [one.text for one in await stage.say("/show")] == ["bbb"]
    assert await stage.dead() == []


@pytest.mark.parametrize("once", [False, True])
async def test_a_journal_that_is_full_names_the_step_and_keeps_what_was_done(once: bool) -> None:
    done: list[int] = []

    def working(least: int) -> Agent:
        """Steps with results of 200 KiB, those from `least` on with small ones, which may be done again."""
        agent = Agent()

        @agent.on_message("text")
        async def work(chat: Chat, job: Job) -> None:
            for number in range(7):

                def step(number: int = number) -> str:
                    done.append(number)
                    return "x" * (10 if number >= least else 200 * 1024)

                await (job.once if once and number < least else job.step)(f"part-{number}", step)
            await chat.reply("done")

        return agent

    stage = Stage(MemoryScene(), working(7))
    await stage.say("go")
    assert await stage.dead() == ["journal_full"]
    full = 4 if once else 5
    assert any(f"no room for the result of step 'part-{full}'" in line for line in stage.logged)
    assert set(done) == set(range(full + (not once)))
    assert done[:full] == list(range(full)), "what has room is done once, in however many runs"
    assert len([one for one in done if one < full]) == full
    stage.agent = working(full)
    assert [one.text for one in await stage.retry_dead()] == ["done"]
    assert [one for one in done if one < full] == list(range(full))
    assert await stage.dead() == []
