"""Which of a group's messages go to a handler: those that mention the agent, unless its code wants all; answers to cards always."""

from pathlib import Path

import msgspec
import pytest

from bus.records.records import InboundMessage, Payload
from bus.steps.policies import InGroups, Policies
from bus.steps.thread_steps import Effect
from tests.supervisor.builders import worker
from tests.supervisor.inbound.test_inbound import scene as alone
from tests.supervisor.peers.group_scene import scene
from tests.supervisor.person import AGENT

TO_US = f"@<U:{AGENT}>"


def text(said: str, **more: object) -> Payload:
    return {"type": "text", "text": said, **more}


def answer(subtype: str) -> Payload:
    return {"type": "artifact", "artifact": {"subtype": subtype, "ref_artifact": "card", "payload": {}}}


FOR_US: list[tuple[Payload, str]] = [
    (text(f"{TO_US} hello", mentions=[AGENT]), "hello"),
    (text(f"What do you say, {TO_US}?", mentions=["ben", AGENT]), "What do you say, ?"),
    (text(f"well, {TO_US}: listen\nand speak"), "well, listen\nand speak"),
    (text("everybody", mention_all=True), "everybody"),
    (text("in the list alone", mentions=[AGENT]), "in the list alone"),
    (answer("response"), ""),
    (answer("tool_response"), ""),
]
OVERHEARD: list[Payload] = [
    text("between us"),
    text("@<U:ben> you", mentions=["ben"]),
    text(f"@<U:{AGENT}0> somebody else"),
    answer("info"),
    {"type": "image", "attachment_id": "a"},
]


@pytest.mark.parametrize("groups", ["mentioned", "all", None])
async def test_a_handler_hears_what_mentions_the_agent_and_answers_to_cards(
    tmp_path: Path, groups: InGroups | None
) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        if groups is not None:  # None: workers of a version that hears all
            await core.policies.publish(Policies(groups=groups))
        for payload in OVERHEARD:
            await core.push(circle.say(ada, payload=payload))
        for payload, _ in FOR_US:
            await core.push(circle.say(ada, payload=payload))
        jobs = list[InboundMessage]()
        async with worker(core) as taking:
            while len(jobs) < len(FOR_US) + (0 if groups == "mentioned" else len(OVERHEARD)):
                [job] = await taking.take(1)
                jobs.append(job.message)
                await taking.finish(job)
                taking.release(job)
        said = jobs[-len(FOR_US) :]
        assert [one.text for one in said] == [expected for _, expected in FOR_US]
        assert all(AGENT in one.mentions for one in said[:3]), "also one that stands in the text alone"
        assert await core.jobs() == []
        assert core.count("frame_dropped_total", reason="not_mentioned") == (
            len(OVERHEARD) if groups == "mentioned" else 0
        )
        assert await core.quarantine.count() == 0


async def test_a_text_of_who_is_asked_needs_no_mention_while_the_question_is_open(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.policies.publish(Policies())

        async def said(*texts: str) -> None:
            for text in texts:
                for person in (ada, ben):
                    await core.push(circle.say(person, f"{text} of {person.user_id}"))
            await core.push(circle.say(ada, payload=answer("info")))

        async with worker(core) as taking:
            await core.push(circle.say(ada, payload=text("everybody", mention_all=True)))
            [asks] = await taking.take(1)
            body = msgspec.msgpack.encode({"kind": "text", "who": [ada.user_id], "more": 1})
            wait: Effect = ("wait", "question", taking.seal_wait(asks, "question", body), "")
            assert (await taking.settle(asks, "waiting", [wait])).name == "DONE"
            taking.release(asks)
            await said("while it is open")
            [answers] = await taking.take(1)
            assert (answers.message.text, answers.message.is_overheard) == (
                f"while it is open of {ada.user_id}",
                True,
            )
            drop: Effect = ("drop_wait", "question", "", "")
            assert (await taking.settle(answers, "done", [drop])).name == "DONE"
            taking.release(answers)
            await said("when it is over")
            assert await core.jobs() == []
        assert core.count("frame_dropped_total", reason="not_mentioned") == 5


async def test_a_persons_own_conversation_needs_no_mention(tmp_path: Path) -> None:
    async with alone(tmp_path) as (core, person):
        await core.policies.publish(Policies())
        await core.push(person.say("just so"))
        assert await core.jobs() == ["just so"]
