"""Recalls and reactions on their way to the relay: in their turn, answered by it, and named where they cannot be done."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from trio.testing import MockClock

from bus.records.records import Reply
from bus.steps.seal import StoreSeal
from supervisor.outbound.acts import RECALLED_SECONDS
from supervisor.relay.frames import MessageAck, MessageError, MessageRecall, MessageRecalled, MessageSend, ReactionSet
from tests.supervisor.builders import SECRET, Core, sending, text_reply, until, worker
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.person import CONVERSATION

REACTION = Reply(kind="reaction", content_type="reaction", payload={"message_id": "theirs", "emoji": "👍"})


def recall(job_id: str, place: str = "0") -> Reply:
    return Reply(kind="recall", content_type="recall", payload={"job_id": job_id, "place": place})


def recall_of(client_message_id: str) -> Reply:
    return Reply(kind="recall", content_type="recall", payload={"client_message_id": client_message_id})


@asynccontextmanager
async def said_and(tmp_path: Path, *others: Reply | None, by_id: bool = False) -> AsyncIterator[Core]:
    """A job has said a text and then these; None: takes that text back, by the id under which it goes out, or by its job and place."""
    async with scene(tmp_path) as (core, person):
        await StoreSeal(core.client, core.keys).adopt(SECRET)
        core.connection.connect()
        await core.push(person.say("hi"))
        async with worker(core) as jobs:
            [job] = await jobs.take(1)
            for place, one in enumerate((text_reply("first"), *others)):
                taken_back = recall_of(jobs.sent_as(job, "0")) if by_id else recall(job.job_id)
                await jobs.emit(job, str(place), taken_back if one is None else one)
            await jobs.finish(job)
            jobs.release(job)
        async with sending(core):
            yield core


async def acknowledged(core: Core) -> MessageSend:
    [said, *_] = await core.connection.wait_sent(1)
    assert isinstance(said, MessageSend)
    core.heard(MessageAck(said.client_message_id, "ours", 2))
    return said


async def at_rest(core: Core) -> None:
    async def is_at_rest() -> bool:
        return await core.client.command("HEXISTS", core.keys.conversation(CONVERSATION), "reply") == 0

    await until(is_at_rest)


async def reasons(core: Core) -> list[str]:
    return [letter.reason for letter in await core.dead.first()]


@pytest.mark.parametrize("by_id", [False, True])
async def test_rule_17_of_threads_a_recall_waits_for_the_acknowledgement_and_names_the_message_by_the_relays_id(
    tmp_path: Path, by_id: bool
) -> None:
    async with said_and(tmp_path, None, text_reply("behind"), by_id=by_id) as core:
        await core.connection.wait_sent(1)
        assert len(core.connection.sent) == 1
        await acknowledged(core)
        [_, frame] = await core.connection.wait_sent(2)
        assert frame == MessageRecall("ours", CONVERSATION)
        core.heard(MessageRecalled("another's", CONVERSATION, "x"))
        core.heard(MessageRecalled("ours", CONVERSATION, "x"))
        [*_, behind] = await core.connection.wait_sent(3)
        assert isinstance(behind, MessageSend)
        assert await reasons(core) == []


@pytest.mark.parametrize(
    ("code", "reason"), [("RECALL_EXPIRED", "refused_RECALL_EXPIRED"), ("NOT_FOUND", "refused_NOT_FOUND")]
)
async def test_what_the_relay_refuses_is_a_dead_letter_that_says_so(tmp_path: Path, code: str, reason: str) -> None:
    async with said_and(tmp_path, None) as core:
        await acknowledged(core)
        await core.connection.wait_sent(2)
        core.heard(MessageError(code))
        await at_rest(core)
        assert await reasons(core) == [reason]


async def test_a_recall_that_the_relay_refuses_for_now_is_tried_again(tmp_path: Path) -> None:
    async with said_and(tmp_path, None) as core:
        await acknowledged(core)
        await core.connection.wait_sent(2)
        core.heard(MessageError("429"))
        [*_, again] = await core.connection.wait_sent(3)
        assert again == MessageRecall("ours", CONVERSATION)
        core.heard(MessageRecalled("ours", CONVERSATION, "x"))
        await at_rest(core)
        assert await reasons(core) == []


async def test_a_recall_that_nobody_answers_and_one_of_what_is_too_old_are_named(
    tmp_path: Path, clock: MockClock
) -> None:
    async with said_and(tmp_path, None, recall("a job of yesterday")) as core:
        await acknowledged(core)
        await core.connection.wait_sent(2)
        clock.jump(RECALLED_SECONDS)
        await at_rest(core)
        assert await reasons(core) == ["recall_unanswered", "recall_too_late"]
        assert len(core.connection.sent) == 2, "what is too old is not asked for"


async def test_a_recall_whose_connection_is_lost_goes_out_over_the_next(tmp_path: Path, clock: MockClock) -> None:
    async with said_and(tmp_path, None) as core:
        await acknowledged(core)
        await core.connection.wait_sent(2)
        core.connection.disconnect()
        core.heard(MessageRecalled("of the next connection", CONVERSATION, "x"))
        clock.jump(RECALLED_SECONDS)
        core.connection.connect()
        [*_, again] = await core.connection.wait_sent(3)
        assert again == MessageRecall("ours", CONVERSATION)
        core.heard(MessageRecalled("ours", CONVERSATION, "x"))
        await at_rest(core)
        assert await reasons(core) == []


async def test_a_reaction_goes_out_in_its_turn_and_a_refusal_is_named(tmp_path: Path) -> None:
    async with said_and(tmp_path, REACTION, REACTION) as core:
        await acknowledged(core)
        [_, frame] = await core.connection.wait_sent(2)
        assert frame == ReactionSet("theirs", CONVERSATION, "👍")
        core.heard(MessageError("NOT_FOUND"))
        await core.connection.wait_sent(3)
        await at_rest(core)
        assert await reasons(core) == ["refused_NOT_FOUND"]


@pytest.mark.parametrize("named", ["01ARZ3NDEKTSV4RRFFQ69G5FAV", ""])
async def test_a_recall_of_an_id_under_which_nothing_went_out_is_named(tmp_path: Path, named: str) -> None:
    async with said_and(tmp_path, recall_of(named)) as core:
        await acknowledged(core)
        await at_rest(core)
        assert await reasons(core) == ["recall_too_late"]
